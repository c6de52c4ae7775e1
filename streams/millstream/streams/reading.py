"""Where a worker's reading stands: the next offset to process, what is at its end, what is paused.

A partition stands at its first waiting record; with nothing waiting, where the consumer will read
next; before anything was fetched, where reading began.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from millstream.log.interface import Consumer, Log
from millstream.log.record import OffsetAndMetadata, RecordBatch, TopicPartition

from .running_tasks import RunningTasks

__all__ = ["Reading"]


class Reading:
    """The consumer of a worker and its tasks' intakes, as one."""

    def __init__(self, log: Log, consumer: Consumer, tasks: RunningTasks) -> None:
        self._log = log
        self._consumer = consumer
        self._tasks = tasks
        self._starts: dict[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self.limits: Mapping[TopicPartition, int] = {}
        """Offsets before which to stop."""

    async def begin(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """Note where reading begins; answers what is committed, None for nothing."""
        committed = await self._consumer.committed(partitions)
        beginnings = await self._log.beginning_offsets(partitions)
        for partition, offset in committed.items():
            self._starts[partition] = beginnings[partition] if offset is None else offset.offset
        return committed

    async def seek_to_begin(self, partitions: Collection[TopicPartition]) -> None:
        """Back to where reading began."""
        for partition in partitions:
            await self._consumer.seek(partition, self._starts[partition])

    def accept(self, batch: RecordBatch) -> None:
        """Let a fetched batch wait for its task. What lies behind a limit is left for later."""
        partition = TopicPartition(batch.topic, batch.partition)
        if not self._tasks.has(partition):
            return
        limit = self.limits.get(partition)
        if limit is not None and batch.next_offset > limit:
            batch = batch.slice(0, sum(offset < limit for offset in batch.offsets))
        if len(batch):
            self._tasks.of(batch).intake.add(batch)

    def positions(self) -> dict[TopicPartition, int]:
        """The next offset to process, for every partition of every task."""
        fetched = self._consumer.position()
        positions: dict[TopicPartition, int] = {}
        for running in self._tasks:
            for partition in running.inputs:
                offset = running.intake.first_offset(partition)
                if offset is None:
                    offset = fetched.get(partition, self._starts[partition])
                positions[partition] = min(offset, self.limits.get(partition, offset))
        return positions

    async def at_their_end(self) -> frozenset[TopicPartition]:
        """Partitions of which the log, or this run, has nothing more now. Where there is a limit,
        what an open transaction has before it is still to come."""
        lag = await self._consumer.lag()
        positions = self.positions()
        return frozenset(
            {tp for tp, count in lag.items() if count <= 0 and tp not in self.limits}
            | {tp for tp, limit in self.limits.items() if positions.get(tp, -1) >= limit}
        )

    def pause_and_resume(self) -> None:
        """Fetch nothing of partitions of which enough waits, or that are at their limit."""
        positions = self.positions()
        full = {
            partition
            for running in self._tasks
            for partition in running.inputs
            if running.intake.is_full(partition)
            or positions[partition] == self.limits.get(partition)
        }
        if full != self._paused:
            for partition in full - self._paused:
                self._consumer.pause(partition)
            for partition in self._paused - full:
                self._consumer.resume(partition)
            self._paused = full

    def forget(self, partitions: Collection[TopicPartition]) -> None:
        """These have been given up."""
        for partition in self._paused & set(partitions) & self._consumer.assignment():
            self._consumer.resume(partition)
        self._paused.difference_update(partitions)
        for partition in partitions:
            self._starts.pop(partition, None)
