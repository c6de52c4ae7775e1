"""The segments of a partition in order: finds the right one, and reads from it."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

from millstream.log.format.codec import HEADER_SIZE_BYTES, parse_header
from millstream.log.limits import OPEN_SEGMENTS_MAX

from .segment import Segment
from .txn_index import AbortedTransaction

__all__ = ["Fetched", "SegmentList"]

LENGTH_END = 12
"""batchLength counts what follows it."""
WALK_MAX = 256
"""With more batches than this the index is asked where to begin looking for the last one."""
_OFFSET_AND_LENGTH = struct.Struct(">qi")


class Fetched(NamedTuple):
    """Whole batches as stored, and the offset after the last of them."""

    data: bytes
    next_offset: int


class SegmentList:
    """Segments with ascending base offsets; the last one is active. Never empty.

    Files are opened when they are read. Of the segments that are not active the last
    OPEN_SEGMENTS_MAX that were opened stay open.
    """

    def __init__(self, segments: list[Segment]) -> None:
        assert segments
        self._segments = segments
        self._base_offsets = [segment.base_offset for segment in segments]
        assert self._base_offsets == sorted(set(self._base_offsets))
        self._open: dict[Segment, None] = {}  # in the order in which they were opened
        for segment in segments:
            segment.watch(self._opened)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._segments)

    def __len__(self) -> int:
        return len(self._segments)

    @property
    def active(self) -> Segment:
        """The one that is appended to."""
        return self._segments[-1]

    @property
    def first(self) -> Segment:
        """The oldest one."""
        return self._segments[0]

    def add(self, segment: Segment) -> None:
        """Make a new segment the active one."""
        assert segment.base_offset > self._base_offsets[-1]
        self._opened(self.active)
        self._segments.append(segment)
        self._base_offsets.append(segment.base_offset)
        segment.watch(self._opened)

    def replace(self, old: list[Segment], new: Segment) -> None:
        """Put one segment in the place of neighbours, the first of which has its base offset."""
        first = self._base_offsets.index(new.base_offset)
        count = len(old)
        assert self._segments[first : first + count] == old
        self._forget(old)
        new.watch(self._opened)
        new.is_synced = True  # before it was handed over, open
        self._opened(new)
        self._segments[first : first + count] = [new]
        self._base_offsets[first : first + count] = [new.base_offset]

    def with_ends(self, log_end_offset: int) -> Iterator[tuple[Segment, int]]:
        """Every segment, and the offset where the next one begins."""
        return zip(self._segments, [*self._base_offsets[1:], log_end_offset], strict=True)

    def take_below(self, offset: int) -> list[Segment]:
        """Take out the segments that hold nothing from `offset` on. The active one stays."""
        count = self._floor(offset)
        taken = self._segments[:count]
        self._forget(taken)
        del self._segments[:count], self._base_offsets[:count]
        return taken

    def _opened(self, segment: Segment) -> None:
        """A file of it was opened; those opened long ago are closed."""
        self._open.pop(segment, None)
        self._open[segment] = None
        too_many = len(self._open) - OPEN_SEGMENTS_MAX
        for each in list(self._open)[:-1] if too_many > 0 else ():
            if too_many > 0 and each is not self.active and each.may_be_closed:
                each.close()
                del self._open[each]
                too_many -= 1

    def _forget(self, segments: list[Segment]) -> None:
        """Their files are somebody else's to close."""
        for segment in segments:
            segment.watch(None)
            self._open.pop(segment, None)

    def read(self, offset: int, limit: int, log_end_offset: int, size_bytes_max: int) -> Fetched:
        """Batches from the one that holds `offset` on, below `limit`, all of one segment.

        `offset` < `limit` <= `log_end_offset`, and a batch begins at `limit` or the log ends there.
        At most `size_bytes_max` bytes, but always one batch.

        Raises:
            OSError, CorruptRecordError
        """
        for i in range(self._floor(offset), len(self._segments)):
            segment = self._segments[i]
            found = segment.find(offset)
            if found is None:
                continue  # compaction took the last records of this segment
            position, header = found
            if header.base_offset >= limit:
                break
            data = segment.read(position, max(size_bytes_max, header.size_bytes))
            following = self._base_offsets[i + 1 : i + 2]
            segment_end = following[0] if following else log_end_offset
            if segment_end <= limit and position + len(data) == segment.size_bytes:
                return Fetched(data, segment_end)
            begin = 0
            if len(data) > header.size_bytes * WALK_MAX:
                # The batch there is mostly a whole one.
                behind = position + len(data) - 2 * header.size_bytes
                begin = max(segment.index.start_below(limit, behind) - position, 0)
            fetched = _cut(segment, position, data, begin, limit)
            if fetched.data:
                segment.note_read(fetched.next_offset, position + len(fetched.data))
            return fetched
        return Fetched(b"", limit)

    def aborted(self, start: int, stop: int) -> list[AbortedTransaction]:
        """Aborted transactions with records in `start` to `stop` (exclusive), by first offset.

        The marker of a transaction may lie in a later segment than its records.
        """
        found: list[AbortedTransaction] = []
        for segment in self._segments[self._floor(start) :]:
            if segment.txn_index.count:
                found += segment.txn_index.overlapping(start, stop)
                if segment.txn_index.ends_search(stop):
                    break
        return sorted(found, key=lambda aborted: aborted.first_offset)

    def from_offset(self, offset: int) -> list[Segment]:
        """The segment that holds `offset`, and those after it."""
        return self._segments[self._floor(offset) :]

    def _floor(self, offset: int) -> int:
        """Index of the segment that holds `offset`."""
        return max(bisect_right(self._base_offsets, offset) - 1, 0)


def _cut(segment: Segment, position: int, data: bytes, begin: int, limit: int) -> Fetched:
    """Leave out the last batch where it is not whole, and what begins at `limit` or later.

    `data` lies at `position`; by the index a batch is at `begin` in it.
    """
    end, last = begin, None
    size = len(data)
    while size - end >= HEADER_SIZE_BYTES:
        base_offset, length = _OFFSET_AND_LENGTH.unpack_from(data, end)
        if length < HEADER_SIZE_BYTES - LENGTH_END:
            if begin:
                return _cut(segment, position, data, 0, limit)  # the index was damaged
            raise segment.damaged(position + end, f"a batch cannot have length {length}")
        if base_offset >= limit or end + length + LENGTH_END > size:
            break
        last = end
        end += length + LENGTH_END
    if last is None:
        # The batch at `begin` is not whole; or none is there, for the index was damaged.
        return _cut(segment, position, data, 0, limit) if begin else Fetched(b"", limit)
    return Fetched(data[:end], parse_header(data, last).last_offset + 1)
