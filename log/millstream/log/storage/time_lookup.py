"""Finding records by their time, exactly: the first that is not before a time, and the latest.

A time index says where to begin, and a batch's header the latest time in the batch. Which record it
is only the records say: times may jump back and forth within a batch, and its first records may be
below the log start offset. Markers are passed over: nobody reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from millstream.log.errors import CorruptRecordError
from millstream.log.format.codec import BatchHeader, Columns, check_batch, decode_batch

from .segment import NO_TIMESTAMP, Segment

__all__ = ["first_at", "max_timestamp"]


def first_at(
    segments: Sequence[Segment], timestamp: int, start: int, limit: int
) -> tuple[int, int] | None:
    """Offset and time of the first record in `start` to `limit` (exclusive) that is not before
    `timestamp`.

    `segments` are those from the one that holds `start` on. A batch begins at `limit`, or the log
    ends there.

    Raises:
        OSError, CorruptRecordError
    """
    for segment in segments:
        if segment.base_offset >= limit:
            break
        if segment.largest_timestamp < timestamp:
            continue
        begin = max(segment.time_index.floor(timestamp), start)
        for position, header in _batches_from(segment, begin):
            if header.base_offset >= limit:
                break
            if header.max_timestamp >= timestamp and not header.is_control:
                for offset, time in _records(segment, position, header, start):
                    if time >= timestamp:
                        return offset, time
    return None


def max_timestamp(segments: Sequence[Segment], start: int, limit: int) -> tuple[int, int] | None:
    """Offset and time of the first record with the latest time, in `start` to `limit` (exclusive);
    None when no record has a time. `segments` as above.

    Raises:
        OSError, CorruptRecordError

    Source: ListOffsets API v7+, timestamp -3 (KIP-734).
    """
    best: tuple[int, int] | None = None
    candidates = [segment for segment in segments if segment.base_offset < limit]
    for segment in sorted(candidates, key=lambda each: -each.largest_timestamp):
        largest = segment.largest_timestamp
        if largest == NO_TIMESTAMP or (best is not None and largest < best[1]):
            break
        if best is None or largest > best[1] or segment.base_offset < best[0]:
            found = _max_in_segment(segment, start, limit)
            if found is not None and (best is None or (-found[1], found[0]) < (-best[1], best[0])):
                best = found
    return best


def _max_in_segment(segment: Segment, start: int, limit: int) -> tuple[int, int] | None:
    largest, offset = segment.largest
    if start <= offset < limit:
        found = segment.find(offset)
        if found is None:
            raise segment.damaged(0, f"no batch holds offset {offset}, which an index names")
        position, header = found
        if header.base_offset >= start:
            return _first_with(segment, position, header, largest, start)
    # The latest record cannot be read, or not yet. An index entry below the limit says what is the
    # latest of all up to it.
    entry = segment.time_index.last_below(limit)
    begin = max(start, entry[1] if entry else start)
    best: tuple[int, int] | None = None
    time = NO_TIMESTAMP
    for position, header in _batches_from(segment, begin):
        if header.base_offset >= limit:
            break
        if header.max_timestamp > time and not header.is_control:
            for offset, each in _records(segment, position, header, start):
                if each > time:
                    best, time = (offset, each), each
    return best


def _batches_from(segment: Segment, offset: int) -> Iterator[tuple[int, BatchHeader]]:
    """Position and header of the batches from the one on that holds this offset."""
    found = segment.find(offset)
    return segment.batches(segment.size_bytes if found is None else found[0])


def _first_with(
    segment: Segment, position: int, header: BatchHeader, timestamp: int, start: int
) -> tuple[int, int] | None:
    for offset, time in _records(segment, position, header, start):
        if time == timestamp:
            return offset, time
    return None


def _records(
    segment: Segment, position: int, header: BatchHeader, start: int
) -> Iterator[tuple[int, int]]:
    """Offset and time of each record of a batch from `start` on."""
    columns = _columns(segment, position, header)
    for offset, time in zip(columns.offsets, columns.timestamps, strict=True):
        if offset >= start:
            yield offset, time


def _columns(segment: Segment, position: int, header: BatchHeader) -> Columns:
    data = segment.read(position, header.size_bytes)
    try:
        check_batch(data, 0, header)
        return decode_batch(data, 0, header)
    except CorruptRecordError as error:
        raise segment.damaged(position, str(error)) from error
