"""Which record is processed next.

A task with several input partitions takes the one whose first waiting record has the lowest
timestamp, as Kafka Streams does (KIP-353): the past of a table is read before the stream that looks
into it. The choice is made for slices of batches, not for records: a slice ends where another
partition's first record would come first.

Synchronous, told what is at its end; owned by the worker's loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Container
from typing import Final

from millstream.log.record import RecordBatch, TopicPartition

__all__ = ["WAITING_RECORDS_MAX", "Intake"]

WAITING_RECORDS_MAX: Final = 20_000
"""Records of one partition that wait for others; with more, it is not fetched from."""


class Intake:
    """The waiting batches of some partitions, and the order they are taken in.

    `slack_ms` lets a slice run past another partition's first record by so much time: 0 is Kafka's
    order, more means longer slices and more disorder between partitions.
    """

    def __init__(self, *, slack_ms: int = 0) -> None:
        self._slack_ms = slack_ms
        self._waiting: dict[TopicPartition, deque[RecordBatch]] = {}

    @property
    def inputs(self) -> Collection[TopicPartition]:
        """The partitions chosen between, in the order that decides between equal timestamps."""
        return self._waiting.keys()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not any(self._waiting.values())

    @property
    def has_choice(self) -> bool:
        """Whether `next` has to know which partitions are at their end."""
        return len(self._waiting) > 1

    def open(self, partitions: Collection[TopicPartition]) -> None:
        """Choose between these, too."""
        for partition in partitions:
            self._waiting[partition] = deque()

    def close(self, partitions: Collection[TopicPartition]) -> None:
        """Forget partitions and what waits of them."""
        for partition in partitions:
            del self._waiting[partition]

    def add(self, batch: RecordBatch) -> None:
        """Let a fetched batch wait. Batches of a partition come in order."""
        self._waiting[TopicPartition(batch.topic, batch.partition)].append(batch)

    def next(
        self, ended: Container[TopicPartition], count_max: int = WAITING_RECORDS_MAX
    ) -> RecordBatch | None:
        """The batch to process next; None when nothing waits or the choice must wait for a fetch.

        Args:
            ended: partitions of which the log has nothing more now.
            count_max: records at most.
        """
        if len(self._waiting) == 1:
            for waiting in self._waiting.values():
                return _take(waiting, count_max) if waiting else None
        heads: list[tuple[int, int, TopicPartition]] = []
        for i, (partition, waiting) in enumerate(self._waiting.items()):
            if waiting:
                heads.append((waiting[0].timestamps[0], i, partition))
            elif partition not in ended:
                return None
        if not heads:
            return None
        heads.sort()
        first = self._waiting[heads[0][2]]
        if len(heads) == 1:
            return _take(first, count_max)
        return _take_until(first, heads[1][0] + self._slack_ms, count_max)

    def first_offset(self, partition: TopicPartition) -> int | None:
        """The offset of the first waiting record of a partition."""
        waiting = self._waiting[partition]
        return waiting[0].offsets[0] if waiting else None

    def is_full(self, partition: TopicPartition) -> bool:
        """Whether so much waits that fetching should pause."""
        return sum(map(len, self._waiting[partition])) >= WAITING_RECORDS_MAX


def _take_until(waiting: deque[RecordBatch], bound_ms: int, count_max: int) -> RecordBatch:
    """The first batch's leading records that are not later than the bound, at least one."""
    timestamps = waiting[0].timestamps
    count = min(len(timestamps), count_max)
    return _take(waiting, next((i for i in range(1, count) if timestamps[i] > bound_ms), count))


def _take(waiting: deque[RecordBatch], count_max: int) -> RecordBatch:
    """The first batch, or as much of it as may be taken at once."""
    batch = waiting[0]
    if len(batch) <= count_max:
        return waiting.popleft()
    waiting[0] = batch.slice(count_max, len(batch))
    return batch.slice(0, count_max)
