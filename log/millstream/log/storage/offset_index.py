"""Offset index of a segment: which byte position to begin at when looking for an offset.

    .index, entry of 8 bytes, big-endian:   int32 offset - base offset   int32 position

An entry holds the last offset of a batch and the position where that batch begins, as Kafka writes
it. One is added when more than index.interval.bytes have been appended since the last, so a search
ends with a short scan. Offsets and positions both ascend. Nothing here is trusted after a crash:
recovery builds it anew from the batches.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right

from .files import Files
from .stored_entries import StoredEntries

__all__ = ["OffsetIndex"]

ENTRY = struct.Struct(">ii")


class OffsetIndex:
    """Entries in the file, then those added since, in memory."""

    __slots__ = ("_base_offset", "_offsets", "_positions", "stored")

    def __init__(self, files: Files, path: str, base_offset: int) -> None:
        self.stored = StoredEntries(files, path, ENTRY)
        self._base_offset = base_offset
        self._offsets = array("q")
        self._positions = array("q")

    @property
    def count(self) -> int:
        """Entries in all."""
        return self.stored.count + len(self._offsets)

    def append(self, last_offset: int, position: int) -> None:
        """Add the batch that ends with `last_offset` and begins at `position`."""
        self._offsets.append(last_offset)
        self._positions.append(position)

    def floor(self, offset: int) -> int:
        """Position to scan from to find `offset`: the batch there ends at or before it, or is the
        first of the segment."""
        if self._offsets and self._offsets[0] <= offset:
            return self._positions[bisect_right(self._offsets, offset) - 1]
        found = self.stored.floor(0, offset - self._base_offset)
        return self.stored.get(found)[1] if found >= 0 else 0

    def start_below(self, offset: int, position: int) -> int:
        """The last indexed position up to `position` whose batch ends below `offset`; 0 without
        one. A batch begins there."""
        if self._offsets and self._offsets[0] < offset and self._positions[0] <= position:
            found = min(bisect_left(self._offsets, offset), bisect_right(self._positions, position))
            return self._positions[found - 1]
        by_offset = self.stored.floor(0, offset - 1 - self._base_offset)
        found = min(by_offset, self.stored.floor(1, position))
        return self.stored.get(found)[1] if found >= 0 else 0

    def last(self) -> tuple[int, int] | None:
        """Last offset and position of the newest entry."""
        if self._offsets:
            return self._offsets[-1], self._positions[-1]
        if not self.stored.count:
            return None
        relative, position = self.stored.get(self.stored.count - 1)
        return relative + self._base_offset, position

    def entries(self) -> list[tuple[int, int]]:
        """Every entry as (offset, position): for checks and tools."""
        stored = [(entry[0] + self._base_offset, entry[1]) for entry in self.stored.all()]
        return stored + list(zip(self._offsets, self._positions, strict=True))

    def seal(self) -> None:
        """Write what is in memory to the file."""
        packed = b"".join(
            ENTRY.pack(offset - self._base_offset, position)
            for offset, position in zip(self._offsets, self._positions, strict=True)
        )
        self.stored.extend(packed)
        self._offsets, self._positions = array("q"), array("q")

    def clear(self) -> None:
        """Forget every entry."""
        self.stored.clear()
        self._offsets, self._positions = array("q"), array("q")
