"""Opening a partition's folder: quickly after a clean stop, through recovery after any other.

After a clean stop only the end of the active segment is looked at, from its last index entry to the
end of the file. Everything else is read when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from millstream.log.config import Durability, TopicConfig
from millstream.log.errors import CorruptRecordError
from millstream.log.record import TopicPartition

from .appending import LEADER_EPOCH
from .checkpoints import encode_leader_epochs, encode_partition_metadata
from .files import Files, replace_file, write_file
from .layout import (
    INDEX,
    LEADER_EPOCHS,
    LOG,
    PARTITION_METADATA,
    SNAPSHOT,
    TIME_INDEX,
    TXN_INDEX,
    is_leftover,
    offset_file,
    offset_of,
)
from .partition import Partition
from .producer_snapshot import encode_snapshot
from .producer_state import ProducerState
from .recovery import Recovery, valid_batches
from .replay import state_at
from .resuming import ResumePoint, resume_point
from .segment import Segment

__all__ = ["LoadRequest", "create_partition", "open_partition"]


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """Which partition to open or create, and what is known of it.

    Args:
        root: the log's folder; the partition's is in it.
        recovery_point: everything below it was synced, indexes and a snapshot of the producers too
            (recovery-point-offset-checkpoint).
        durable_offset: the batches below it were synced (replication-offset-checkpoint).
        log_start_offset: what the checkpoint says; segments below it are leftovers.
        clean_offset: what lies below it has been compacted (cleaner-offset-checkpoint).
        clean: the log was closed cleanly after all checkpoints were written.
    """

    files: Files
    root: str
    topic_partition: TopicPartition
    config: TopicConfig
    durability: Durability
    now_ms: int
    recovery_point: int = 0
    durable_offset: int = 0
    log_start_offset: int = 0
    clean_offset: int = 0
    clean: bool = False

    @property
    def folder(self) -> str:
        """The partition's folder."""
        return f"{self.root}/{self.topic_partition}"

    def partition(
        self,
        segments: list[Segment],
        producers: ProducerState,
        log_end_offset: int,
        *,
        is_sealed: bool,
        recovery_point: int | None = None,
        snapshots: Iterable[int] = (),
    ) -> Partition:
        """The open partition, made of what was found."""
        partition = Partition(
            self.files,
            self.folder,
            self.topic_partition,
            self.config,
            durability=self.durability,
            segments=segments,
            producers=producers,
            log_start_offset=max(self.log_start_offset, segments[0].base_offset),
            log_end_offset=log_end_offset,
            is_sealed=is_sealed,
            recovery_point=recovery_point,
            snapshots=snapshots,
        )
        partition.clean_offset = self.clean_offset
        partition.checkpointed_recovery_point = self.recovery_point
        return partition


def create_partition(request: LoadRequest, *, topic_id: str) -> Partition:
    """Make a partition's folder and first segment; it is there for good when this returns.

    Raises:
        OSError: the disk refused. A folder that was not finished is removed at the next start.
    """
    files, folder = request.files, request.folder
    files.make_dir(folder)
    segment = Segment(files, folder, 0, create=True)
    try:
        write_file(files, f"{folder}/{LEADER_EPOCHS}", encode_leader_epochs(LEADER_EPOCH, 0))
        files.fsync_dir(folder)
        # Last, and by a rename: where this name is, every name before it is too.
        replace_file(files, f"{folder}/{PARTITION_METADATA}", encode_partition_metadata(topic_id))
        files.fsync_dir(request.root)
    except BaseException:
        segment.close()
        raise
    return request.partition([segment], ProducerState(request.topic_partition), 0, is_sealed=True)


def open_partition(request: LoadRequest) -> Partition:
    """Open a partition that is there.

    Raises:
        OSError: the disk could not be read or written.
        CorruptRecordError: synced batches have changed; nothing was touched.
    """
    loading = Loading(request)
    try:
        return loading.load()
    except BaseException:
        loading.close()
        raise


