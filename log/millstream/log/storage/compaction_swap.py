"""Putting the segments of a compaction in the place of those they were made of, crash or no crash.

A group is some neighbouring segments and the one segment made of them, which has the base offset of
the first and ends where the last did. Steps, in a thread, while both are intact:

    1. the new segment's files are durable under names that end in .cleaned
    2. its index files are renamed to .swap; the folder is synced
    3. its .log file is renamed to .swap; the folder is synced. From here on the group is swapped.
       One group after the other: what a later one has dropped may rest on an earlier one.
    4. the other segments of the group are removed, the index files renamed to their place; sync
    5. the .log file is renamed to its place; the folder is synced

A start finishes what it finds: a .log.swap goes through steps 4 and 5, any other .swap or .cleaned
file is dropped. The end of the new segment, which is that of its last batch, says which segments it
stands for; that is why compaction keeps the last batch of every group.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .files import Files
from .layout import (
    INDEX,
    LOG,
    SNAPSHOT,
    SWAP,
    TIME_INDEX,
    TXN_INDEX,
    is_leftover,
    offset_file,
    offset_of,
)
from .segment import Segment

__all__ = ["CleanedGroup", "Discarded", "Swap", "finish_swaps", "remove_leftovers"]

_INDEXES = (INDEX, TIME_INDEX, TXN_INDEX)


class CleanedGroup(NamedTuple):
    """A segment under .cleaned names, and the base offsets of those it stands for."""

    segment: Segment
    base_offsets: list[int]


class Swap:
    """Groups that readers see already, and whose files are still to be put in place.

    Args:
        groups: each new segment with the old ones, by offset.
        clean_offset: what is below it is clean once this is settled.
    """

    def __init__(
        self,
        files: Files,
        folder: str,
        groups: list[tuple[Segment, list[Segment]]],
        clean_offset: int,
    ) -> None:
        self.clean_offset: int | None = clean_offset
        self._files = files
        self._folder = folder
        self._groups = groups
        self._is_swapped = False

    def settle(self) -> None:
        """Steps 2 to 5. Calls fsync; any thread.

        Raises:
            OSError: the disk refused; another call goes on where this one ended.
        """
        if not self._is_swapped:
            self._swap()
            self._is_swapped = True
        segments = self._present()
        for segment, old in self._groups:
            for each in old:
                each.close()
                if each.base_offset != segment.base_offset or segment not in segments:
                    _remove(self._files, self._folder, each.base_offset)
        for segment in segments:
            segment.rename_indexes("")
        self._files.fsync_dir(self._folder)
        for segment in segments:
            segment.rename_log("")
        self._files.fsync_dir(self._folder)
        for segment in segments:
            if not segment.txn_index.count:
                segment.txn_index.stored.remove()

    def close(self) -> None:
        """Close the old segments; the new ones belong to the partition."""
        for _, old in self._groups:
            for segment in old:
                segment.close()

    def _swap(self) -> None:
        segments = self._present()
        for segment in segments:
            segment.rename_indexes(SWAP)
        self._files.fsync_dir(self._folder)
        for segment in segments:
            segment.rename_log(SWAP)
            self._files.fsync_dir(self._folder)

    def _present(self) -> list[Segment]:
        """The new segments, but for those whose records were deleted since, to make room."""
        return [segment for segment, _ in self._groups if self._files.exists(segment.path)]


class Discarded:
    """A compaction that came to nothing, and whose files are still to be removed."""

    clean_offset: int | None = None

    def __init__(self, files: Files, folder: str, groups: list[CleanedGroup]) -> None:
        self._files = files
        self._folder = folder
        self._groups = groups

    def settle(self) -> None:
        """Remove them, or what is left of them. Any thread.

        Raises:
            OSError
        """
        self.close()
        remove_leftovers(self._files, self._folder)

    def close(self) -> None:
        """Close them."""
        for group in self._groups:
            group.segment.close()


def remove_leftovers(files: Files, folder: str) -> None:
    """Remove what a compaction wrote and nothing refers to."""
    for name in files.list_dir(folder):
        if is_leftover(name):
            files.remove(f"{folder}/{name}")


def finish_swaps(files: Files, folder: str, names: Iterable[str]) -> None:
    """What a start does with leftovers, among the `names` in a partition's folder.

    Raises:
        OSError, CorruptRecordError
    """
    names = set(names)
    swapped = sorted(
        base for base in (offset_of(name, LOG + SWAP) for name in names) if base is not None
    )
    if swapped:
        # The process may have been killed before its fsync of these names.
        files.fsync_dir(folder)
        for base_offset in swapped:
            _finish(files, folder, base_offset, names)
        files.fsync_dir(folder)
        for base_offset in swapped:
            path = offset_file(folder, base_offset, LOG)
            files.rename(path + SWAP, path)
        files.fsync_dir(folder)
    kept = {
        offset_file(folder, base_offset, kind) + SWAP
        for base_offset in swapped
        for kind in (LOG, *_INDEXES)
    }
    for name in sorted(names):
        path = f"{folder}/{name}"
        if is_leftover(name) and path not in kept:
            files.remove(path)


def _finish(files: Files, folder: str, base_offset: int, names: set[str]) -> None:
    """Step 4, whatever of it was done before."""
    end = _end_of(files, folder, base_offset)
    for name in names:
        other = offset_of(name, LOG)
        if other is not None and base_offset < other < end:
            _remove(files, folder, other)
    for kind in _INDEXES:
        path = offset_file(folder, base_offset, kind)
        if files.exists(path + SWAP):
            files.rename(path + SWAP, path)


def _remove(files: Files, folder: str, base_offset: int) -> None:
    """The files of one segment, as far as they are there; the .log file, which says that there is
    something to remove, as the last."""
    for kind in (*_INDEXES, SNAPSHOT, LOG):
        path = offset_file(folder, base_offset, kind)
        if files.exists(path):
            files.remove(path)


def _end_of(files: Files, folder: str, base_offset: int) -> int:
    """The offset after the last batch of a swapped segment."""
    segment = Segment(files, folder, base_offset, suffix=SWAP)
    end = base_offset
    try:
        for _, header in segment.batches():
            end = header.last_offset + 1
    finally:
        segment.close()
    return end
