"""Work that goes on behind an open log: old records go, compacted topics are cleaned.

    retention       every log.retention.check.interval.ms, all partitions
    compaction      every log.cleaner.backoff.ms the partition that needs it most, and again at once
                    while there is one that needs it
    producers       those that wrote nothing for producer.id.expiration.ms are forgotten

A compaction reads and writes in a thread of its own, so that no fsync waits behind it; everything
else is short and runs on the event loop, which gets its turn between two partitions. Memory: one
compaction at a time, with log.cleaner.dedupe.buffer.size for its keys.

What fails in one partition is logged and does not stop the others.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, NamedTuple

from millstream.log.clock import Clock, sleep_until
from millstream.log.config import BrokerConfig
from millstream.log.errors import LogClosedError, LogError
from millstream.log.events import event
from millstream.log.record import TopicPartition
from millstream.log.storage.partition import Partition

from .disk_threads import DiskThreads
from .partitions import Partitions
from .to_the_end import in_background, to_the_end

if TYPE_CHECKING:
    from millstream.log.stats import CleanerStats
    from millstream.log.storage.compaction import Compaction

__all__ = ["Cleaned", "LogCleaner"]

logger = logging.getLogger("millstream.log")


class Cleaned(NamedTuple):
    """What one round did: segments that retention dropped, partitions that were compacted, and
    failures that were logged."""

    segments_dropped: int
    partitions_compacted: int
    failures: int


class _Running(NamedTuple):
    """The compaction that runs; `ended` is set when nothing of it is left to be done."""

    topic_partition: TopicPartition
    compaction: Compaction
    ended: asyncio.Event


class LogCleaner:
    """The cleaner of one log. One event loop owns it.

    Args:
        threads: one thread for compaction, or none: then it runs on the event loop.
    """

    def __init__(
        self, partitions: Partitions, threads: DiskThreads, config: BrokerConfig, clock: Clock
    ) -> None:
        self._partitions = partitions
        self._threads = threads
        self._config = config
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._running: _Running | None = None
        self._failures = self._segments_deleted = self._compactions = 0
        self._bytes_read = self._bytes_written = self._records_removed = 0

    def start(self) -> None:
        """Begin to work in the background, until `stop`."""
        self._task = in_background(self._work(), "cleaner")

    async def stop(self) -> None:
        """Stop soon: a compaction that runs is given up and leaves nothing behind. Again is
        harmless. Raises what ended the background work, if anything did."""
        self._stopping.set()
        if self._running is not None:
            self._running.compaction.stop()
        await to_the_end(self._stopped())

    async def _stopped(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            await asyncio.wait([task])
        async with self._one_at_a_time:  # a round that somebody asked for has ended
            self._threads.close()
        if task is not None and not task.cancelled():
            task.result()

    async def release(self, topic_partitions: Collection[TopicPartition]) -> None:
        """Return when no compaction uses the files of these partitions, which are closed."""
        while self._running is not None and self._running.topic_partition in topic_partitions:
            self._running.compaction.stop()
            await self._running.ended.wait()

    async def run_once(self) -> Cleaned:
        """One whole round now, and until nothing is left to compact.

        Raises:
            StorageError: the recovery points could not be written down.
        """
        async with self._one_at_a_time:
            before = self._failures
            dropped = await self._retain()
            await self._expire_producers()
            await self._partitions.checkpoint()  # compaction goes up to the recovery points on disk
            compacted, failed = 0, set[TopicPartition]()
            while await self._compact_one(failed):
                compacted += 1
            return Cleaned(dropped, compacted, self._failures - before)

    def stats(self) -> CleanerStats:
        """What was done since the log was opened."""
        from millstream.log.stats import CleanerStats  # when it is used

        return CleanerStats(
            self._segments_deleted,
            self._compactions,
            self._bytes_read,
            self._bytes_written,
            self._records_removed,
            self._failures,
        )

    # In the background

    async def _work(self) -> None:
        config, now_ms = self._config, self._clock.monotonic_ms()
        retain_ms = now_ms + config.log_retention_check_interval_ms
        expire_ms = now_ms + config.producer_id_expiration_check_interval_ms
        compact_ms = now_ms + config.log_cleaner_backoff_ms
        failed: set[TopicPartition] = set()
        while True:
            next_ms = min(retain_ms, expire_ms, compact_ms)
            await sleep_until(self._clock, next_ms, self._stopping)
            if self._stopping.is_set():
                return
            async with self._one_at_a_time:
                now_ms = self._clock.monotonic_ms()
                if now_ms >= retain_ms:
                    retain_ms = now_ms + config.log_retention_check_interval_ms
                    failures = self._failures
                    if await self._retain() or self._failures > failures:
                        await self._checkpoint()  # where one failed, some may be dropped
                if now_ms >= expire_ms:
                    expire_ms = now_ms + config.producer_id_expiration_check_interval_ms
                    await self._expire_producers()
                if now_ms >= compact_ms and not await self._compact_one(failed):
                    compact_ms = self._clock.monotonic_ms() + config.log_cleaner_backoff_ms
                    failed.clear()

    async def _checkpoint(self) -> None:
        """Write down what is clean and where the partitions begin; files go with that."""
        try:
            await self._partitions.checkpoint()
        except LogError as error:
            self._note_failure("Checkpoint after cleaning", error)

    def _note_failure(self, what: str, error: Exception) -> None:
        self._failures += 1
        logger.error("%s failed, and will be tried again: %s", what, error)

    # Retention

    async def _retain(self) -> int:
        """Apply retention to all partitions; returns how many segments it dropped."""
        dropped, now_ms = 0, self._clock.wall_ms()
        for partition in self._partitions:
            if self._stopping.is_set():
                break
            try:
                count = partition.apply_retention(now_ms)
                dropped += count
                if count:
                    self._segments_deleted += count
                    event(
                        "segments deleted",
                        partition=partition.topic_partition,
                        segments=count,
                        log_start_offset=partition.log_start_offset,
                    )
            except LogClosedError:
                continue  # its topic was deleted meanwhile
            except LogError as error:
                self._note_failure(f"Retention of {partition.topic_partition}", error)
            await asyncio.sleep(0)
        return dropped

    async def _expire_producers(self) -> None:
        before_ms = self._clock.wall_ms() - self._config.producer_id_expiration_ms
        for partition in self._partitions:
            partition.expire_producers(before_ms)
            await asyncio.sleep(0)

    # Compaction

    async def _compact_one(self, failed: set[TopicPartition]) -> bool:
        """Compact the partition that needs it most; False when none does. Those that fail are noted
        and left out."""
        now_ms = self._clock.wall_ms()
        for partition in await self._by_need(now_ms):
            if self._stopping.is_set():
                break
            if partition.topic_partition in failed:
                continue
            try:
                compaction = partition.plan_compaction(
                    now_ms, dedupe_buffer_bytes=self._config.log_cleaner_dedupe_buffer_size
                )
            except LogError as error:
                self._note_failure(f"Compaction of {partition.topic_partition}", error)
                failed.add(partition.topic_partition)
                continue
            if compaction is not None:
                outcome = await self._compact(partition, compaction)
                if outcome == "cleaned":
                    return True
                failed.add(partition.topic_partition)
            await asyncio.sleep(0)
        return False

    async def _by_need(self, now_ms: int) -> list[Partition]:
        """Those with cleanup.policy=compact: first what is past max.compaction.lag.ms, then by the
        share that is dirty."""
        if not self._config.log_cleaner_enable:
            return []
        found = []
        for partition in self._partitions:
            if not partition.config.compacts:
                continue
            try:
                overdue = partition.compaction_overdue(now_ms)
                found.append((overdue, partition.dirty_ratio(now_ms), partition))
            except LogError as error:
                self._note_failure(f"Compaction of {partition.topic_partition}", error)
            await asyncio.sleep(0)
        found.sort(key=lambda each: each[:2], reverse=True)
        return [partition for _, _, partition in found]

    async def _compact(self, partition: Partition, compaction: Compaction) -> str:
        """Run it to its end; the outcome, as CompactionStats has it. `finish_compaction` says so
        when it failed, and ends trying where that is hopeless."""
        running = _Running(partition.topic_partition, compaction, asyncio.Event())
        self._running = running
        failure: BaseException | None = None
        try:
            await to_the_end(self._threads.run(compaction.run), on_cancel=compaction.stop)
        except BaseException as error:
            failure = error
            if not isinstance(error, LogError | OSError):
                raise
        finally:
            stats = partition.finish_compaction(compaction, failure)
            self._running = None
            running.ended.set()
        if failure is not None:
            self._failures += 1
        if stats.outcome == "cleaned":
            self._compactions += 1
            self._bytes_read += stats.bytes_read
            self._bytes_written += stats.bytes_written
            self._records_removed += stats.records_read - stats.records_kept
        await self._checkpoint()  # which puts the new files in the place of the old
        return stats.outcome
