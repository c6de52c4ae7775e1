"""EIO at every operation, reads too, and ENOSPC at every write, while the whole log works.

Each surfaces as a LogError that names the place and the remedy, or does no harm; what was
acknowledged before and after it is there when the log is opened again; the rest of the log goes on;
nothing hangs and nothing is left behind. The workload and the checks are in shared/error_sweep.py.
"""

from __future__ import annotations

import pytest

from shared.error_sweep import Kind, sweep


@pytest.mark.parametrize(("kind", "step"), [("EIO", 61), ("ENOSPC", 71), ("full", 47)])
def test_operations_fail(kind: Kind, step: int) -> None:
    assert sweep(kind, step=step) > 10


@pytest.mark.slow
@pytest.mark.parametrize("offset", range(3))
@pytest.mark.parametrize("kind", ["EIO", "ENOSPC", "full"])
def test_every_operation_fails(kind: Kind, offset: int) -> None:
    assert sweep(kind, step=3, offset=offset) > 200
