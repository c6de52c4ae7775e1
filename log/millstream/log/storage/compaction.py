"""One compaction of a partition: keeps the newest record of each key, drops the others.

    plan      on the owner (cleaning.py): which segments, up to which offset, at what time
    run       in any thread: reads them through handles of its own and writes their replacements
    finish    on the owner: readers get the new segments, all at once
    settle    in `LogDir.checkpoint`: the new files take the places of the old (compaction_swap.py)

`run` goes through the dirty part once to note the newest offset of every key, then through
everything from the start, clean part included, and copies what stays. Where the memory for keys
ends, the first pass ends, and batches from there on are copied untouched; the next compaction goes
on there.

It only reads sealed segments below the last stable offset and below the recovery point that is on
disk: recovery takes a gap between offsets for the end of the log anywhere else. A crash at any time
leaves either all old segments of a group or its new one.

Source: Kafka's log compaction; KIP-534 (tombstones and markers are kept for a time), KIP-98.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from millstream.log.config import TopicConfig
from millstream.log.errors import CorruptRecordError
from millstream.log.format.codec import BatchHeader
from millstream.log.record import TopicPartition

from .compaction_filter import BatchFilter, Filtered, records_of
from .compaction_map import OffsetMap
from .compaction_swap import CleanedGroup, remove_leftovers
from .compaction_transactions import TransactionsMet
from .files import Files
from .layout import CLEANED, SNAPSHOT, TXN_INDEX, offset_file
from .producer_snapshot import decode_snapshot
from .recovery import valid_batches
from .segment import INDEX_ENTRY_BYTES, RELATIVE_OFFSET_MAX, TIME_INDEX_ENTRY_BYTES, Segment
from .txn_index import AbortedTransaction

__all__ = ["Compaction", "CompactionPlan", "CompactionStats", "LastBatches"]


class LastBatches(NamedTuple):
    """What recovery needs of the producers that are remembered: the last offset of each one's
    newest batch, or its epoch where only a marker tells that."""

    offsets: Mapping[int, int]
    epochs: Mapping[int, int]

    def contain(self, header: BatchHeader) -> bool:
        """Whether this batch is the last that is known of its producer."""
        producer_id = header.producer_id
        if producer_id in self.offsets:
            return self.offsets[producer_id] == header.last_offset
        return header.is_control and self.epochs.get(producer_id) == header.producer_epoch


class CompactionPlan(NamedTuple):
    """What a compaction is to do.

    Args:
        base_offsets: of the segments, from the first of the partition on.
        first_dirty: what is below it has been compacted before.
        end: base offset of the first segment that is left alone.
        aborted: every aborted transaction with something below `end`.
    """

    folder: str
    topic_partition: TopicPartition
    config: TopicConfig
    base_offsets: list[int]
    first_dirty: int
    end: int
    aborted: list[AbortedTransaction]
    last_batches: LastBatches
    now_ms: int
    dedupe_buffer_bytes: int


class CompactionStats(NamedTuple):
    """What came of a compaction.

    `outcome` is "cleaned", "stopped" (by `stop`), "outdated" (its segments were deleted meanwhile)
    or "failed". The partition is clean below `clean_offset`. Bytes and records are those of the
    second pass; a map that was full has to be followed by another compaction.
    """

    outcome: str = "stopped"
    first_dirty: int = 0
    clean_offset: int = 0
    segments_read: int = 0
    segments_written: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    records_read: int = 0
    records_kept: int = 0
    keys: int = 0
    map_was_full: bool = False


class _Stopped(Exception):  # noqa: N818  # not an error
    """`stop` was called."""


class Compaction:
    """See above. `stop` may be called from any thread."""

    def __init__(self, files: Files, plan: CompactionPlan) -> None:
        self.plan = plan
        self.stats = CompactionStats(first_dirty=plan.first_dirty, clean_offset=plan.first_dirty)
        self.groups: list[CleanedGroup] = []
        """What `run` made; empty when it was stopped."""
        self._files = files
        self._stopping = False
        self._map_was_full = False
        self._end = plan.end
        self._written: list[Segment] = []
        self._read: Segment | None = None
        self._open_in_snapshots: set[int] = set()
        """Producers whose transaction the last snapshot holds open, until their marker comes."""

    def stop(self) -> None:
        """Have `run` return soon, having done nothing."""
        self._stopping = True

    def run(self) -> None:
        """Read and write; takes long. Once.

        Raises:
            OSError, CorruptRecordError: the disk failed, or a batch was damaged. What was written
                is removed as far as possible; the next start, or the next compaction, removes the
                rest. Hand it to `finish_compaction`.
        """
        try:
            remove_leftovers(self._files, self.plan.folder)
            self._copy(self._newest_offsets())
        except BaseException as error:
            self._discard()
            if not isinstance(error, _Stopped):
                raise

    def _discard(self) -> None:
        """Remove what was written, unless the disk refuses: then a start, or the next compaction,
        does it."""
        self.groups.clear()
        for segment in self._written:
            segment.close()
        if self._read is not None:
            self._read.close()  # who holds the error holds what reads it, too
        with suppress(OSError):
            remove_leftovers(self._files, self.plan.folder)

    def _newest_offsets(self) -> OffsetMap:
        """The first pass."""
        plan, newest = self.plan, OffsetMap(self.plan.dedupe_buffer_bytes)
        first = max(bisect_right(plan.base_offsets, plan.first_dirty) - 1, 0)
        met = TransactionsMet(each for each in plan.aborted if each.last_offset >= plan.first_dirty)
        for base_offset in plan.base_offsets[first:]:
            for header, batch in self._batches(base_offset):
                if header.last_offset < plan.first_dirty:
                    continue
                if header.is_control:
                    met.end(header)
                elif not met.is_aborted(header) and header.records_count:
                    _, columns = records_of(header, batch)
                    if not newest.add(columns.keys, columns.offsets):
                        self._map_was_full, self._end = True, header.base_offset
                        return newest
        return newest

    def _copy(self, newest: OffsetMap) -> None:
        """The second pass."""
        plan = self.plan
        leave = BatchFilter(
            newest,
            TransactionsMet(plan.aborted),
            end=self._end,
            now_ms=plan.now_ms,
            delete_retention_ms=plan.config.delete_retention_ms,
        )
        groups = self._groups()
        for group in groups:
            self._copy_group(group, leave)
        self.stats = self.stats._replace(
            outcome="cleaned",
            clean_offset=self._end,
            segments_read=sum(map(len, groups)),
            segments_written=len(self.groups),
            keys=len(newest),
            map_was_full=self._map_was_full,
        )

    def _groups(self) -> list[list[int]]:
        """Neighbours that fit one segment, by base offset."""
        plan, config = self.plan, self.plan.config
        groups: list[list[int]] = []
        sizes: tuple[int, ...] = ()
        for i, base_offset in enumerate(plan.base_offsets):
            if base_offset >= self._end:
                break
            end = [*plan.base_offsets[i + 1 : i + 2], plan.end][0]
            added = self._sizes(base_offset)
            together = tuple(map(sum, zip(sizes, added, strict=False)))
            maxima = (config.segment_bytes, config.segment_index_bytes, config.segment_index_bytes)
            if (
                groups
                and all(size <= most for size, most in zip(together, maxima, strict=True))
                and end - 1 - groups[-1][0] <= RELATIVE_OFFSET_MAX
            ):
                groups[-1].append(base_offset)
                sizes = together
            else:
                groups.append([base_offset])
                sizes = added
        return groups

    def _sizes(self, base_offset: int) -> tuple[int, ...]:
        """Bytes of a segment's batches and of its two indexes."""
        segment = Segment(self._files, self.plan.folder, base_offset)
        try:
            return (
                segment.size_bytes,
                segment.index.count * INDEX_ENTRY_BYTES,
                segment.time_index.count * TIME_INDEX_ENTRY_BYTES,
            )
        finally:
            segment.close()

    def _copy_group(self, base_offsets: list[int], leave: BatchFilter) -> None:
        folder, first = self.plan.folder, base_offsets[0]
        cleaned = Segment(self._files, folder, first, create=True, suffix=CLEANED)
        self._written.append(cleaned)
        is_changed = len(base_offsets) > 1
        self._open_in_snapshots |= self._open_at(first)
        batches = chain.from_iterable(map(self._batches, base_offsets))
        # The last batch stays, so that the new segment says where the old ones ended.
        for header, batch, is_last in _and_last(batches):
            must_stay = (
                self._ends_what_a_snapshot_holds_open(header)
                or is_last
                or self.plan.last_batches.contain(header)
            )
            left = leave.apply(header, batch, must_stay=must_stay)
            self._count(header, left)
            is_changed = is_changed or left.batch is not batch
            if left.header is not None:
                cleaned.append(left.header, (left.batch,), self.plan.config.index_interval_bytes)
            if left.aborted is not None:
                cleaned.txn_index.append(left.aborted)
        if not is_changed:
            self._drop(cleaned)
            return
        if self._files.exists(offset_file(folder, first, TXN_INDEX)):
            cleaned.txn_index.stored.extend(b"")  # takes the place of that one, even when empty
        cleaned.seal()
        cleaned.fsync()
        self.groups.append(CleanedGroup(cleaned, base_offsets))

    def _open_at(self, base_offset: int) -> set[int]:
        """Producers whose transaction is open in the snapshot there, if there is a whole one."""
        path = offset_file(self.plan.folder, base_offset, SNAPSHOT)
        if not self._files.exists(path):
            return set()
        try:
            state = decode_snapshot(self._files.read_whole(path), path, self.plan.topic_partition)
        except CorruptRecordError:
            return set()
        return set(state.open_transactions)

    def _ends_what_a_snapshot_holds_open(self, header: BatchHeader) -> bool:
        """Such a marker stays: a recovery that begins with the snapshot would wait for it."""
        if not header.is_control or header.producer_id not in self._open_in_snapshots:
            return False
        self._open_in_snapshots.remove(header.producer_id)
        return True

    def _drop(self, cleaned: Segment) -> None:
        """Nothing of this segment goes; it stays as it is."""
        self._written.remove(cleaned)
        cleaned.remove()

    def _count(self, header: BatchHeader, left: Filtered) -> None:
        stats = self.stats
        self.stats = stats._replace(
            bytes_read=stats.bytes_read + header.size_bytes,
            bytes_written=stats.bytes_written + len(left.batch),
            records_read=stats.records_read + left.records_read,
            records_kept=stats.records_kept + left.records_kept,
        )

    def _batches(self, base_offset: int) -> Iterator[tuple[BatchHeader, memoryview]]:
        """The batches of a segment, through a handle of this compaction."""
        segment = self._read = Segment(self._files, self.plan.folder, base_offset)
        ends = [*self.plan.base_offsets, self.plan.end]
        end = ends[bisect_right(ends, base_offset)]
        read_to, next_offset = 0, base_offset
        try:
            for position, header, batch in valid_batches(segment):
                if self._stopping:
                    raise _Stopped
                # The checksum of a batch does not cover its base offset.
                if not next_offset <= header.base_offset <= header.last_offset < end:
                    raise CorruptRecordError(
                        f"a batch of offsets {header.base_offset} to {header.last_offset}, where "
                        f"only {next_offset} to {end - 1} can be"
                    )
                next_offset = header.last_offset + 1
                read_to = position + header.size_bytes
                yield header, batch
        except CorruptRecordError as error:
            raise segment.damaged(read_to, str(error)) from error
        finally:
            segment.close()


def _and_last(
    batches: Iterable[tuple[BatchHeader, memoryview]],
) -> Iterator[tuple[BatchHeader, memoryview, bool]]:
    """Each batch, and whether it is the last."""
    before: tuple[BatchHeader, memoryview] | None = None
    for each in batches:
        if before is not None:
            yield *before, False
        before = each
    if before is not None:
        yield *before, True
