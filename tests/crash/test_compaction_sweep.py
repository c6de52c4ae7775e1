"""Compaction is stopped at every operation on the disk, and at those of the start after it.

The workload compacts three times: what is superseded goes, tombstones and markers follow when their
time has come, small segments are merged (shared/compaction_sweep.py). Every disk a power loss may
leave is held against the rules of compaction; whatever operation fails, the log loses nothing.
"""

from __future__ import annotations

import pytest

from shared.compaction_sweep import sweep_crashes, sweep_errors, sweep_starts


def test_crash_points_on_every_disk() -> None:
    assert sweep_crashes(step=61) > 80


@pytest.mark.slow
@pytest.mark.parametrize("offset", range(4))
def test_every_crash_point_on_every_disk(offset: int) -> None:
    assert sweep_crashes(step=4, offset=offset) > 1250


def test_a_crash_during_the_start_after() -> None:
    assert sweep_starts(step=67) > 100


@pytest.mark.slow
@pytest.mark.parametrize("offset", range(0, 28, 4))
def test_a_crash_during_every_fourth_start_after(offset: int) -> None:
    assert sweep_starts(step=28, offset=offset) > 200


@pytest.mark.parametrize(("kind", "step"), [("EIO", 61), ("ENOSPC", 37)])
def test_an_operation_fails(kind: str, step: int) -> None:
    failed, survived = sweep_errors(kind, step=step)
    assert failed > 15
    assert survived > 5, "a compaction that fails stops nothing else"


@pytest.mark.slow
@pytest.mark.parametrize("offset", range(3))
@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
def test_every_operation_fails(kind: str, offset: int) -> None:
    failed, survived = sweep_errors(kind, step=3, offset=offset)
    assert failed > 240
    assert survived > 100
