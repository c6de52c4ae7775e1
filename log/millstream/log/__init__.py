"""The partitioned, durable, transactional log: Kafka's concepts, format and names, in this process.

async with open_log("file:./data") as log:
    await log.create_topic("orders", partitions=4)
    async with log.producer() as producer:
        await producer.send("orders", b"value", key=b"key")
    async with log.consumer("orders", group="billing") as consumer:
        async for record in consumer: ...
"""

from __future__ import annotations

from .errors import (
    BufferFullError,
    ConcurrentTransactionsError,
    ConfigError,
    CoordinatorLoadError,
    CorruptRecordError,
    GroupNotEmptyError,
    IllegalGenerationError,
    InvalidProducerEpochError,
    InvalidRecordError,
    InvalidTimestampError,
    InvalidTopicError,
    InvalidTxnStateError,
    LogClosedError,
    LogError,
    LogLockedError,
    LogTimeoutError,
    MillstreamError,
    NotEnoughReplicasError,
    OffsetOutOfRangeError,
    OutOfOrderSequenceError,
    ProducerFencedError,
    RebalanceInProgressError,
    RecordTooLargeError,
    RetriableError,
    StorageError,
    TopicExistsError,
    UnknownMemberError,
    UnknownTopicError,
    UnstableOffsetCommitError,
)
from .interface import Consumer, Isolation, Log, OffsetReset, Producer, RebalanceListener
from .open import open_log
from .record import (
    ConsumerGroupMetadata,
    Headers,
    OffsetAndMetadata,
    Record,
    RecordBatch,
    RecordMetadata,
    TopicDescription,
    TopicPartition,
)

__all__ = [
    "open_log",
    "Log",
    "Producer",
    "Consumer",
    "Isolation",
    "OffsetReset",
    "RebalanceListener",
    "Record",
    "RecordBatch",
    "RecordMetadata",
    "Headers",
    "TopicPartition",
    "TopicDescription",
    "OffsetAndMetadata",
    "ConsumerGroupMetadata",
    "BufferFullError",
    "ConcurrentTransactionsError",
    "ConfigError",
    "CoordinatorLoadError",
    "CorruptRecordError",
    "GroupNotEmptyError",
    "IllegalGenerationError",
    "InvalidProducerEpochError",
    "InvalidRecordError",
    "InvalidTimestampError",
    "InvalidTopicError",
    "InvalidTxnStateError",
    "LogClosedError",
    "LogError",
    "LogLockedError",
    "LogTimeoutError",
    "MillstreamError",
    "NotEnoughReplicasError",
    "OffsetOutOfRangeError",
    "OutOfOrderSequenceError",
    "ProducerFencedError",
    "RebalanceInProgressError",
    "RecordTooLargeError",
    "RetriableError",
    "StorageError",
    "TopicExistsError",
    "UnknownMemberError",
    "UnknownTopicError",
    "UnstableOffsetCommitError",
]
