"""What passes between a connector and its worker, in columns like everything that moves in
Millstream.

A source hands over `SourceBatch`es, or a list of `SourceRecord`s where columns would be a burden.
A sink is given `SinkBatch`es. Keys and values are Python values here; the converters stand
between them and the bytes in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from millstream.log import Headers, RecordBatch, TopicPartition

from .errors import BadRecordError

__all__ = [
    "Rejection",
    "SinkBatch",
    "SinkRecord",
    "SourceBatch",
    "SourceEvidence",
    "SourceOffset",
    "SourcePartition",
    "SourceRecord",
    "Stage",
]

SourcePartition = Mapping[str, Any]
"""Which part of the source: `{"file": "/data/a.csv"}`. JSON values, the same for the same part
always.
"""

SourceOffset = Mapping[str, Any]
"""Where in that part the next record begins, that is, the place after a record. JSON values."""

Stage = Literal[
    "KEY_CONVERTER", "VALUE_CONVERTER", "KAFKA_PRODUCE", "TASK_POLL", "TASK_PUT", "TRANSFORMATION"
]
"""Where a record failed, in Kafka Connect's words."""


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One record from a source.

    `source_offset` is the place *after* this record: where a restart goes on. `timestamp` is
    milliseconds since the Unix epoch; None takes the time of writing. `partition` None leaves the
    choice to the key. `topic` None is the connector's own topic.
    """

    value: Any
    key: Any = None
    timestamp: int | None = None
    headers: Headers = ()
    topic: str | None = None
    partition: int | None = None
    source_partition: SourcePartition = field(default_factory=dict)
    source_offset: SourceOffset = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that cannot be used, with all that is known of it.

    Args:
        error: Why.
        stage: Where it failed.
        key, value: The raw bytes, as far as they are known.
        origin: The log record it was, for a sink: topic, partition and offset.
        source_partition, source_offset: Where it begins in the source, for a source.
        index: How many records of the batch's columns come before it.
    """

    error: BaseException
    stage: Stage
    key: bytes | None = None
    value: bytes | None = None
    timestamp: int | None = None
    headers: Headers = ()
    origin: tuple[TopicPartition, int] | None = None
    source_partition: SourcePartition | None = None
    source_offset: SourceOffset | None = None
    index: int = 0


class SourceEvidence(Protocol):
    """What a dead letter wants to know about record `i` of a batch; asked only when one is
    needed.
    """

    def raw(self, i: int) -> bytes:
        """Its bytes in the source."""
        ...

    def start(self, i: int) -> SourceOffset:
        """Where it begins in the source."""
        ...


@dataclass(slots=True)
class SourceBatch:
    """Records of one source partition for one topic, in columns, in order.

    `offsets[i]` is the source offset after record `i`; the sequence may make them when asked, since
    only the last one is needed when all goes well. `end` is the offset after everything the batch
    covers, rejected records included. `timestamps` None takes the time of writing. `rejections` are
    records the source itself cannot use, in order; they are not in the columns.
    """

    topic: str
    values: list[Any]
    source_partition: SourcePartition
    offsets: Sequence[SourceOffset]
    end: SourceOffset
    keys: list[Any] | None = None
    timestamps: list[int] | None = None
    headers: list[Headers] | None = None
    partition: int | None = None
    rejections: list[Rejection] = field(default_factory=list)
    evidence: SourceEvidence | None = None

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class SinkRecord:
    """One record for a sink: `key` and `value` converted, the rest as it is in the log."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: Any
    value: Any
    headers: Headers


@dataclass(slots=True)
class SinkBatch:
    """Records of one topic partition for a sink, converted, in columns: `keys[i]`, `values[i]`.

    `raw` is the batch as read; `indexes[i]` is where record `i` lies in it (records that could
    not be converted are missing here). `next_offset` is where reading goes on behind the whole of
    `raw`.
    """

    raw: RecordBatch
    keys: Sequence[Any]
    values: list[Any]
    indexes: Sequence[int]
    next_offset: int
    rejections: list[Rejection] = field(default_factory=list)

    @property
    def topic_partition(self) -> TopicPartition:
        """Where these records come from."""
        return TopicPartition(self.raw.topic, self.raw.partition)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[SinkRecord]:
        for i in range(len(self.values)):
            yield self.record(i)

    def record(self, i: int) -> SinkRecord:
        """The record at index `i` of this batch."""
        raw = self.raw.record(self.indexes[i])
        return SinkRecord(
            raw.topic,
            raw.partition,
            raw.offset,
            raw.timestamp,
            self.keys[i],
            self.values[i],
            raw.headers,
        )

    def rejection(self, i: int, error: Exception, stage: Stage = "TASK_PUT") -> Rejection:
        """Record `i` as a rejection with its raw bytes and origin."""
        return reject_raw(self.raw, self.indexes[i], error, stage)

    def reject(self, i: int, reason: str) -> None:
        """Refuse record `i`: after `put` returns, the worker sends it to the dead-letter topic."""
        self.rejections.append(self.rejection(i, BadRecordError(reason)))


def reject_raw(batch: RecordBatch, index: int, error: Exception, stage: Stage) -> Rejection:
    """The record at `index` of a batch as read, as a rejection."""
    record = batch.record(index)
    return Rejection(
        error,
        stage,
        record.key,
        record.value,
        record.timestamp,
        record.headers,
        origin=(TopicPartition(record.topic, record.partition), record.offset),
    )


def batches_of(records: Sequence[SourceRecord], topic: str) -> list[SourceBatch]:
    """A list of records as batches: one for each run of the same destination and source
    partition.
    """
    batches: list[SourceBatch] = []
    current: Any = None
    for record in records:
        place = (
            record.topic or topic,
            record.partition,
            record.source_partition,
            record.timestamp is None,
        )
        if place != current:
            current = place
            batches.append(_empty_batch(record, topic))
        batch = batches[-1]
        _append(batch, record)
    return batches


def _empty_batch(record: SourceRecord, topic: str) -> SourceBatch:
    return SourceBatch(
        record.topic or topic,
        values=[],
        source_partition=record.source_partition,
        offsets=[],
        end=record.source_offset,
        keys=[],
        timestamps=None if record.timestamp is None else [],
        headers=[],
        partition=record.partition,
    )


def _append(batch: SourceBatch, record: SourceRecord) -> None:
    assert isinstance(batch.offsets, list)
    assert batch.keys is not None
    assert batch.headers is not None
    batch.values.append(record.value)
    batch.keys.append(record.key)
    batch.headers.append(record.headers)
    batch.offsets.append(record.source_offset)
    batch.end = record.source_offset
    if batch.timestamps is not None and record.timestamp is not None:
        batch.timestamps.append(record.timestamp)


Progress = Callable[[int, "int | None"], None]
"""Told how many records are done, and how many there are in all where that is known."""
