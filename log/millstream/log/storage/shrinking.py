"""How records leave a partition: deleted by offset, by age or size, or compacted.

Deleted are whole segments, from the oldest on; the log start offset is raised, and readers see
nothing below it from then on. Compaction takes records out of the middle (compaction.py). In both
cases files are touched later, by `LogDir.checkpoint`, in a thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from millstream.log.config import Durability, TopicConfig
from millstream.log.errors import OffsetOutOfRangeError, StorageError
from millstream.log.record import TopicPartition

from .files import Files
from .flush import Settling, Unsynced
from .producer_state import EndedTransaction, ProducerState
from .reading import ReadablePartition
from .retention import count_expired
from .segment import Segment

if TYPE_CHECKING:
    from .cleaning import Cleaning
    from .compaction import Compaction, CompactionStats

__all__ = ["ShrinkingPartition"]


class ShrinkingPartition(ReadablePartition, ABC):
    """Reading and removing; `Partition` adds writing."""

    def __init__(
        self,
        files: Files,
        folder: str,
        topic_partition: TopicPartition,
        config: TopicConfig,
        *,
        durability: Durability,
        segments: list[Segment],
        producers: ProducerState,
        log_start_offset: int,
        log_end_offset: int,
    ) -> None:
        super().__init__(
            folder,
            topic_partition,
            durability=durability,
            segments=segments,
            producers=producers,
            log_start_offset=log_start_offset,
            log_end_offset=log_end_offset,
        )
        self.config = config
        self.checkpointed_recovery_point = 0
        """The recovery point that is on disk; `LogDir.checkpoint` says so."""
        self.clean_offset = 0
        """What lies below it has been compacted."""
        self._files = files
        self._unsynced = Unsynced(files, folder)
        self._ended_unsynced: deque[EndedTransaction] = deque()
        self._cleaning: Cleaning | None = None

    def delete_records(self, before: int) -> int:
        """Raise the log start offset to `before`, if it is lower. Returns what it is now.

        It is for good once `LogDir.checkpoint` has run, which also removes the files of segments
        that hold nothing else. Until then a crash may bring the records back.

        Raises:
            OffsetOutOfRangeError: `before` is above the high watermark. Nothing was deleted.
        """
        self._check_open()
        if before > self.high_watermark:
            raise OffsetOutOfRangeError(
                f"Partition {self.topic_partition}: records before {before} cannot be deleted, the "
                f"high watermark is {self.high_watermark}. Delete up to there at most."
            )
        if before > self.log_start_offset:
            self.log_start_offset = before
            self._drop_below_start()
            self._update_offsets()
        return self.log_start_offset

    @property
    def stable_for_good(self) -> int:
        """The last stable offset, less transactions whose marker a power loss may still take."""
        firsts = [ended.first_offset for ended in self._ended_unsynced]
        return min([self.last_stable_offset, *firsts])

    def _drop_below_start(self) -> None:
        """Let go of segments that hold nothing from the log start offset on; never the active
        one, which goes when another takes its place."""
        for segment in self._segments.take_below(self.log_start_offset):
            self._unsynced.drop(segment)

    def apply_retention(self, now_ms: int) -> int:
        """Drop the oldest segments by retention.ms and retention.bytes, where cleanup.policy says
        so; like `delete_records`, never past the high watermark. Returns how many.

        Cheap: reads no record. The active segment is closed first if it is among them; then the
        files go after the next flush.

        Raises:
            StorageError: the disk failed, or is full. If it was on closing the active segment, the
                others were dropped.
        """
        self._check_open()
        segments = list(self._segments)
        try:
            count = count_expired(
                segments,
                self.config,
                self.high_watermark,
                self.log_end_offset,
                now_ms,
                lambda i: self._files.modified_ms(segments[i].path),
            )
        except OSError as error:
            raise self._unreadable(error) from error
        if count == len(segments) and self.failed:
            count -= 1  # no new segment can be made
        if count == len(segments):
            try:
                self._close_active()
            except StorageError:
                self.delete_records(segments[-1].base_offset)  # for a full disk: this makes room
                raise
            self.delete_records(self.log_end_offset)
        elif count:
            self.delete_records(segments[count].base_offset)
        return count

    @property
    def is_dropping(self) -> bool:
        """Whether the files of dropped segments stay until a flush has ended."""
        return self._unsynced.is_dropping

    def take_dropped(self) -> list[Segment]:
        """Segments below the log start offset, to be removed once that offset is on disk. Any
        thread."""
        return self._unsynced.take_dropped()

    def drop_again(self, segment: Segment) -> None:
        """It was taken and could not be removed. Any thread."""
        self._unsynced.drop_again(segment)

    @property
    def settling(self) -> Settling | None:
        """The files of a compaction that are to be put in place now. Any thread."""
        return self._unsynced.settling

    def settled(self) -> None:
        """That was done. Any thread."""
        self._unsynced.settled()

    def dirty_ratio(self, now_ms: int) -> float:
        """How much of what a compaction would read was never compacted: 0 to 1, 0 in a topic that
        is not compacted. Reads the indexes of segments at most.

        Raises:
            StorageError: the disk failed.
        """
        with self._reading():
            return self._clean().dirty_ratio(now_ms) if self._may_clean() else 0.0

    def compaction_overdue(self, now_ms: int) -> bool:
        """Whether a record waits for its compaction longer than max.compaction.lag.ms (KIP-354).

        Raises:
            CorruptRecordError, StorageError: as in `read`.
        """
        with self._reading():
            return self._may_clean() and self._clean().is_overdue(now_ms)

    def plan_compaction(self, now_ms: int, *, dedupe_buffer_bytes: int) -> Compaction | None:
        """A compaction to `run` in a thread, then to `finish_compaction` here; None when nothing is
        worth one. At most one is under way.

        What max.compaction.lag.ms has run out for is closed, to be compacted once it was flushed
        and `LogDir.checkpoint` has run.

        Raises:
            CorruptRecordError, StorageError: as in `read` and `append`.
        """
        if not self._may_clean():
            return None
        with self._reading():
            is_overdue = self._clean().active_is_overdue(now_ms)
        if is_overdue:
            self._close_active()
        with self._reading():
            return self._clean().plan(now_ms, dedupe_buffer_bytes)

    def finish_compaction(
        self, compaction: Compaction, error: BaseException | None
    ) -> CompactionStats:
        """`compaction.run` has returned, or raised `error`: readers get what it made. The files go
        to their places at the next `LogDir.checkpoint`.

        After an error, or `Compaction.stop`, everything is as before.
        """
        return self._clean().finish(compaction, error)

    def _may_clean(self) -> bool:
        return self.config.compacts and not self._closed and not self.failed

    def _clean(self) -> Cleaning:
        if self._cleaning is None:
            from .cleaning import Cleaning

            self._cleaning = Cleaning(
                self, self._files, self._segments, self._producers, self._unsynced
            )
        return self._cleaning

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unreadable(error) from error

    @property
    @abstractmethod
    def failed(self) -> bool:
        """Whether a write or an fsync failed, so that appends are refused."""

    @abstractmethod
    def _close_active(self) -> None:
        """Begin a new segment. Raises StorageError: the disk failed, now or before."""
