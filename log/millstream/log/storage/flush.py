"""What of a partition is not on disk for sure, and the one fsync that puts it there.

The owner of a partition notes what it writes in `Unsynced` and prepares a `Flush`; the flush runs
in a thread while the owner goes on; then the owner finishes it. No file is closed in between.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from .disk_full import make_or_nothing
from .files import FileHandle, Files
from .segment import Segment

__all__ = ["Flush", "Settling", "Unsynced"]


class Settling(Protocol):
    """What a compaction has left to do with the names of its files."""

    clean_offset: int | None
    """What lies below it is clean then; None when that does not change."""

    def settle(self) -> None:
        """Do it; calls fsync. Raises OSError: it can be called again."""
        ...

    def close(self) -> None:
        """Close the files that only this holds; the next start does the rest."""
        ...


class Flush:
    """Makes everything below `offset` durable.

    Args:
        offset: log end offset it reaches.
        segments: those with bytes, or sealed indexes, that are not synced.
        handles: other files that are not synced.
        folder: to be synced too because names were added to it since; None when none were.
        recovery_point: where recovery need not look below once this has run.
    """

    __slots__ = ("_files", "_folder", "_handles", "_segments", "offset", "recovery_point")

    def __init__(
        self,
        files: Files,
        offset: int,
        segments: list[Segment],
        handles: list[FileHandle],
        folder: str | None,
        recovery_point: int,
    ) -> None:
        self.offset = offset
        self.recovery_point = recovery_point
        self._files = files
        self._segments = segments
        self._handles = handles
        self._folder = folder

    def run(self) -> None:
        """Call fsync; may take long. Any thread.

        Raises:
            OSError: nothing is known about what is on disk now. Hand it to `finish_flush`; do not
                run this again.
        """
        for segment in self._segments:
            segment.fsync()
        for handle in self._handles:
            handle.fsync()
        if self._folder is not None:
            self._files.fsync_dir(self._folder)

    def note_synced(self, sealed_meanwhile: list[Segment]) -> None:
        """It went well: its segments are on the disk, but for those that were written to since."""
        for segment in self._segments:
            segment.is_synced = segment not in sealed_meanwhile

    def close(self) -> None:
        """Close the files that only this flush was waiting for."""
        for handle in self._handles:
            handle.close()


class Unsynced:
    """What a partition has written since its last flush, besides the active segment's batches."""

    def __init__(self, files: Files, folder: str) -> None:
        self._files = files
        self._folder = folder
        self._sealed: list[Segment] = []
        self._handles: list[FileHandle] = []
        self._folder_changed = False
        self._flush: Flush | None = None
        self._dropped: deque[Segment] = deque()
        self._dropped_in_flush: list[Segment] = []
        self._settling: deque[Settling] = deque()
        self._settling_after_flush: list[Settling] = []
        self.is_settling = False
        """Whether a compaction's files are still to be put in place; there is at most one."""
        self._dropped_before_flush: list[Segment] = []
        self.sealed_to = 0
        """Log end offset when indexes and producers were last written; synced by the next flush."""

    @property
    def flush_is_running(self) -> bool:
        """Whether a flush was prepared and is not finished."""
        return self._flush is not None

    @property
    def has_sealed(self) -> bool:
        """Whether indexes that were written wait for their fsync."""
        return self._folder_changed

    def note_sealed(self, segment: Segment, log_end_offset: int) -> None:
        """The indexes of a segment were written, for all that the log holds."""
        if segment not in self._sealed:
            self._sealed.append(segment)
        segment.is_synced = False
        self._folder_changed = True
        self.sealed_to = log_end_offset

    def write_file(self, path: str, data: bytes) -> None:
        """Write a small file that the next flush makes durable."""
        self._folder_changed = True
        self._handles.append(make_or_nothing(self._files, path, data))

    def drop(self, segment: Segment) -> None:
        """The partition is done with a segment. A running flush may still be using its files; and
        what follows it, a new segment and what is known of the producers, must be on the disk
        before it goes."""
        if segment in self._sealed:
            self._sealed.remove(segment)
        if self._folder_changed:
            self._dropped_before_flush.append(segment)
        elif self._flush:
            self._dropped_in_flush.append(segment)
        else:
            self._dropped.append(segment)

    @property
    def is_dropping(self) -> bool:
        """Whether a dropped segment waits for a flush."""
        return bool(self._dropped_before_flush or self._dropped_in_flush)

    def forget(self, segments: list[Segment]) -> None:
        """Other segments have taken the place of these, and need no fsync."""
        self._sealed = [each for each in self._sealed if each not in segments]

    def settle_later(self, change: Settling) -> None:
        """Files are to be renamed or removed; a running flush may still be using them."""
        self.is_settling = True
        (self._settling_after_flush if self._flush else self._settling).append(change)

    @property
    def settling(self) -> Settling | None:
        """What is to be settled next, and is safe to settle now. Any thread."""
        return self._settling[0] if self._settling else None

    def settled(self) -> None:
        """It is done. Any thread."""
        self._settling.popleft()
        self.is_settling = False

    def take_dropped(self) -> list[Segment]:
        """Segments nobody uses any more. Any thread."""
        return [self._dropped.popleft() for _ in range(len(self._dropped))]

    def drop_again(self, segment: Segment) -> None:
        """What `take_dropped` gave is still there. Any thread."""
        self._dropped.append(segment)

    def prepare(self, offset: int, active: Segment | None) -> Flush:
        """A flush of everything noted, and of the active segment if it is given."""
        assert self._flush is None
        segments = self._sealed
        if active is not None and active not in segments:
            segments = [*segments, active]
        folder = self._folder if self._folder_changed else None
        self._flush = Flush(
            self._files, offset, segments, self._handles, folder, recovery_point=self.sealed_to
        )
        self._sealed, self._handles, self._folder_changed = [], [], False
        self._dropped_in_flush, self._dropped_before_flush = self._dropped_before_flush, []
        return self._flush

    def finish(self, flush: Flush, *, failed: bool) -> None:
        """The flush has ended, one way or the other."""
        assert flush is self._flush
        self._flush = None
        flush.close()
        if not failed:
            flush.note_synced(self._sealed)
        # After a failure the files of dropped segments stay: what follows them may be lost.
        (self._dropped_before_flush if failed else self._dropped).extend(self._dropped_in_flush)
        self._dropped_in_flush = []
        self._settling.extend(self._settling_after_flush)
        self._settling_after_flush = []

    def close(self) -> None:
        """Close every file held here."""
        for handle in self._handles:
            handle.close()
        for segment in [*self._sealed, *self._dropped, *self._dropped_before_flush]:
            segment.close()
        for change in [*self._settling, *self._settling_after_flush]:
            change.close()
