"""When a worker commits, and what: the transaction from its first output to its commit or abort.

All tasks of a worker share its producer, so a commit covers all of them. The commit itself, and the
order in it, is `commit.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from millstream.log.record import OffsetAndMetadata, TopicPartition

from .commit import Changelog, StoreChanges, commit
from .internal_topics import RunTopics
from .journal import Journal
from .output_topics import OutputTopics
from .repartition_purge import RepartitionPurge
from .run_context import RunContext
from .running_tasks import RunningTask, offset_metadata
from .state_thread import StateThread
from .topology import changelog_topic

__all__ = ["CommitCycle"]

DIRTY_ENTRIES_MAX: Final = 200_000
"""Entries in the overlays of all stores; with more, a commit does not wait for its interval."""
COUNT_INTERVAL_MS: Final = 100
"""Counting them takes a while where windows are many."""
COST_FACTOR: Final = 10
INTERVAL_MAX_MS: Final = 1_000
"""On a slow disk commits are spread so that they take a tenth of the time, up to a second apart."""


FLUSH_INTERVAL_MS: Final = 600_000
"""What RocksDB holds in memory is lost by a crash and restored from the changelog. So often it is
written to the disk, so that there is never much, and never so old that tombstones may be gone."""


class CommitCycle:
    """The commits of one worker."""

    def __init__(
        self, context: RunContext, journal: Journal, thread: StateThread, topics: RunTopics
    ) -> None:
        self._app_id = context.app_id
        self._clock = context.clock
        self._interval_min_ms = context.app.commit_interval_ms
        self._interval_ms = self._interval_min_ms
        self._committed_ms = self._clock.monotonic_ms()
        self._journal = journal
        self._thread = thread
        self._topics = topics
        self._outputs = OutputTopics(journal, context.names, topics.partitions)
        repartition = [
            context.names.in_log(topic.name) for topic in context.topology.repartition_topics
        ]
        self._purge = RepartitionPurge(context.log, repartition, self._committed_ms)
        self._flushed_ms = self._counted_ms = self._committed_ms
        self.commits = 0

    @property
    def records_sent(self) -> int:
        """Output records, those of aborted transactions too."""
        return self._outputs.records

    async def send_outputs(self, running: RunningTask) -> None:
        """Take what a task has put out, async steps first, to the producer."""
        if running.task.has_async:
            await running.task.drain()
        outputs = running.task.take_outputs()
        if outputs:
            await self._journal.begin()
            await self._outputs.send(outputs)

    def wait_ms(self, tasks: Iterable[RunningTask], idle_ms: int) -> int:
        """How long to wait for records: until a commit is due, at most `idle_ms`."""
        if not any(running.is_dirty for running in tasks):
            return idle_ms
        due_ms = self._committed_ms + self._interval_ms - self._clock.monotonic_ms()
        return max(0, min(due_ms, idle_ms))

    def is_due(self, tasks: Iterable[RunningTask]) -> bool:
        """Whether there is something to commit and it is time."""
        dirty = [running for running in tasks if running.is_dirty]
        if not dirty:
            return False
        now_ms = self._clock.monotonic_ms()
        if now_ms - self._committed_ms >= self._interval_ms:
            return True
        if now_ms - self._counted_ms < COUNT_INTERVAL_MS:
            return False
        self._counted_ms = now_ms
        return sum(running.dirty_entries for running in dirty) > DIRTY_ENTRIES_MAX

    async def commit(
        self, tasks: Iterable[RunningTask], positions: Mapping[TopicPartition, int]
    ) -> None:
        """Commit everything the tasks have processed, up to these positions.

        Raises:
            LogError: see `commit`.
        """
        dirty = [running for running in tasks if running.is_dirty]
        if not dirty:
            return
        started_ms = self._clock.monotonic_ms()
        changes: list[StoreChanges] = []
        for running in dirty:
            running.task.flush()
            await self.send_outputs(running)
            changes += self._prepare(running)
        offsets = {
            partition: OffsetAndMetadata(
                positions[partition], offset_metadata(running.task.stream_time)
            )
            for running in dirty
            for partition in running.inputs
        }
        await commit(self._journal, self._thread, changes, offsets, self._clock.wall_ms())
        for running in dirty:
            running.is_dirty = False
        self._note(offsets, started_ms)
        await self._purge.run_if_due(self._committed_ms)
        if self._committed_ms - self._flushed_ms >= FLUSH_INTERVAL_MS:
            await self._flush(tasks)

    async def purge(self) -> None:
        """Delete consumed records of repartition topics now."""
        await self._purge.run(self._clock.monotonic_ms())

    async def _flush(self, tasks: Iterable[RunningTask]) -> None:
        self._flushed_ms = self._committed_ms
        for running in tasks:
            for store in running.stores.values():
                await self._thread.run(store.backing.flush)

    def _prepare(self, running: RunningTask) -> Collection[StoreChanges]:
        prepared: list[StoreChanges] = []
        for name, store in running.stores.items():
            changes = store.prepare()
            if changes.keys:
                changelog = self._changelog(name, running.partition) if store.logged else None
                prepared.append(StoreChanges(store, changes, changelog))
            else:
                store.settle()
        return prepared

    def _changelog(self, store: str, partition: int) -> Changelog:
        topic = changelog_topic(self._app_id, store)
        return Changelog(TopicPartition(topic, partition), self._topics.ids[topic])

    def _note(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], started_ms: int) -> None:
        self.commits += 1
        self._purge.committed(offsets)
        self._committed_ms = self._clock.monotonic_ms()
        cost_ms = COST_FACTOR * (self._committed_ms - started_ms)
        self._interval_ms = max(self._interval_min_ms, min(cost_ms, INTERVAL_MAX_MS))
