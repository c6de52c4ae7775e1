"""What differs between what an app has written and what a replay of it wrote to the shadows.

    table    a topic of results (a fold, a closed window): the last value of each key and window
    stream   a topic of records: how often each (key, timestamp, value) occurs

Only what the replay can have written is held against it: records of the original from before its
start or after its end do not count, and neither do windows that reach over either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from millstream.log.interface import Log
from millstream.log.reading_end import ReadingEnd
from millstream.log.record import RecordBatch, TopicPartition

from .internal_topics import describe_or_none
from .nodes import FilterNode, FinalNode, FoldNode, Node, PeekNode, SinkNode, TableNode, ValueNode
from .replay import Replay, When
from .restore import POLL_MS
from .topology import Topology
from .windows import Windowed

__all__ = ["Difference", "TopicComparison", "compare_replay"]

_KEEPS_THE_KEY = (SinkNode, FilterNode, PeekNode, ValueNode)
_RESULTS = (FinalNode, FoldNode, TableNode)
_CONSUMER_CONFIG: Mapping[str, str | int] = {"enable.auto.commit": "false"}

Kind = Literal["changed", "only_old", "only_new"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One key, or one record, that old and new do not agree on."""

    kind: Kind
    key: Any
    window_start: int | None
    """Milliseconds; None where the key has no window."""
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class TopicComparison:
    """An output topic and its shadow."""

    topic: str
    shadow: str
    is_table: bool
    same: int
    """Keys, or records, that both have alike."""
    differences: list[Difference]


async def compare_replay(replay: Replay) -> list[TopicComparison]:
    """Compare each topic the app writes with its shadow."""
    comparisons = []
    for topic, shadow in replay.shadows.items():
        sink = _sink(replay.context.topology, topic)
        side = _TableSide if _is_table(sink) else _StreamSide
        old, new = side(sink, replay), side(sink, replay)
        await old.read(topic)
        await new.read(shadow)
        comparisons.append(_compare(topic, shadow, old, new))
    return comparisons


class _Side(ABC):
    """What one topic has, by what identifies it: identity -> value, or count."""

    is_table: bool

    def __init__(self, sink: SinkNode, replay: Replay) -> None:
        self._sink = sink
        self._replay = replay
        self.content: dict[Any, Any] = {}

    async def read(self, topic: str) -> None:
        """Take in all of a topic that the replay can have written."""
        async for batch in _batches(self._replay.context.log, topic):
            for key, timestamp, value in zip(
                batch.keys, batch.timestamps, batch.values, strict=True
            ):
                if self._counts(key, timestamp):
                    self.add(key, timestamp, value)

    @abstractmethod
    def add(self, key: bytes | None, timestamp: int, value: bytes | None) -> None:
        """Take in one record."""

    @abstractmethod
    def differences(self, new: Self) -> Iterator[Difference]:
        """What this, the old side, and the new side do not agree on."""

    def key(self, data: bytes | None) -> tuple[Any, int | None]:
        """A key and its window's start, for people."""
        key = None if data is None else self._sink.key_serde.deserialize(data)
        return (key.key, key.start) if isinstance(key, Windowed) else (key, None)

    def value(self, data: bytes | None) -> Any:
        """A value, for people."""
        return None if data is None else self._sink.value_serde.deserialize(data)

    def _counts(self, key: bytes | None, timestamp: int) -> bool:
        first, last = timestamp, timestamp + 1
        if self._sink.windowed and key is not None:
            windowed = self._sink.key_serde.deserialize(key)
            first, last = windowed.start, windowed.end
        start, end = self._replay.start.timestamp_ms, _timestamp(self._replay.end)
        return (start is None or first >= start) and (end is None or last <= end)


class _TableSide(_Side):
    """The last value of each key; a tombstone takes the key away."""

    is_table = True

    def add(self, key: bytes | None, timestamp: int, value: bytes | None) -> None:
        if value is None:
            self.content.pop(key, None)
        else:
            self.content[key] = value

    def differences(self, new: Self) -> Iterator[Difference]:
        for data in sorted(self.content.keys() | new.content.keys()):
            before, after = self.content.get(data), new.content.get(data)
            if before != after:
                yield Difference(
                    "only_old" if after is None else "only_new" if before is None else "changed",
                    *self.key(data),
                    self.value(before),
                    self.value(after),
                )


class _StreamSide(_Side):
    """How often each record occurs: order between partitions means nothing."""

    is_table = False

    def add(self, key: bytes | None, timestamp: int, value: bytes | None) -> None:
        record = key, timestamp, value
        self.content[record] = self.content.get(record, 0) + 1

    def differences(self, new: Self) -> Iterator[Difference]:
        for record in sorted(self.content.keys() | new.content.keys(), key=repr):
            before, after = self.content.get(record, 0), new.content.get(record, 0)
            data, _, value = record
            for _ in range(before - after):
                yield Difference("only_old", *self.key(data), self.value(value), None)
            for _ in range(after - before):
                yield Difference("only_new", *self.key(data), None, self.value(value))


def _compare(topic: str, shadow: str, old: _Side, new: _Side) -> TopicComparison:
    same = sum(new.content.get(identity) == value for identity, value in old.content.items())
    return TopicComparison(topic, shadow, old.is_table, same, list(old.differences(new)))


async def _batches(log: Log, topic: str) -> AsyncIterator[RecordBatch]:
    description = await describe_or_none(log, topic)
    if description is None:
        return
    partitions = [TopicPartition(topic, number) for number in range(description.partitions)]
    positions = await log.beginning_offsets(partitions)
    end = await ReadingEnd.now(log, partitions)
    async with log.consumer(config=_CONSUMER_CONFIG) as consumer:
        await consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while not await end.is_reached(positions):
            for batch in await consumer.poll_batches(POLL_MS):
                yield batch
            positions.update(consumer.position())


def _sink(topology: Topology, topic: str) -> SinkNode:
    return next(
        node
        for subtopology in topology.subtopologies
        for node in subtopology.nodes
        if isinstance(node, SinkNode) and node.topic == topic
    )


def _is_table(node: Node) -> bool:
    """Whether what a step gives is the result of a fold or a table, under its key."""
    while node.parents and isinstance(node, _KEEPS_THE_KEY):
        node = node.parents[0]
    return isinstance(node, _RESULTS)


def _timestamp(when: When | None) -> int | None:
    return None if when is None else when.timestamp_ms
