"""What an accumulator is made of: open batches, a queue for each partition, who waits for what."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from millstream.log.errors import (
    InvalidRecordError,
    InvalidTimestampError,
    LogTimeoutError,
    RecordTooLargeError,
)
from millstream.log.format.codec import HEADER_SIZE_BYTES
from millstream.log.format.header import TIMESTAMP_MAX
from millstream.log.record import Headers, RecordMetadata, TopicPartition
from millstream.log.storage.partition import AppendInfo

__all__ = [
    "SEQUENCES",
    "OpenBatch",
    "PartitionQueue",
    "ProducerIdentity",
    "answer",
    "fail",
    "too_large",
    "too_late",
    "unfit",
    "wake",
]

SEQUENCES = 1 << 31
"""Sequence numbers wrap to 0 after 2^31 - 1."""


class ProducerIdentity(NamedTuple):
    """What every batch of a producer carries. `transactional_id` None: idempotent only."""

    producer_id: int
    epoch: int
    transactional_id: str | None = None


class OpenBatch:
    """Records of one partition, sent one by one and not yet encoded."""

    __slots__ = (
        "has_headers",
        "headers",
        "keys",
        "size_bytes",
        "timer",
        "timestamps",
        "values",
        "waiters",
    )

    def __init__(self) -> None:
        self.keys: list[bytes | None] = []
        self.values: list[bytes | None] = []
        self.timestamps: list[int] = []
        self.headers: list[Headers] = []
        self.has_headers = False
        self.waiters: list[asyncio.Future[RecordMetadata]] = []
        self.size_bytes = HEADER_SIZE_BYTES
        self.timer: asyncio.Handle | None = None


class PartitionQueue:
    """One partition as its producer sees it.

    `end_offset` lies after the last batch appended; `unflushed_bytes` were appended without asking
    for an fsync.
    """

    __slots__ = ("end_offset", "open", "sequence", "topic_partition", "unflushed_bytes")

    def __init__(self, topic_partition: TopicPartition) -> None:
        self.topic_partition = topic_partition
        self.sequence = 0
        self.open: OpenBatch | None = None
        self.end_offset = 0
        self.unflushed_bytes = 0


def answer(batch: OpenBatch, topic_partition: TopicPartition, info: AppendInfo) -> None:
    """The batch is acknowledged: tell everybody where their record lies."""
    topic, partition = topic_partition
    offset = info.base_offset
    for i, waiter in enumerate(batch.waiters):
        if not waiter.done():
            timestamp = batch.timestamps[i] if info.timestamp < 0 else info.timestamp
            waiter.set_result(RecordMetadata(topic, partition, offset + i, timestamp))


def fail(waiter: asyncio.Future[RecordMetadata], error: BaseException) -> None:
    """Tell one who waits, unless it was cancelled or told before."""
    if not waiter.done():
        waiter.set_exception(error)


def wake(waiter: asyncio.Future[None]) -> None:
    """Let one go on that waits for room, unless it was cancelled or woken before."""
    if not waiter.done():
        waiter.set_result(None)


def too_large(
    topic_partition: TopicPartition, size_bytes: int, size_bytes_max: int
) -> RecordTooLargeError:
    """The error for a record that no batch of this topic can hold."""
    return RecordTooLargeError(
        f"A record for {topic_partition} takes {size_bytes} bytes as a batch of its own, and the "
        f"topic's max.message.bytes is {size_bytes_max}. Nothing was written. Raise "
        "max.message.bytes of the topic, use compression.type, or send less in one record."
    )


def too_late(delivery_timeout_ms: int) -> LogTimeoutError:
    """The error for a batch that the disk has not acknowledged in time."""
    return LogTimeoutError(
        f"Not acknowledged within delivery.timeout.ms={delivery_timeout_ms}: the disk is slow or "
        "stuck. The records may still be written."
    )


def unfit(
    topic_partition: TopicPartition, error: OverflowError | UnicodeEncodeError
) -> InvalidRecordError:
    """The error for what the format has no room for, out of the one that encoding it raised."""
    if isinstance(error, UnicodeEncodeError):
        return InvalidRecordError(
            f"A record for {topic_partition}: the key of a header is no text ({error}). Nothing "
            "was written. Use another key; what is not text can be the header's value."
        )
    return InvalidTimestampError(
        f"A record for {topic_partition} has a timestamp that no record can hold ({error}). "
        f"Nothing was written. Give milliseconds since 1970, at most {TIMESTAMP_MAX}, or -1 for "
        "none."
    )
