"""Producer state from the log itself: from the nearest snapshot, and the batches behind it."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.log.errors import CorruptRecordError
from millstream.log.format.codec import BatchHeader, decode_batch
from millstream.log.format.control import VALUE, control_type
from millstream.log.record import TopicPartition

from .files import Files
from .layout import SNAPSHOT, offset_file
from .producer_snapshot import decode_snapshot
from .producer_state import ProducerState
from .segment import Segment
from .txn_index import AbortedTransaction

__all__ = ["note", "state_at"]


def note(
    state: ProducerState, header: BatchHeader, batch: bytes | memoryview, now_ms: int
) -> AbortedTransaction | None:
    """Take a batch that was found in the log into the state, as its append did.

    Returns:
        The transaction it aborts, if it is a marker that aborts one.

    Raises:
        CorruptRecordError: a control batch that is none.
    """
    if not header.is_control:
        if header.producer_id >= 0:
            state.note_batch(header, now_ms)
        return None
    columns = decode_batch(batch, 0, header)
    kind = control_type(columns)
    if kind is None:
        return None
    value = columns.values[0]
    if value is None or len(value) < VALUE.size:
        raise CorruptRecordError(f"a marker at offset {header.base_offset} names no coordinator")
    ended = state.note_marker(header, VALUE.unpack_from(value)[1], now_ms)
    if ended is None or kind == "commit":
        return None
    return AbortedTransaction(*ended, state.stable_offset_at(ended.marker_offset))


def state_at(
    files: Files,
    folder: str,
    topic_partition: TopicPartition,
    offset: int,
    *,
    segments: Sequence[Segment],
    snapshots: Sequence[int],
    now_ms: int,
) -> tuple[ProducerState, int]:
    """The state after everything below `offset`, and the offset of the snapshot it began with.

    Args:
        segments: those of the partition; what they hold below `offset` is trusted.
        snapshots: offsets of the snapshot files there are.

    Raises:
        OSError, CorruptRecordError
    """
    state, known_to = ProducerState(topic_partition), 0
    for snapshot in sorted(snapshots, reverse=True):
        if snapshot <= offset:
            path = offset_file(folder, snapshot, SNAPSHOT)
            try:
                state, known_to = (
                    decode_snapshot(files.read_whole(path), path, topic_partition),
                    snapshot,
                )
            except CorruptRecordError:
                continue  # torn by a crash: an older one, and more batches, give the same state
            break
    state.seen_by(now_ms)
    ends = [segment.base_offset for segment in segments[1:]]
    for segment, end in zip(segments, [*ends, offset], strict=True):
        if end > known_to and segment.base_offset < offset:
            _replay(state, segment, known_to, offset, now_ms)
    return state, known_to


def _replay(
    state: ProducerState, segment: Segment, known_to: int, offset: int, now_ms: int
) -> None:
    for position, header in segment.batches():
        if header.base_offset >= offset:
            break
        if header.base_offset >= known_to:
            batch = segment.read(position, header.size_bytes) if header.is_control else b""
            note(state, header, batch, now_ms)
    segment.close()
