"""What of a partition is not on disk for sure, and the one fsync that puts it there.

The owner of a partition notes what it writes in `Unsynced` and prepares a `Flush`; the flush runs
in a thread while the owner goes on; then the owner finishes it. No file is closed in between.
"""

from __future__ import annotations

from collections import deque

from .files import FileHandle, Files
from .segment import Segment

__all__ = ["Flush", "Unsynced"]


class Flush:
    """Makes everything below `offset` durable.

    Args:
        offset: log end offset it reaches.
        segments: those with bytes, or sealed indexes, that are not synced.
        handles: other files that are not synced.
        folder: to be synced too because names were added to it since; None when none were.
    """

    __slots__ = ("_files", "_folder", "_handles", "_segments", "offset")

    def __init__(
        self,
        files: Files,
        offset: int,
        segments: list[Segment],
        handles: list[FileHandle],
        folder: str | None,
    ) -> None:
        self.offset = offset
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

    @property
    def flush_is_running(self) -> bool:
        """Whether a flush was prepared and is not finished."""
        return self._flush is not None

    @property
    def has_sealed(self) -> bool:
        """Whether a closed segment waits for its fsync."""
        return bool(self._sealed)

    def note_sealed(self, segment: Segment) -> None:
        """A segment was closed: its indexes are new files."""
        self._sealed.append(segment)
        self._folder_changed = True

    def write_file(self, path: str, data: bytes) -> None:
        """Write a small file that the next flush makes durable."""
        handle = self._files.open(path, create=True)
        self._handles.append(handle)
        self._folder_changed = True
        handle.truncate(0)
        handle.append(data)

    def drop(self, segment: Segment) -> None:
        """The partition is done with a segment. A running flush may still be using its files."""
        if segment in self._sealed:
            self._sealed.remove(segment)
        (self._dropped_in_flush if self._flush else self._dropped).append(segment)

    def take_dropped(self) -> list[Segment]:
        """Segments nobody uses any more. Any thread."""
        return [self._dropped.popleft() for _ in range(len(self._dropped))]

    def drop_again(self, segment: Segment) -> None:
        """What `take_dropped` gave is still there. Any thread."""
        self._dropped.append(segment)

    def prepare(self, offset: int, active: Segment | None) -> Flush:
        """A flush of everything noted, and of the active segment if it is given."""
        assert self._flush is None
        segments = [*self._sealed, active] if active else self._sealed
        folder = self._folder if self._folder_changed else None
        self._flush = Flush(self._files, offset, segments, self._handles, folder)
        self._sealed, self._handles, self._folder_changed = [], [], False
        return self._flush

    def finish(self, flush: Flush) -> None:
        """The flush has ended, one way or the other."""
        assert flush is self._flush
        self._flush = None
        flush.close()
        self._dropped.extend(self._dropped_in_flush)
        self._dropped_in_flush.clear()

    def close(self) -> None:
        """Close every file held here."""
        for handle in self._handles:
            handle.close()
        for segment in [*self._sealed, *self._dropped]:
            segment.close()
