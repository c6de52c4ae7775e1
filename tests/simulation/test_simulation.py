"""Many seeds of the simulation; the same seed is the same run; and it is not idle.

    python tests/simulation/run.py --seeds 10000 --jobs 2

does more of them, and `--seed N --trace` shows one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from simulation.simulation import simulate

RUN = Path(__file__).with_name("run.py")
SEEDS = 180
MORE_SEEDS = range(100_000, 100_600)
SHARD = 300

HAPPENS = (
    # what every few hundred seeds must contain, or they prove less than they seem to
    "records",
    "delivered",
    "segments",
    "committed",
    "aborted",
    "chained",
    "rebalances",
    "power losses",
    "kill",
    "closed",
    "jump",
    "cancellations",
    "interrupted",
    "fault",
    "fault EIO fsync",
    "fault ENOSPC append",
    "not opened",
    "not closed well",
    "deleted topic",
    "deleted records",
    "ProducerFencedError",
    "StorageError",
    "LogClosedError",
    "compared",
    "segments deleted by retention",
    "compactions",
    "records compacted away",
    "altered",
    "terminated",
    "looked up a time",
)


def test_seeds() -> None:
    total: Counter[str] = Counter()
    for seed in range(SEEDS):
        total += simulate(seed)
    missing = [what for what in HAPPENS if not total[what]]
    assert missing == [], f"{SEEDS} seeds without these prove nothing about them"


@pytest.mark.slow
@pytest.mark.parametrize("first", MORE_SEEDS[::SHARD])
def test_more_seeds(first: int) -> None:
    command = [sys.executable, RUN, "--first", str(first), "--seeds", str(SHARD), "--jobs", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-1000:]
    assert f"{SHARD} seeds from {first} are green" in done.stdout


def test_a_seed_is_one_run_whatever_the_process() -> None:
    def trace(seed: int, hash_seed: str) -> str:
        done = subprocess.run(
            [sys.executable, RUN, "--seed", str(seed), "--trace"],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "digest" in done.stdout
        return done.stdout

    for seed in (3, 7, 24):
        assert trace(seed, "1") == trace(seed, "2")
    assert trace(3, "0") != trace(4, "0")
