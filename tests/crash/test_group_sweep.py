"""Committed offsets survive a stop at every operation on the disk; and the sweep finds bugs.

The workload and what must hold are in shared/group_sweep.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from millstream.log.broker.offset_coordinator import OffsetCoordinator
from millstream.log.broker.offsets import OffsetLoader
from millstream.log.errors import LogError
from shared.group_sweep import sweep
from shared.offset_mutations import aborted_offsets_count_after_a_restart
from shared.sweeping import coarse_first

Patch = pytest.MonkeyPatch


def test_crashes_at_many_points() -> None:
    assert sweep(step=9) > 60


@pytest.mark.slow
@pytest.mark.parametrize("offset", range(4))
def test_every_crash_point_on_every_disk(offset: int) -> None:
    assert sweep(step=4, offset=offset, all_of_them=True) > 800


def commits_count_before_they_are_durable(patch: Patch) -> None:
    async def then(self: Any, where: Any, end: int, apply: Callable[[], None]) -> None:
        apply()

    patch.setattr(OffsetCoordinator, "_then", then)


def tombstones_are_not_written(patch: Patch) -> None:

    async def forget(self: Any, gone: Iterable[tuple[str, set[Any]]], **_whole: Any) -> None:
        for group, partitions in gone:
            for each in partitions:
                self._offsets._committed.get(group, {}).pop(each, None)

    patch.setattr(OffsetCoordinator, "_forget", forget)


def transactions_count_when_they_began(patch: Patch) -> None:
    """An offset counts from its own record on, not from its transaction's marker."""
    original = OffsetLoader.add

    def add(self: Any, header: Any, columns: Any) -> None:
        if header.is_transactional and not header.is_control:
            rows = zip(columns.values, columns.offsets, strict=True)
            self._newest.update(zip(columns.keys, rows, strict=True))
        else:
            original(self, header, columns)

    patch.setattr(OffsetLoader, "add", add)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutation",
    [
        commits_count_before_they_are_durable,
        tombstones_are_not_written,
        aborted_offsets_count_after_a_restart,
        transactions_count_when_they_began,
    ],
    ids=lambda mutation: mutation.__name__,
)
def test_the_sweep_catches(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises((AssertionError, LogError)):
        coarse_first(sweep)
