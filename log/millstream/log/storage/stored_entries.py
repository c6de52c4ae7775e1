"""A file of entries of one size, in ascending order: what the indexes of a segment are made of.

Entries are read one at a time where they lie, so that opening a log with a thousand segments reads
none of them. The file is written when its segment is closed; the entries of the active segment are
still in memory, in the index that uses this.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from .disk_full import append_or_nothing, make_or_nothing
from .files import FileHandle, Files

__all__ = ["StoredEntries"]


class StoredEntries:
    """The entries of one file, which need not exist. Big-endian, no header, no checksum."""

    __slots__ = ("_count", "_entry", "_files", "_handle", "_is_stale", "on_open", "path")

    def __init__(self, files: Files, path: str, entry: struct.Struct) -> None:
        self.path = path
        self._files = files
        self._entry = entry
        self._handle: FileHandle | None = None
        self._count = -1
        self._is_stale = False
        self.on_open: Callable[[], None] | None = None

    @property
    def count(self) -> int:
        """Whole entries in the file."""
        if self._count < 0:
            if self._files.exists(self.path):
                self._count = self._files.size(self.path) // self._entry.size
            else:
                self._count = 0
        return self._count

    @property
    def has_stale_bytes(self) -> bool:
        """Whether the file says something that is to be forgotten."""
        return self._is_stale and self._files.exists(self.path)

    def get(self, i: int) -> tuple[int, ...]:
        """The fields of entry `i`."""
        assert 0 <= i < self.count
        size = self._entry.size
        return self._entry.unpack(self._open().read(i * size, size))

    def all(self) -> list[tuple[int, ...]]:
        """Every entry, for files that are small."""
        if not self.count:
            return []
        data = self._open().read(0, self.count * self._entry.size)
        return list(self._entry.iter_unpack(data))

    def floor(self, field: int, value: int) -> int:
        """Index of the last entry whose `field` is at most `value`; -1 when there is none."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            if self.get(middle)[field] <= value:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def extend(self, data: bytes) -> None:
        """Add packed entries; creates the file. Raises as `append_or_nothing`."""
        kept_bytes = self.count * self._entry.size
        count = self.count + len(data) // self._entry.size
        if self._handle is None and not self._files.exists(self.path):
            self._handle = make_or_nothing(self._files, self.path)
        handle = self._open()
        if self._is_stale:
            handle.truncate(min(kept_bytes, handle.size()))
            self._is_stale = False
        append_or_nothing(self._files, self.path, handle, handle.size(), data)
        self._count = count

    def keep(self, count: int) -> None:
        """Forget the entries from `count` on, and what is no whole entry; the next `extend` cuts
        them off the file."""
        self._count = min(count, self.count)
        self._is_stale = True

    def clear(self) -> None:
        """Forget what the file says; the next `extend` writes it anew."""
        self._count = 0
        self._is_stale = True

    def leave(self, path: str) -> None:
        """Leave the file as it is; the next `extend` makes another of this name."""
        self.close()
        self.path, self._count = path, 0

    def fsync(self) -> None:
        """Make the file durable, if there is one."""
        if self._handle is not None:
            self._handle.fsync()

    def rename(self, path: str) -> None:
        """Give the file another name, if there is one. An open handle stays open."""
        if path != self.path:
            if self._files.exists(self.path):
                self._files.rename(self.path, path)
            self.path = path

    def remove(self) -> None:
        """Remove the file, if there is one."""
        self.close()
        if self._files.exists(self.path):
            self._files.remove(self.path)
        self._count = 0

    def close(self) -> None:
        """Close the handle; the next read opens it again."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def _open(self) -> FileHandle:
        if self._handle is None:
            self._handle = self._files.open(self.path)
            if self.on_open is not None:
                self.on_open()
        return self._handle