class Loading:
    """One opening of one partition."""

    def __init__(self, request: LoadRequest) -> None:
        self._request = request
        self._files = request.files
        self._folder = request.folder
        self._names = self._without_leftovers(self._files.list_dir(self._folder))
        self._segments = [Segment(self._files, self._folder, base) for base in self._offsets(LOG)]
        self._snapshots = self._offsets(SNAPSHOT)

    def _without_leftovers(self, names: list[str]) -> list[str]:
        """The names in the folder, once a compaction that a crash cut short is finished."""
        if not any(map(is_leftover, names)):
            return names
        from .compaction_swap import finish_swaps

        finish_swaps(self._files, self._folder, names)
        return self._files.list_dir(self._folder)

    def load(self) -> Partition:
        """Open it."""
        self._remove_leftovers()
        if not self._segments:
            self._check_nothing_is_missing()
            return self._begin_anew()
        if self._request.clean:
            partition = self._open_clean()
            if partition is not None:
                return partition
        return self._recover()

    def close(self) -> None:
        """Close what was opened; loading failed."""
        for segment in self._segments:
            segment.close()

    def _offsets(self, suffix: str) -> list[int]:
        found = (offset_of(name, suffix) for name in self._names)
        return sorted(offset for offset in found if offset is not None)

    def _remove_leftovers(self) -> None:
        """Segments below the log start offset, and index files whose segment is gone: a removal
        that a crash cut short."""
        start, count = self._request.log_start_offset, 0
        while count + 1 < len(self._segments) and self._segments[count + 1].base_offset <= start:
            count += 1
        if count:
            self._keep_producers(count)
        removed = {segment.base_offset for segment in self._segments[:count]}
        for segment in self._segments[:count]:
            segment.remove()
        del self._segments[:count]
        self._snapshots = [offset for offset in self._snapshots if offset not in removed]
        self._remove_outdated_snapshots()
        known = {segment.base_offset for segment in self._segments} | removed
        for suffix in (INDEX, TIME_INDEX, TXN_INDEX):
            for offset in self._offsets(suffix):
                if offset not in known:
                    self._files.remove(offset_file(self._folder, offset, suffix))

    def _remove_outdated_snapshots(self) -> None:
        """Those below the first segment. The batches behind them are gone, and a transaction that
        was open there may have ended in one."""
        start = self._segments[0].base_offset if self._segments else self._request.log_start_offset
        for offset in self._snapshots:
            path = offset_file(self._folder, offset, SNAPSHOT)
            if offset < start and self._files.exists(path):
                self._files.remove(path)
        self._snapshots = [offset for offset in self._snapshots if offset >= start]

    def _keep_producers(self, count: int) -> None:
        """Have the snapshot behind the first `count` segments on the disk for sure: once they are
        gone, nothing else says what producers wrote there."""
        offset = self._segments[count].base_offset
        path = offset_file(self._folder, offset, SNAPSHOT)
        try:
            state, known_to = self._state_at(offset)
            is_known = self._are_there(self._segments[:count], known_to, offset)
        except CorruptRecordError:
            is_known = False
        if not is_known:
            return  # with durability "os" those batches need not be on the disk
        if known_to == offset:
            # It is whole, and may be so in memory only, or after a failed fsync. It may also be the
            # only source there is: so it is written over with what it holds.
            handle = self._files.open(path)
            try:
                handle.overwrite(0, self._files.read_whole(path))
                handle.fsync()
            finally:
                handle.close()
        else:
            write_file(self._files, path, encode_snapshot(state))
            self._snapshots = sorted({*self._snapshots, offset})
        self._files.fsync_dir(self._folder)

    def _are_there(self, segments: list[Segment], start: int, stop: int) -> bool:
        """Whether no batch from `start` to `stop` is missing, where none is known to be durable.

        Raises:
            CorruptRecordError: one was torn.
        """
        end = max(start, self._request.recovery_point, self._request.durable_offset)
        for segment in segments:
            for _, header, _ in valid_batches(segment) if end < stop else ():
                if header.base_offset <= end:
                    end = max(end, header.last_offset + 1)
        return end >= stop

    def _open_clean(self) -> Partition | None:
        """Open without reading what was there; None when something does not fit together."""
        request, active = self._request, self._segments[-1]
        log_end_offset = self._end_of(active)
        if log_end_offset != request.recovery_point or log_end_offset < request.log_start_offset:
            return None
        if self._first_without_index() < len(self._segments):
            return None
        state, _ = self._state_at(log_end_offset)
        return request.partition(
            self._segments,
            state,
            log_end_offset,
            is_sealed=True,
            snapshots=self._snapshots_between(self._segments),
        )

    def _first_without_index(self) -> int:
        """Which segment is the first that lacks an index; their number when none does."""
        indexed = set(self._offsets(INDEX)).intersection(self._offsets(TIME_INDEX))
        for i, segment in enumerate(self._segments):
            if segment.base_offset not in indexed and segment.size_bytes:
                return i
        return len(self._segments)

    def _check_nothing_is_missing(self) -> None:
        request = self._request
        durable_offset = max(request.recovery_point, request.durable_offset)
        if durable_offset > request.log_start_offset:
            raise CorruptRecordError(
                f"{self._folder} holds no segment, but offsets up to {durable_offset} had "
                "been made durable. Restore the folder from a backup, or delete the topic."
            )

    def _end_of(self, active: Segment) -> int | None:
        """The log end offset, by the batches behind the last index entry."""
        end = active.base_offset
        entry = active.index.last()
        try:
            for _, header in active.batches(entry[1] if entry else 0):
                if (
                    entry is not None
                    and end == active.base_offset
                    and header.last_offset != entry[0]
                ):
                    return None
                end = header.last_offset + 1
        except CorruptRecordError:
            return None
        return end

    def _recover(self) -> Partition:
        request = self._request
        first = 0
        while (
            first + 1 < len(self._segments)
            and self._segments[first + 1].base_offset <= request.recovery_point
        ):
            first += 1
        first = min(first, self._first_without_index())
        suspects = self._segments[first:]
        start = self._start_of_recovery(suspects[0])
        recovery = Recovery(
            self._files,
            self._folder,
            suspects,
            start,
            self._snapshots,
            max(request.recovery_point, request.durable_offset),
            request.clean_offset,
            request.config.index_interval_bytes,
            request.now_ms,
        )
        recovery.scan()
        kept = self._segments[:first] + recovery.apply()
        if recovery.log_end_offset < request.log_start_offset:
            for segment in kept:
                segment.remove()
            return self._begin_anew()
        return request.partition(
            kept,
            start.state,
            recovery.log_end_offset,
            is_sealed=False,
            recovery_point=max(kept[-1].base_offset, start.offset),
            snapshots=self._snapshots_between(kept, up_to=start.offset),
        )

    def _start_of_recovery(self, segment: Segment) -> ResumePoint:
        """The recovery point, where what was written down there is whole; else the beginning of its
        segment."""
        request = self._request
        found = resume_point(
            self._files,
            self._folder,
            request.topic_partition,
            segment,
            request.recovery_point,
            request.config.index_interval_bytes,
        )
        if found is not None:
            found.state.seen_by(request.now_ms)
            return found
        state, known_to = self._state_at(segment.base_offset)
        return ResumePoint(segment.base_offset, 0, state, known_to)

    def _snapshots_between(
        self, segments: list[Segment], *, up_to: int | None = None
    ) -> Iterator[int]:
        """Snapshots that are not where a segment begins: a checkpoint wrote them."""
        begin = {segment.base_offset for segment in segments}
        for offset in self._snapshots:
            if offset not in begin and (up_to is None or offset <= up_to):
                yield offset

    def _state_at(self, offset: int) -> tuple[ProducerState, int]:
        return state_at(
            self._files,
            self._folder,
            self._request.topic_partition,
            offset,
            segments=self._segments,
            snapshots=self._snapshots,
            now_ms=self._request.now_ms,
        )

    def _begin_anew(self) -> Partition:
        """Everything below the log start offset was deleted and the rest was never durable: go on
        at the log start offset. Only with durability "os" can a power loss bring this about."""
        start = self._request.log_start_offset
        segment = Segment(self._files, self._folder, start, create=True)
        self._segments = [segment]
        self._remove_outdated_snapshots()
        self._files.fsync_dir(self._folder)
        producers = ProducerState(self._request.topic_partition)
        return self._request.partition([segment], producers, start, is_sealed=True)
