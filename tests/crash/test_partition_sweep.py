"""A partition is stopped at every operation on the disk, and at every one of its recovery.

The workload produces, retries, commits, aborts, deletes and restarts over several small segments
(shared/partition_sweep.py). At every write operation the machine stops; of each moment a dozen
disks are built that a power loss allows, and the log that opens there is held against what was
promised: all acknowledged records, nothing invented, order kept, no gap, no aborted record visible,
indexes and producer state true, and the same again after another crash.
"""

from __future__ import annotations

import pytest

from shared.partition_sweep import sweep_crashes, sweep_errors, sweep_recovery


def test_every_crash_point_on_every_disk() -> None:
    assert sweep_crashes() > 1000


def test_a_crash_during_recovery() -> None:
    assert sweep_recovery(step=23) > 50


@pytest.mark.slow
def test_a_crash_during_recovery_from_every_second_crash_point() -> None:
    assert sweep_recovery(step=2) > 500


@pytest.mark.parametrize(("kind", "step"), [("EIO", 7), ("ENOSPC", 2)])
def test_an_operation_fails(kind: str, step: int) -> None:
    assert sweep_errors(kind, step=step) > 100


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
def test_every_operation_fails(kind: str) -> None:
    assert sweep_errors(kind) > 200
