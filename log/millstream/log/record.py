"""The values that pass between the log and those who use it.

A stream is moved in columns, not in records: a `RecordBatch` is four parallel lists, and a `Record`
is made only when somebody asks for one. At a million records a second an object for each would cost
more than everything else together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = [
    "ConsumerGroupMetadata",
    "HangingTransaction",
    "GroupDescription",
    "GroupListing",
    "Headers",
    "MemberDescription",
    "OffsetAndMetadata",
    "OffsetAndTimestamp",
    "PartitionDescription",
    "ProducerDescription",
    "Record",
    "RecordBatch",
    "RecordMetadata",
    "TopicDescription",
    "TopicPartition",
    "TransactionDescription",
    "TransactionListing",
]

Headers = tuple[tuple[str, bytes | None], ...]
"""Headers of one record, in order; a key may occur more than once (Kafka allows it)."""


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read. `timestamp` is milliseconds since the Unix epoch, -1 if there is none."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class RecordMetadata:
    """Where an acknowledged record lies."""

    topic: str
    partition: int
    offset: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class OffsetAndMetadata:
    """A committed position: the next offset to read, and a note of up to 4096 bytes."""

    offset: int
    metadata: str = ""


class OffsetAndTimestamp(NamedTuple):
    """A record's offset and its timestamp, in milliseconds since the Unix epoch."""

    offset: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class ConsumerGroupMetadata:
    """Who commits offsets inside a transaction. A stale generation is refused (KIP-447).

    A producer that is no member of the group leaves `generation` at -1 and `member_id` empty.
    """

    group: str
    generation: int = -1
    member_id: str = ""
    group_instance_id: str | None = None


class GroupListing(NamedTuple):
    """A group as `Log.groups` lists it. One that only has committed offsets is "Empty" and of no
    protocol type ("")."""

    group: str
    state: str
    protocol_type: str


class MemberDescription(NamedTuple):
    """One member of a group, and the partitions it was given."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    assignment: tuple[TopicPartition, ...]


class GroupDescription(NamedTuple):
    """What `Log.describe_group` answers. `protocol` is the assignor the members agreed on, ""
    between two generations; `leader` is a member id."""

    group: str
    state: str
    protocol_type: str
    protocol: str
    generation: int
    leader: str
    members: tuple[MemberDescription, ...]


@dataclass(slots=True)
class RecordBatch:
    """Records of one partition in columns: `keys[i]`, `values[i]`, `timestamps[i]`, `offsets[i]`.

    `offsets` is a range, or a list where compaction or a transaction marker left gaps. `headers` is
    None when no record of the batch has any, which is the usual case.
    """

    topic: str
    partition: int
    offsets: Sequence[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    timestamps: list[int]
    headers: list[Headers] | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def next_offset(self) -> int:
        """The offset after the last record."""
        return self.offsets[-1] + 1

    def __iter__(self) -> Iterator[Record]:
        for i in range(len(self.values)):
            yield self.record(i)

    def record(self, i: int) -> Record:
        """The record at index `i` of this batch."""
        return Record(
            self.topic,
            self.partition,
            self.offsets[i],
            self.timestamps[i],
            self.keys[i],
            self.values[i],
            self.headers[i] if self.headers is not None else (),
        )

    def slice(self, start: int, stop: int) -> RecordBatch:
        """Records `start` to `stop` (exclusive) as a batch of their own."""
        return RecordBatch(
            self.topic,
            self.partition,
            self.offsets[start:stop],
            self.keys[start:stop],
            self.values[start:stop],
            self.timestamps[start:stop],
            self.headers[start:stop] if self.headers is not None else None,
        )


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """What `Log.describe_topic` answers. `config` holds every key, defaults included; `overrides`
    only what was set for this topic."""

    name: str
    topic_id: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)
    internal: bool = False
    overrides: Mapping[str, str] = field(default_factory=dict)


class PartitionDescription(NamedTuple):
    """One partition, as `Log.describe_partitions` answers it: its four offsets, and the bytes and
    number of its segments."""

    partition: int
    log_start_offset: int
    last_stable_offset: int
    high_watermark: int
    log_end_offset: int
    size_bytes: int
    segments: int


class TransactionListing(NamedTuple):
    """One transactional id, as `Log.transactions` lists it. `state` is Kafka's name: Empty,
    Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort, PrepareEpochFence."""

    transactional_id: str
    producer_id: int
    state: str


class TransactionDescription(NamedTuple):
    """One transactional id, as `Log.describe_transaction` answers it. `start_ms`, milliseconds
    since the Unix epoch, is when the open transaction began; None without one."""

    transactional_id: str
    state: str
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    start_ms: int | None
    partitions: tuple[TopicPartition, ...]


class ProducerDescription(NamedTuple):
    """What a partition remembers of one producer (Kafka's DescribeProducers).

    `last_sequence` is -1 when it wrote nothing in its epoch, `coordinator_epoch` None when no
    transaction of it ended here, `current_transaction_start_offset` None when none is open here.
    """

    producer_id: int
    producer_epoch: int
    last_sequence: int
    last_timestamp: int
    coordinator_epoch: int | None
    current_transaction_start_offset: int | None


class HangingTransaction(NamedTuple):
    """A transaction that has been open in a partition for `open_ms`. `log.terminate_transaction`
    with its `transactional_id` aborts it; None: the coordinator does not know the producer, and
    opening the log again aborts it."""

    topic_partition: TopicPartition
    producer_id: int
    producer_epoch: int
    transactional_id: str | None
    start_offset: int
    open_ms: int
