"""The records of `__transaction_state`, as Kafka's TransactionLogKey and TransactionLogValue.

    key    int16 0, string transactionalId
    value  int16 version, int64 producerId, int16 producerEpoch, int32 timeoutMs, int8 state,
           partitions [topic, [int32]], int64 lastUpdateMs, int64 startMs
           version 0: plain strings and arrays; version 1: compact ones, and tagged fields:
           0 previousProducerId, 1 nextProducerId, 2 clientTransactionVersion (2: of a producer
           whose epoch each end raises, KIP-890; 1: of one that keeps it; 0: ended by the
           coordinator)

Version 1 is written, both are read. A null value is a tombstone: the id is forgotten.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from millstream.log.errors import CorruptRecordError
from millstream.log.record import TopicPartition

from .primitives import Reader, Writer

__all__ = [
    "BY_COORDINATOR",
    "BY_OLD_PRODUCER",
    "BY_PRODUCER",
    "NO_PRODUCER_ID",
    "TransactionMetadata",
    "TransactionState",
    "decode_key",
    "decode_value",
    "encode_key",
    "encode_value",
]

NO_PRODUCER_ID = -1
_KEY_VERSION = 0
_VERSION = 1
_TAG_PREVIOUS, _TAG_NEXT, _TAG_CLIENT_VERSION = 0, 1, 2

BY_PRODUCER, BY_OLD_PRODUCER, BY_COORDINATOR = 2, 1, 0
"""Whose transaction it is, or who ended it, as the transaction version Kafka keeps for it. A
producer may repeat the end of its own; one whose transaction was ended for it is fenced. An old
producer, one on the network that does not speak KIP-890, has the same epoch until it starts
again."""


class TransactionState(IntEnum):
    """States of a transactional id, numbered as Kafka numbers them."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5
    DEAD = 6
    PREPARE_EPOCH_FENCE = 7


_PREPARED = frozenset(
    {
        TransactionState.PREPARE_COMMIT,
        TransactionState.PREPARE_ABORT,
        TransactionState.PREPARE_EPOCH_FENCE,
    }
)


class TransactionMetadata(NamedTuple):
    """All that is known of one transactional id. Each change makes a new one.

    `previous_producer_id` is the id of the last transaction when it had another one;
    `next_producer_id` is what the next will have when the epochs of `producer_id` are used up.
    `last_epoch` is what its producer had before it asked for another, to know the question when it
    is repeated; as in Kafka it is not written down.
    """

    transactional_id: str
    producer_id: int
    epoch: int
    timeout_ms: int
    state: TransactionState
    partitions: frozenset[TopicPartition]
    last_update_ms: int
    start_ms: int = -1
    previous_producer_id: int = NO_PRODUCER_ID
    next_producer_id: int = NO_PRODUCER_ID
    client_version: int = BY_PRODUCER
    last_epoch: int = -1

    @property
    def keeps_epoch(self) -> bool:
        """Whether its producer goes on with the same epoch after a transaction."""
        return self.client_version == BY_OLD_PRODUCER

    @property
    def is_prepared(self) -> bool:
        """Whether the end is decided and not every marker is known to be written."""
        return self.state in _PREPARED


def encode_key(transactional_id: str) -> bytes:
    """The key of every record about this id."""
    return bytes(Writer().int16(_KEY_VERSION).string(transactional_id).data)


def decode_key(data: bytes) -> str | None:
    """The transactional id; None for a kind of record this release does not know.

    Raises:
        CorruptRecordError: not such a key.
    """
    reader = Reader(data, "transaction log key")
    return reader.string() if reader.int16() == _KEY_VERSION else None


def encode_value(metadata: TransactionMetadata) -> bytes:
    """The value that says what `metadata` says."""
    writer = Writer().int16(_VERSION).int64(metadata.producer_id).int16(metadata.epoch)
    writer.int32(metadata.timeout_ms).int8(metadata.state)
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(metadata.partitions):
        by_topic.setdefault(topic, []).append(partition)
    writer.uvarint(len(by_topic) + 1)
    for topic, partitions in by_topic.items():
        writer.compact_string(topic).uvarint(len(partitions) + 1)
        for partition in partitions:
            writer.int32(partition)
        writer.uvarint(0)
    writer.int64(metadata.last_update_ms).int64(metadata.start_ms)
    tagged = {_TAG_CLIENT_VERSION: Writer().int16(metadata.client_version).data}
    for tag, producer_id in (
        (_TAG_PREVIOUS, metadata.previous_producer_id),
        (_TAG_NEXT, metadata.next_producer_id),
    ):
        if producer_id != NO_PRODUCER_ID:
            tagged[tag] = Writer().int64(producer_id).data
    writer.uvarint(len(tagged))
    for tag in sorted(tagged):
        writer.uvarint(tag).uvarint(len(tagged[tag]))
        writer.data += tagged[tag]
    return bytes(writer.data)


def decode_value(transactional_id: str, data: bytes) -> TransactionMetadata:
    """What a value says about this id.

    Raises:
        CorruptRecordError: not such a value.
    """
    what = f"transaction log value of {transactional_id!r}"
    reader = Reader(data, what)
    version = reader.int16()
    if version not in (0, 1):
        raise CorruptRecordError(f"{what}: version {version}; this release reads 0 and 1.")
    producer_id, epoch = reader.int64(), reader.int16()
    timeout_ms, state = reader.int32(), reader.int8()
    if not 0 <= state <= max(TransactionState):
        raise CorruptRecordError(f"{what}: state {state} is unknown.")
    partitions = _read_compact(reader) if version else _read_plain(reader)
    last_update_ms, start_ms = reader.int64(), reader.int64()
    tagged = reader.tagged_fields() if version else {}
    return TransactionMetadata(
        transactional_id,
        producer_id,
        epoch,
        timeout_ms,
        TransactionState(state),
        partitions,
        last_update_ms,
        start_ms,
        _tagged_id(tagged, _TAG_PREVIOUS, what),
        _tagged_id(tagged, _TAG_NEXT, what),
        _tagged_version(tagged, what),
    )


def _tagged_id(tagged: dict[int, bytes], tag: int, what: str) -> int:
    return Reader(tagged[tag], what).int64() if tag in tagged else NO_PRODUCER_ID


def _tagged_version(tagged: dict[int, bytes], what: str) -> int:
    if _TAG_CLIENT_VERSION not in tagged:
        return BY_COORDINATOR
    return Reader(tagged[_TAG_CLIENT_VERSION], what).int16()


def _read_plain(reader: Reader) -> frozenset[TopicPartition]:
    count = reader.int32()
    found: set[TopicPartition] = set()
    for _ in range(max(count, 0)):
        topic = reader.string()
        found.update(TopicPartition(topic, reader.int32()) for _ in range(reader.array_size()))
    return frozenset(found)


def _read_compact(reader: Reader) -> frozenset[TopicPartition]:
    found: set[TopicPartition] = set()
    for _ in range(reader.compact_array_size()):
        topic = reader.compact_string()
        count = reader.compact_array_size()
        found.update(TopicPartition(topic, reader.int32()) for _ in range(count))
        reader.tagged_fields()
    return frozenset(found)
