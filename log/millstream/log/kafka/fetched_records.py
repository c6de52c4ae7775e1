"""Records a consumer has from librdkafka, and has not returned: with the positions that follow.

The position of a partition is where its owner stands. librdkafka's own is further: behind what
waits here, and behind markers of transactions, which it skips by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from millstream.log.record import Record, RecordBatch, TopicPartition

__all__ = ["FetchedRecords"]


class FetchedRecords:
    """What waits, by partition, and where each partition stands."""

    def __init__(self) -> None:
        self._waiting: dict[TopicPartition, deque[RecordBatch]] = {}
        self._taken: dict[TopicPartition, int] = {}  # records of the first batch that were returned
        self._next: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self.paused: set[TopicPartition] = set()
        self.returned = 0
        """Records, so far."""

    def keep(self, partitions: Collection[TopicPartition]) -> None:
        """Forget all others."""
        for each in (self._waiting, self._taken, self._next, self._ends):
            for gone in each.keys() - set(partitions):
                del each[gone]
        self.paused.intersection_update(partitions)

    def add(self, batches: Iterable[RecordBatch], ends: Mapping[TopicPartition, int]) -> None:
        """What a fetch brought, and where librdkafka stands after it."""
        for batch in batches:
            tp = TopicPartition(batch.topic, batch.partition)
            self._waiting.setdefault(tp, deque()).append(batch)
            if batch.offsets[0] < self._ends.get(tp, 0):
                del self._ends[tp]  # the log has lost its end, and is read again
        for tp, end in ends.items():  # an end behind the last record is told once
            self._ends[tp] = max(end, self._ends.get(tp, end))

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at `offset`."""
        self._waiting.pop(partition, None)
        self._taken.pop(partition, None)
        self._ends.pop(partition, None)
        self._next[partition] = offset

    @property
    def has_some(self) -> bool:
        """Whether there is something to return."""
        return any(tp not in self.paused for tp in self._waiting)

    def position(self, partition: TopicPartition) -> int | None:
        """The next offset to return; None before anything is known."""
        waiting = self._waiting.get(partition)
        at = self._next.get(partition)
        if waiting:
            return waiting[0].offsets[0] if at is None else at
        end = self._ends.get(partition)
        if at is None or end is None:
            return end if at is None else at
        return max(at, end)

    def take_batches(self) -> list[RecordBatch]:
        """Everything of partitions that are not paused."""
        taken: list[RecordBatch] = []
        for tp in self._readable():
            first = self._taken.pop(tp, 0)
            batches = self._waiting.pop(tp)
            self._next[tp] = batches[-1].next_offset
            if first:
                batches[0] = batches[0].slice(first, len(batches[0]))
            taken += batches
        self.returned += sum(map(len, taken))
        return taken

    def take_records(self, limit: int) -> list[Record]:
        """Up to `limit` records."""
        taken: list[Record] = []
        for tp in self._readable():
            batches = self._waiting[tp]
            while batches and len(taken) < limit:
                batch, first = batches[0], self._taken.pop(tp, 0)
                last = min(len(batch), first + limit - len(taken))
                taken += map(batch.record, range(first, last))
                self._next[tp] = batch.offsets[last - 1] + 1
                if last < len(batch):
                    self._taken[tp] = last
                else:
                    batches.popleft()
            if not batches:
                del self._waiting[tp]
            if len(taken) == limit:
                break
        self.returned += len(taken)
        return taken

    def _readable(self) -> list[TopicPartition]:
        return [each for each in self._waiting if each not in self.paused]
