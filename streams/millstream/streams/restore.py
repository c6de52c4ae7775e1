"""Restore: what a store's backing lacks is read from the changelog, before its task runs.

A restore starts at the backing's checkpoint, so that after a clean stop nothing is read and after a
crash only the tail. It starts from the beginning, with an empty backing, only when the checkpoint
says nothing about this changelog any more (`start_of_restore`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

from millstream.log.interface import Consumer, Log
from millstream.log.reading_end import ReadingEnd
from millstream.log.record import RecordBatch, TopicDescription, TopicPartition

from .progress import Progress
from .state import Checkpoint, Store
from .state_thread import StateThread

__all__ = ["POLL_MS", "ChangelogBounds", "StoreInLog", "restore_stores", "start_of_restore"]

POLL_MS: Final = 5
"""Short, because all there is to read is there: a poll that finds only the markers of transactions
returns nothing and would wait in vain."""

_FETCH_CONFIG: Mapping[str, str | int] = {
    "max.partition.fetch.bytes": 4 << 20,
    "enable.auto.commit": "false",
}


class StoreInLog(NamedTuple):
    """A logged store and where its changelog lies."""

    store: Store
    changelog: TopicPartition


class ChangelogBounds(NamedTuple):
    """What the log has of a changelog partition. Offsets; `end` is exclusive."""

    beginning: int
    end: int
    topic_id: str
    delete_retention_ms: int
    """How long after it was written a tombstone is kept at least; -1: for ever."""


def start_of_restore(
    checkpoint: Checkpoint | None, changelog: ChangelogBounds, now_ms: int
) -> tuple[int, bool]:
    """Where to restore from, and whether the backing must be emptied first.

    It must when the records between checkpoint and end may lack a deletion: the changelog begins
    after the checkpoint, or tombstones written since may have been compacted away, or it is another
    changelog than the checkpoint's. In every other case only the tail is read.
    """
    if checkpoint is None:
        return changelog.beginning, True
    is_another = checkpoint.topic_id != changelog.topic_id or checkpoint.offset > changelog.end
    has_gap = checkpoint.offset < changelog.beginning
    lacks_tombstones = (
        checkpoint.offset < changelog.end
        and 0 <= changelog.delete_retention_ms <= now_ms - checkpoint.written_ms
    )
    if is_another or has_gap or lacks_tombstones:
        return changelog.beginning, True
    return checkpoint.offset, False


async def restore_stores(
    log: Log,
    stores: Sequence[StoreInLog],
    thread: StateThread,
    *,
    wall_ms: Callable[[], int],
    progress: Progress,
) -> int:
    """Bring stores to the end of their changelogs; returns the number of records read.

    The transactional producer must be initialised before, or an unfinished transaction of the
    previous run would hide the end. One of another worker is waited for.
    """
    bounds = await _bounds(log, [entry.changelog for entry in stores])
    remaining: dict[TopicPartition, _Restore] = {}
    for entry in stores:
        changelog = bounds[entry.changelog]
        restore = _Restore(entry.store, changelog, thread, wall_ms)
        start = await restore.begin()
        if start < changelog.end:
            restore.start = start
            remaining[entry.changelog] = restore
    if not remaining:
        return 0
    async with log.consumer(config=_FETCH_CONFIG) as consumer:
        await consumer.assign(remaining)
        for changelog_partition, restore in remaining.items():
            await consumer.seek(changelog_partition, restore.start)
        end = ReadingEnd(log, {tp: each.changelog.end for tp, each in remaining.items()})
        return await _read(consumer, remaining, end, progress)


async def _read(
    consumer: Consumer,
    remaining: dict[TopicPartition, _Restore],
    end: ReadingEnd,
    progress: Progress,
) -> int:
    total = sum(restore.changelog.end - restore.start for restore in remaining.values())
    done = count = 0
    while remaining:
        for batch in await consumer.poll_batches(POLL_MS):
            restore = remaining[TopicPartition(batch.topic, batch.partition)]
            await restore.write(batch)
            count += len(batch)
        positions = consumer.position()
        await end.notice(positions)
        for partition in list(remaining):
            restore = remaining[partition]
            position = min(positions.get(partition, restore.start), restore.changelog.end)
            done += position - restore.start
            restore.start = position
            if position == restore.changelog.end:
                await restore.finish()
                consumer.pause(partition)
                del remaining[partition]
        progress("restore", done, total)
    return count


class _Restore:
    """One store on its way to the end of its changelog. `start` moves: it is read up to there."""

    def __init__(
        self,
        store: Store,
        changelog: ChangelogBounds,
        thread: StateThread,
        wall_ms: Callable[[], int],
    ) -> None:
        self.store = store
        self.changelog = changelog
        self.thread = thread
        self.wall_ms = wall_ms
        self.start = 0

    async def begin(self) -> int:
        backing = self.store.backing
        checkpoint = backing.checkpoint(self.store.partition)
        start, rebuild = start_of_restore(checkpoint, self.changelog, self.wall_ms())
        if rebuild:
            await self._run(backing.clear)
            self.store.restored()
        return start

    async def write(self, batch: RecordBatch) -> None:
        keys = [key for key in batch.keys if key is not None]
        # Tombstones behind this batch were written after its last record: that time, not now.
        await self._write(keys, batch.values, batch.next_offset, batch.timestamps[-1])

    async def finish(self) -> None:
        await self._write([], [], self.changelog.end, self.wall_ms())
        self.store.restored()

    async def _write(
        self, keys: list[bytes], values: list[bytes | None], offset: int, written_ms: int
    ) -> None:
        checkpoint = Checkpoint(offset, written_ms, self.changelog.topic_id)
        checkpoints = {self.store.partition: checkpoint}
        await self._run(partial(self.store.restore, keys, values, checkpoints))

    async def _run(self, work: Callable[[], None]) -> None:
        if self.store.backing.blocking:
            await self.thread.run(work)
        else:
            work()


async def _bounds(
    log: Log, changelogs: Collection[TopicPartition]
) -> dict[TopicPartition, ChangelogBounds]:
    topics = {name: await log.describe_topic(name) for name in {tp.topic for tp in changelogs}}
    beginnings = await log.beginning_offsets(changelogs)
    # What another worker left undecided decides itself first: up to there its commits may lie.
    ends = await log.end_offsets(changelogs, "read_uncommitted")
    return {
        tp: ChangelogBounds(
            beginnings[tp], ends[tp], topics[tp.topic].topic_id, _retention(topics[tp.topic])
        )
        for tp in changelogs
    }


def _retention(topic: TopicDescription) -> int:
    if "compact" not in topic.config.get("cleanup.policy", ""):
        return -1
    return int(topic.config.get("delete.retention.ms", "86400000"))
