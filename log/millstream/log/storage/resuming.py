"""Where recovery may begin: in the middle of a segment, at the recovery point.

A checkpoint writes the indexes of the active segment and a snapshot of the producers, syncs them,
and then says so in the recovery point. So recovery need not read what lies below. Of the index
files only that much is trusted: entries that were added later may be torn, or anything at all.

Entries ascend and are synced in order, so the true ones come first. Behind them, what is no entry
is told by looking at the batch it speaks of, from the last one backwards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from millstream.log.errors import CorruptRecordError
from millstream.log.format.codec import BatchHeader
from millstream.log.limits import FIND_BYTES
from millstream.log.record import TopicPartition

from .files import Files
from .layout import SNAPSHOT, offset_file
from .producer_snapshot import decode_snapshot
from .producer_state import ProducerState
from .segment import Segment
from .txn_index import VERSION

__all__ = ["ResumePoint", "resume_point"]


class ResumePoint(NamedTuple):
    """All batches below `offset` are trusted; the next one begins at `position` of its segment.

    `state` is that of the producers there; it comes from the snapshot at `snapshot`.
    """

    offset: int
    position: int
    state: ProducerState
    snapshot: int


def resume_point(
    files: Files,
    folder: str,
    topic_partition: TopicPartition,
    segment: Segment,
    offset: int,
    index_interval_bytes: int,
) -> ResumePoint | None:
    """The point in `segment` at which `offset` comes next, with the segment's indexes cut to what
    lies below it; None when something is missing, and the whole segment has to be read.

    Raises:
        OSError: the disk could not be read.
    """
    path = offset_file(folder, offset, SNAPSHOT)
    needed = (path, segment.index.stored.path, segment.time_index.stored.path)
    if offset <= segment.base_offset or not all(map(files.exists, needed)):
        return None
    try:
        state = decode_snapshot(files.read_whole(path), path, topic_partition)
    except CorruptRecordError:
        return None
    _trust_offset_index(segment, offset)
    position = _position_of(segment, offset, index_interval_bytes)
    if position is None:
        return None
    _trust_time_index(segment, offset)
    _trust_txn_index(segment, offset)
    return ResumePoint(offset, position, state, offset)


def _position_of(segment: Segment, offset: int, index_interval_bytes: int) -> int | None:
    """Where the batches end that lie below `offset`; None when no batch ends there, or when the
    index lacks entries."""
    last = segment.index.last()
    indexed = position = last[1] if last else 0
    try:
        for begin, header in segment.batches(position, FIND_BYTES):
            if begin - indexed > index_interval_bytes or header.last_offset >= offset:
                return None
            if header.last_offset + 1 == offset:
                return begin + header.size_bytes
    except CorruptRecordError:
        return None
    return None


def _trust_offset_index(segment: Segment, offset: int) -> None:
    entries = segment.index.stored.all()
    relative = offset - segment.base_offset
    count = _ascending(entries, lambda entry: entry[0] < relative and entry[1] > 0)

    def is_true(entry: tuple[int, ...]) -> bool:
        header = _batch_at(segment, entry[1])
        return header is not None and header.last_offset == segment.base_offset + entry[0]

    segment.index.stored.keep(_trusted(entries[:count], is_true))


def _trust_time_index(segment: Segment, offset: int) -> None:
    entries = segment.time_index.stored.all()
    relative = offset - segment.base_offset
    count = _ascending(entries, lambda entry: entry[1] < relative)

    def is_true(entry: tuple[int, ...]) -> bool:
        header = _batch_with(segment, segment.base_offset + entry[1])
        return header is not None and header.max_timestamp == entry[0]

    segment.time_index.stored.keep(_trusted(entries[:count], is_true))


def _trust_txn_index(segment: Segment, offset: int) -> None:
    entries = segment.txn_index.stored.all()
    count, before = 0, segment.base_offset - 1
    for entry in entries:
        if entry[0] != VERSION or not before < entry[3] < offset:
            break
        count, before = count + 1, entry[3]

    def is_true(entry: tuple[int, ...]) -> bool:
        header = _batch_with(segment, entry[3])
        return header is not None and header.is_control and header.producer_id == entry[1]

    segment.txn_index.stored.keep(_trusted(entries[:count], is_true))


def _ascending(
    entries: Sequence[tuple[int, ...]], is_below: Callable[[tuple[int, ...]], bool]
) -> int:
    """How many entries from the first on ascend in all their fields and are below the point."""
    count = 0
    for before, entry in pairwise([(-1,) * 2, *entries]):
        if not is_below(entry) or any(a >= b for a, b in zip(before, entry, strict=True)):
            break
        count += 1
    return count


def _trusted(entries: Sequence[tuple[int, ...]], is_true: Callable[[tuple[int, ...]], bool]) -> int:
    count = len(entries)
    while count and not is_true(entries[count - 1]):
        count -= 1
    return count


def _batch_at(segment: Segment, position: int) -> BatchHeader | None:
    if position >= segment.size_bytes:
        return None
    try:
        return next(segment.batches(position, FIND_BYTES))[1]
    except CorruptRecordError:
        return None


def _batch_with(segment: Segment, offset: int) -> BatchHeader | None:
    """The batch whose last offset this is."""
    try:
        found = segment.find(offset)
    except CorruptRecordError:
        return None
    return found[1] if found is not None and found[1].last_offset == offset else None
