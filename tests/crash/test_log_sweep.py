"""The whole log is stopped at every operation on the disk, and at those of its recovery.

The workload, the disks and what must hold on them are in shared/log_sweep.py.
"""

from __future__ import annotations

from typing import Literal

import pytest

from shared.log_sweep import sweep, sweep_errors, sweep_kills, sweep_recovery


def test_crashes_at_many_points() -> None:
    assert sweep(step=4) > 200


@pytest.mark.slow
@pytest.mark.parametrize("offset", range(2))
def test_every_crash_point_on_every_disk(offset: int) -> None:
    assert sweep(step=2, offset=offset, all_of_them=True) > 1200


def test_killed_with_durability_os() -> None:
    assert sweep_kills(step=9) > 40


def test_a_crash_during_recovery() -> None:
    assert sweep_recovery(step=97, inner_step=7) > 50


@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
def test_operations_fail(kind: Literal["EIO", "ENOSPC"]) -> None:
    assert sweep_errors(kind, step=11) > 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
def test_every_operation_fails(kind: Literal["EIO", "ENOSPC"]) -> None:
    assert sweep_errors(kind) > 400


@pytest.mark.slow
def test_a_crash_at_every_point_of_a_recovery() -> None:
    assert sweep_recovery(step=61) > 500
