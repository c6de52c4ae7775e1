"""The sweep of compaction finds bugs: each of these is put into the code and must be caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from millstream.log.errors import LogError
from millstream.log.storage import (
    checkpointing,
    compaction,
    compaction_filter,
    compaction_swap,
    compaction_transactions,
    partition,
)
from millstream.log.storage.files import Files
from millstream.log.storage.segment import Segment
from millstream.log.testing.sim_files import SimFiles
from shared.compaction_sweep import sweep_crashes, sweep_starts
from shared.sweeping import coarse_first

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch


def nothing(*_arguments: object, **_named: object) -> None:
    return None


def no_fsync_of_the_new_segments(patch: Patch) -> None:
    class Unsynced(Segment):
        fsync = nothing

    patch.setattr(compaction, "Segment", Unsynced)


def no_fsync_of_the_folder(patch: Patch) -> None:
    real = compaction_swap.Swap.settle

    def settle(self: compaction_swap.Swap) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(SimFiles, "fsync_dir", nothing)
            real(self)

    patch.setattr(compaction_swap.Swap, "settle", settle)


def old_segments_are_removed_before_the_swap(patch: Patch) -> None:
    patch.setattr(compaction_swap.Swap, "_swap", nothing)


def the_log_is_swapped_before_its_indexes(patch: Patch) -> None:
    def swap(self: compaction_swap.Swap) -> None:
        for segment, _ in self._groups:
            segment.rename_log(".swap")
        self._files.fsync_dir(self._folder)
        for segment, _ in self._groups:
            segment.rename_indexes(".swap")
        self._files.fsync_dir(self._folder)

    patch.setattr(compaction_swap.Swap, "_swap", swap)


def a_start_drops_what_was_swapped(patch: Patch) -> None:
    def finish_swaps(files: Files, folder: str, names: list[str]) -> None:
        compaction_swap.remove_leftovers(files, folder)

    patch.setattr(compaction_swap, "finish_swaps", finish_swaps)


def a_start_leaves_the_old_segments(patch: Patch) -> None:
    patch.setattr(compaction_swap, "_end_of", lambda files, folder, base_offset: base_offset)


def a_start_does_not_sync_what_it_found(patch: Patch) -> None:
    real = compaction_swap.finish_swaps

    def finish_swaps(files: Files, folder: str, names: list[str]) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(type(files), "fsync_dir", nothing)
            real(files, folder, names)

    patch.setattr(compaction_swap, "finish_swaps", finish_swaps)


def the_clean_offset_is_written_before_the_swap(patch: Patch) -> None:
    real = checkpointing.Checkpoints._settle

    def settle(self: checkpointing.Checkpoints, partitions: Any) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(compaction_swap.Swap, "settle", nothing)
            inner.setattr(partition.Partition, "settled", nothing)
            real(self, partitions)
        real(self, partitions)

    patch.setattr(checkpointing.Checkpoints, "_settle", settle)


def aborted_records_count(patch: Patch) -> None:
    patch.setattr(compaction_transactions.TransactionsMet, "is_aborted", lambda *_: False)


def tombstones_go_with_the_next_compaction(patch: Patch) -> None:
    real = compaction_filter.BatchFilter.__init__

    def init(self: compaction_filter.BatchFilter, *arguments: Any, **named: Any) -> None:
        real(self, *arguments, **named | {"delete_retention_ms": 0})

    patch.setattr(compaction_filter.BatchFilter, "__init__", init)


def the_map_is_one_batch_behind(patch: Patch) -> None:
    real = compaction.Compaction._newest_offsets

    def newest_offsets(self: compaction.Compaction) -> Any:
        found = real(self)
        self._end = self.plan.end
        return found

    patch.setattr(compaction.Compaction, "_newest_offsets", newest_offsets)


CAUGHT_BY_CRASHES = [
    no_fsync_of_the_new_segments,
    no_fsync_of_the_folder,
    old_segments_are_removed_before_the_swap,
    the_log_is_swapped_before_its_indexes,
    a_start_drops_what_was_swapped,
    a_start_leaves_the_old_segments,
    the_clean_offset_is_written_before_the_swap,
    aborted_records_count,
    tombstones_go_with_the_next_compaction,
    the_map_is_one_batch_behind,
]


CAUGHT_BY_STARTS = [a_start_does_not_sync_what_it_found]


def name_of(mutation: Callable[..., object]) -> str:
    return mutation.__name__


@pytest.mark.parametrize("mutation", CAUGHT_BY_CRASHES, ids=name_of)
def test_the_sweep_catches(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises((AssertionError, LogError, OSError)):
        coarse_first(sweep_crashes)


@pytest.mark.parametrize("mutation", CAUGHT_BY_STARTS, ids=name_of)
def test_the_sweep_of_starts_catches(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises((AssertionError, LogError, OSError)):
        coarse_first(sweep_starts)
