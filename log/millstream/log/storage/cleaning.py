"""When and what of a partition is compacted, on its owner's side.

Chooses as Kafka's cleaner does: the segments from the first dirty offset on that are closed, below
the last stable offset (by markers that are on the disk), below the recovery point on disk, and not
younger than min.compaction.lag.ms. They are worth a compaction when they are more than
min.cleanable.dirty.ratio of what is compacted then, or when the first record in them is older than
max.compaction.lag.ms.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from millstream.log.events import event
from millstream.log.limits import COMPACTION_FAILURES_MAX
from millstream.log.settings import LONG_MAX

from .compaction import Compaction, CompactionPlan, CompactionStats, LastBatches
from .compaction_swap import Discarded, Swap
from .disk_full import DiskFullError
from .files import Files
from .flush import Unsynced
from .producer_state import ProducerState
from .segment_list import SegmentList

if TYPE_CHECKING:
    from .shrinking import ShrinkingPartition

__all__ = ["Cleaning"]


class _Cleanable(NamedTuple):
    """What may be compacted now, in offsets and bytes."""

    first_dirty: int
    end: int
    clean_bytes: int
    dirty_bytes: int

    @property
    def ratio(self) -> float:
        total_bytes = self.clean_bytes + self.dirty_bytes
        return self.dirty_bytes / total_bytes if total_bytes else 0.0


class Cleaning:
    """The compactions of one partition, one at a time. Used by its owner."""

    def __init__(
        self,
        partition: ShrinkingPartition,
        files: Files,
        segments: SegmentList,
        producers: ProducerState,
        unsynced: Unsynced,
    ) -> None:
        self._partition = partition
        self._files = files
        self._segments = segments
        self._producers = producers
        self._unsynced = unsynced
        self._running: Compaction | None = None
        self._failures = 0

    def dirty_ratio(self, now_ms: int) -> float:
        """Share of the bytes a compaction would read that has not been compacted."""
        return self._cleanable(now_ms).ratio

    def is_overdue(self, now_ms: int) -> bool:
        """Whether a record has waited for its compaction longer than max.compaction.lag.ms."""
        lag_ms = self._partition.config.max_compaction_lag_ms
        if lag_ms == LONG_MAX:
            return False
        first_dirty = self._first_dirty()
        return any(
            0 < segment.first_timestamp < now_ms - lag_ms
            for segment, end in self._segments.with_ends(self._partition.log_end_offset)
            if end > first_dirty
        )

    def active_is_overdue(self, now_ms: int) -> bool:
        """The same of the active segment, which is to be closed then."""
        lag_ms = self._partition.config.max_compaction_lag_ms
        return 0 < self._segments.active.first_timestamp < now_ms - lag_ms

    def plan(self, now_ms: int, dedupe_buffer_bytes: int) -> Compaction | None:
        """A compaction to run; None while one runs or settles, after too many failures, and when
        there is nothing worth it."""
        partition = self._partition
        if self._running or self._unsynced.is_settling or self._failures >= COMPACTION_FAILURES_MAX:
            return None
        found = self._cleanable(now_ms)
        config = partition.config
        is_worth_it = found.ratio > config.min_cleanable_dirty_ratio or self.is_overdue(now_ms)
        if not found.dirty_bytes or not is_worth_it:
            return None
        base_offsets = [each.base_offset for each in self._segments if each.base_offset < found.end]
        self._running = Compaction(
            self._files,
            CompactionPlan(
                partition.folder,
                partition.topic_partition,
                config,
                base_offsets,
                found.first_dirty,
                found.end,
                self._segments.aborted(base_offsets[0], found.end),
                self._last_batches(found.end),
                now_ms,
                dedupe_buffer_bytes,
            ),
        )
        return self._running

    def finish(self, compaction: Compaction, error: BaseException | None) -> CompactionStats:
        """Readers get the new segments, unless it failed, was stopped or is out of date."""
        assert compaction is self._running
        self._running = None
        partition = self._partition
        stats = compaction.stats
        known = {segment.base_offset: segment for segment in self._segments}
        if partition.closed or any(base not in known for base in compaction.plan.base_offsets):
            self._discard(compaction)
            return stats._replace(outcome="outdated")
        if error is not None:
            self._failed(error)
            return stats._replace(outcome="failed")
        self._failures = 0
        if stats.outcome != "cleaned":
            return stats
        replaced = [
            (group.segment, [known[base] for base in group.base_offsets])
            for group in compaction.groups
        ]
        for segment, old in replaced:
            self._segments.replace(old, segment)
            self._unsynced.forget(old)
        self._unsynced.settle_later(
            Swap(self._files, partition.folder, replaced, stats.clean_offset)
        )
        partition.clean_offset = stats.clean_offset
        event(
            "partition compacted",
            partition=partition.topic_partition,
            clean_offset=stats.clean_offset,
            records_read=stats.records_read,
            records_kept=stats.records_kept,
            bytes_read=stats.bytes_read,
            bytes_written=stats.bytes_written,
            segments_read=stats.segments_read,
            segments_written=stats.segments_written,
        )
        return stats

    def _discard(self, compaction: Compaction) -> None:
        discarded = Discarded(self._files, self._partition.folder, compaction.groups)
        if self._partition.closed:
            discarded.close()  # the next start removes the files
        elif compaction.groups:
            self._unsynced.settle_later(discarded)

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, DiskFullError):  # there may be room the next time
            self._failures += 1
        event(
            "compaction failed",
            logging.WARNING,
            partition=self._partition.topic_partition,
            folder=self._partition.folder,
            problem=error,
            failures=self._failures,
            failures_max=COMPACTION_FAILURES_MAX,
        )

    def _first_dirty(self) -> int:
        """The checkpoint is out of date where records were deleted, or lost with a disk."""
        partition = self._partition
        if partition.log_start_offset <= partition.clean_offset <= partition.log_end_offset:
            return partition.clean_offset
        return partition.log_start_offset

    def _cleanable(self, now_ms: int) -> _Cleanable:
        partition, first_dirty = self._partition, self._first_dirty()
        limit = min(partition.stable_for_good, partition.checkpointed_recovery_point)
        lag_ms = partition.config.min_compaction_lag_ms
        clean_bytes = dirty_bytes = 0
        end = partition.log_start_offset
        for segment, segment_end in self._segments.with_ends(partition.log_end_offset):
            if segment is self._segments.active or segment_end > limit:
                break
            if segment_end <= first_dirty:
                clean_bytes += segment.size_bytes
            elif lag_ms and segment.largest_timestamp > now_ms - lag_ms:
                break
            else:
                dirty_bytes += segment.size_bytes
            end = segment_end
        return _Cleanable(first_dirty, end, clean_bytes, dirty_bytes)

    def _last_batches(self, end: int) -> LastBatches:
        """Those on disk for certain: what was written later may be lost, and with it the sequences
        that a recovery without a snapshot would need."""
        offsets, epochs = {}, {}
        for entry in self._producers.producers.values():
            if not entry.batches:
                epochs[entry.producer_id] = entry.epoch
            for batch in entry.batches:
                if batch.last_offset < end:
                    offsets[entry.producer_id] = batch.last_offset
        return LastBatches(offsets, epochs)
