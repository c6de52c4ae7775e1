"""Time index of a segment: where to begin looking for the first record of a time.

    .timeindex, entry of 12 bytes, big-endian:   int64 timestamp   int32 offset - base offset

An entry says: up to this offset no record of the segment is later than this timestamp, which is the
largest so far. Timestamps and offsets never descend, however the records' own times jump. Control
batches are left out: a marker's wall-clock time says nothing about the times of the records.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right

from .files import Files
from .stored_entries import StoredEntries

__all__ = ["TimeIndex"]

ENTRY = struct.Struct(">qi")


class TimeIndex:
    """Entries in the file, then those added since, in memory."""

    __slots__ = ("_base_offset", "_offsets", "_timestamps", "stored")

    def __init__(self, files: Files, path: str, base_offset: int) -> None:
        self.stored = StoredEntries(files, path, ENTRY)
        self._base_offset = base_offset
        self._timestamps = array("q")
        self._offsets = array("q")

    @property
    def count(self) -> int:
        """Entries in all."""
        return self.stored.count + len(self._timestamps)

    def append(self, timestamp: int, offset: int) -> None:
        """Add the largest timestamp so far and the last offset of the batch that holds it, unless
        the newest entry says so already."""
        last = self.last()
        if timestamp >= 0 and (last is None or timestamp > last[0]):
            self._timestamps.append(timestamp)
            self._offsets.append(offset)

    def floor(self, timestamp: int) -> int:
        """An offset from whose batch on to look for `timestamp`; before it all is earlier."""
        if self._timestamps and self._timestamps[0] <= timestamp:
            return self._offsets[bisect_right(self._timestamps, timestamp) - 1]
        found = self.stored.floor(0, timestamp)
        return self._base_offset + (self.stored.get(found)[1] if found >= 0 else 0)

    def last(self) -> tuple[int, int] | None:
        """The newest entry as (timestamp, offset)."""
        if self._timestamps:
            return self._timestamps[-1], self._offsets[-1]
        return self._stored(self.stored.count - 1)

    def last_below(self, offset: int) -> tuple[int, int] | None:
        """The newest entry about offsets below `offset`, as (timestamp, offset)."""
        if self._offsets and self._offsets[0] < offset:
            found = bisect_left(self._offsets, offset) - 1
            return self._timestamps[found], self._offsets[found]
        return self._stored(self.stored.floor(1, offset - 1 - self._base_offset))

    def _stored(self, i: int) -> tuple[int, int] | None:
        if i < 0:
            return None
        timestamp, relative = self.stored.get(i)
        return timestamp, relative + self._base_offset

    def entries(self) -> list[tuple[int, int]]:
        """Every entry as (timestamp, offset): for checks and tools."""
        stored = [(entry[0], entry[1] + self._base_offset) for entry in self.stored.all()]
        return stored + list(zip(self._timestamps, self._offsets, strict=True))

    def seal(self) -> None:
        """Write what is in memory to the file."""
        packed = b"".join(
            ENTRY.pack(timestamp, offset - self._base_offset)
            for timestamp, offset in zip(self._timestamps, self._offsets, strict=True)
        )
        self.stored.extend(packed)
        self._timestamps, self._offsets = array("q"), array("q")

    def clear(self) -> None:
        """Forget every entry."""
        self.stored.clear()
        self._timestamps, self._offsets = array("q"), array("q")
