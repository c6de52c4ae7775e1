"""The crash sweep finds bugs: each of these is put into the code on purpose and must be caught.

A sweep that passes proves little until it is known what it would notice. Every mutation here is one
a person could make: a forgotten fsync, a check left out, an offset one too high.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from millstream.log.errors import LogError
from millstream.log.storage import (
    checkpointing,
    checkpoints,
    files,
    flush,
    loading,
    log_dir,
    offset_index,
    partition,
    producer_state,
    recovery,
    resuming,
    segment,
    stored_entries,
    txn_index,
)
from shared.partition_sweep import sweep_crashes, sweep_errors
from shared.sweeping import coarse_first

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch


def nothing(*_arguments: object, **_named: object) -> None:
    return None


def no_fsync_before_the_acknowledgement(patch: Patch) -> None:
    patch.setattr(segment.Segment, "fsync", nothing)


def no_fsync_of_the_active_segment(patch: Patch) -> None:
    real = flush.Unsynced.prepare
    patch.setattr(flush.Unsynced, "prepare", lambda self, offset, active: real(self, offset, None))


def no_fsync_of_sealed_segments(patch: Patch) -> None:
    patch.setattr(flush.Unsynced, "note_sealed", nothing)


def no_fsync_of_the_folder(patch: Patch) -> None:
    def run(self: flush.Flush) -> None:
        for each in (*self._segments, *self._handles):
            each.fsync()

    patch.setattr(flush.Flush, "run", run)


def no_fsync_of_index_files(patch: Patch) -> None:
    patch.setattr(segment.Segment, "fsync", lambda self: self.handle.fsync())


def high_watermark_before_the_fsync(patch: Patch) -> None:
    real = partition.Partition._update_offsets

    def update(self: partition.Partition) -> None:
        self.high_watermark = self.log_end_offset
        real(self)

    patch.setattr(partition.Partition, "_update_offsets", update)


def writes_go_on_after_a_failed_fsync(patch: Patch) -> None:
    real = partition.Partition.finish_flush
    patch.setattr(
        partition.Partition, "finish_flush", lambda self, running, error: real(self, running, None)
    )


def last_stable_offset_one_too_high(patch: Patch) -> None:
    real = producer_state.ProducerState.first_unstable_offset

    def first_unstable_offset(
        self: producer_state.ProducerState, high_watermark: int
    ) -> int | None:
        offset = real(self, high_watermark)
        return None if offset is None else offset + 1

    patch.setattr(producer_state.ProducerState, "first_unstable_offset", first_unstable_offset)


def last_stable_offset_passes_an_unsynced_marker(patch: Patch) -> None:
    real = producer_state.ProducerState.first_unstable_offset
    patch.setattr(
        producer_state.ProducerState, "first_unstable_offset", lambda self, _: real(self, 1 << 62)
    )


def duplicates_are_appended(patch: Patch) -> None:
    patch.setattr(producer_state.ProducerState, "check_batch", nothing)


def aborted_transactions_are_not_indexed(patch: Patch) -> None:
    patch.setattr(txn_index.TxnIndex, "append", nothing)


def aborted_transactions_are_not_indexed_in_recovery(patch: Patch) -> None:
    real = recovery.note

    def note(*arguments: Any) -> None:
        real(*arguments)

    patch.setattr(recovery, "note", note)


def index_entries_one_batch_off(patch: Patch) -> None:
    real = offset_index.OffsetIndex.append
    patch.setattr(
        offset_index.OffsetIndex, "append", lambda self, last, at: real(self, last - 1, at)
    )


def no_checksum_in_recovery(patch: Patch) -> None:
    patch.setattr(recovery, "check_batch", nothing)


def offsets_not_checked_in_recovery(patch: Patch) -> None:
    patch.setattr(recovery.Recovery, "_continues", lambda self, offset: True)


def recovery_does_not_truncate(patch: Patch) -> None:
    patch.setattr(segment.Segment, "truncate", nothing)


def recovery_leaves_later_segments(patch: Patch) -> None:
    patch.setattr(segment.Segment, "remove", nothing)


def recovery_does_not_sync(patch: Patch) -> None:
    real = recovery.Recovery.apply

    def apply(self: recovery.Recovery) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(segment.Segment, "fsync", nothing)
            return real(self)

    patch.setattr(recovery.Recovery, "apply", apply)


def recovery_does_not_write_again(patch: Patch) -> None:
    patch.setattr(recovery, "_rewrite", nothing)


def recovery_forgets_the_producers(patch: Patch) -> None:
    patch.setattr(recovery, "note", nothing)


def recovery_trusts_the_segment_before_the_recovery_point(patch: Patch) -> None:
    real = loading.Loading._recover

    def recover(self: loading.Loading) -> Any:
        point = self._request.recovery_point
        bases = [each.base_offset for each in self._segments]
        if point in bases[1:]:
            object.__setattr__(self._request, "recovery_point", point + 1)
        return real(self)

    patch.setattr(loading.Loading, "_recover", recover)


def files_are_replaced_without_fsync(patch: Patch) -> None:
    def replace_file(where: files.Files, path: str, data: bytes) -> None:
        handle = where.open(path + ".tmp", create=True)
        handle.truncate(0)
        handle.append(data)
        where.rename(path + ".tmp", path)
        where.fsync_dir(files.parent(path))

    patch.setattr(checkpointing, "replace_file", replace_file)


def files_are_replaced_in_place(patch: Patch) -> None:
    def replace_file(where: files.Files, path: str, data: bytes) -> None:
        handle = where.open(path, create=True)
        handle.truncate(0)
        handle.append(data)
        handle.fsync()
        where.fsync_dir(files.parent(path))

    patch.setattr(checkpointing, "replace_file", replace_file)


def log_start_offset_is_not_written_down(patch: Patch) -> None:
    real = checkpoints.encode_offsets
    patch.setattr(checkpointing, "encode_offsets", lambda offsets: real(dict.fromkeys(offsets, 0)))


def a_new_partition_is_not_synced(patch: Patch) -> None:
    real = loading.create_partition

    def create_partition(request: Any, *, topic_id: str) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(type(request.files), "fsync_dir", nothing)
            return real(request, topic_id=topic_id)

    patch.setattr(log_dir, "create_partition", create_partition)


def a_marker_does_not_raise_the_epoch(patch: Patch) -> None:
    real = producer_state.ProducerState.note_marker

    def note_marker(self: producer_state.ProducerState, header: Any, *rest: int) -> Any:
        entry = self.producers.get(header.producer_id)
        epoch = entry.epoch if entry else header.producer_epoch
        return real(self, header._replace(producer_epoch=epoch), *rest)

    patch.setattr(producer_state.ProducerState, "note_marker", note_marker)


def the_recovery_point_moves_before_the_fsync(patch: Patch) -> None:
    real = partition.Partition.seal

    def seal(self: partition.Partition) -> bool:
        sealed = real(self)
        self.recovery_point = self.log_end_offset
        return sealed

    patch.setattr(partition.Partition, "seal", seal)


def index_entries_behind_the_recovery_point_are_trusted(patch: Patch) -> None:
    patch.setattr(stored_entries.StoredEntries, "keep", nothing)


def recovery_resumes_one_batch_late(patch: Patch) -> None:
    real = resuming._position_of
    patch.setattr(
        resuming,
        "_position_of",
        lambda segment, offset, interval: real(segment, offset, interval) and segment.size_bytes,
    )


CAUGHT_BY_CRASHES = [
    the_recovery_point_moves_before_the_fsync,
    index_entries_behind_the_recovery_point_are_trusted,
    recovery_resumes_one_batch_late,
    no_fsync_before_the_acknowledgement,
    no_fsync_of_the_active_segment,
    no_fsync_of_sealed_segments,
    no_fsync_of_the_folder,
    no_fsync_of_index_files,
    high_watermark_before_the_fsync,
    last_stable_offset_one_too_high,
    last_stable_offset_passes_an_unsynced_marker,
    duplicates_are_appended,
    aborted_transactions_are_not_indexed,
    aborted_transactions_are_not_indexed_in_recovery,
    index_entries_one_batch_off,
    no_checksum_in_recovery,
    offsets_not_checked_in_recovery,
    recovery_does_not_truncate,
    recovery_leaves_later_segments,
    recovery_does_not_sync,
    recovery_forgets_the_producers,
    recovery_trusts_the_segment_before_the_recovery_point,
    files_are_replaced_without_fsync,
    files_are_replaced_in_place,
    log_start_offset_is_not_written_down,
    a_new_partition_is_not_synced,
    a_marker_does_not_raise_the_epoch,
]
CAUGHT_BY_ERRORS = [writes_go_on_after_a_failed_fsync, recovery_does_not_write_again]


def name_of(mutation: Callable[..., object]) -> str:
    return mutation.__name__


@pytest.mark.parametrize("mutation", CAUGHT_BY_CRASHES, ids=name_of)
def test_a_crash_sweep_catches(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises((AssertionError, LogError)):
        coarse_first(sweep_crashes)


@pytest.mark.parametrize("mutation", CAUGHT_BY_ERRORS, ids=name_of)
def test_an_error_sweep_catches(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises((AssertionError, LogError)):
        sweep_errors()
