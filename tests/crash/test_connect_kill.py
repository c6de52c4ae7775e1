"""Connectors in real processes, killed with SIGKILL at random moments and started again.

However often that happens: the topic holds every row of the file once, in the order of the file;
the table every record once; and each record that fits neither has one dead letter.
"""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from shared.killed_connectors import KilledSink, KilledSource, connect_command


def log_of(folder: Path) -> str:
    return f"file:{folder / 'log'}"


def command(folder: Path, config: str) -> list[str]:
    return connect_command(folder, config, log_of(folder))


def whole_run(folder: Path, config: str) -> float:
    """Run to the end; how long it took in seconds."""
    started = time.monotonic()
    result = subprocess.run(
        command(folder, config), cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return time.monotonic() - started


def kill_until_done(folder: Path, config: str, kills: int, longest_s: float, seed: int) -> int:
    """Start and kill after a random time until it is done, or `kills` times; then let it finish.
    Kills that landed."""
    rng = random.Random(seed)
    landed = 0
    for _ in range(kills):
        process = subprocess.Popen(
            command(folder, config),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(timeout=rng.uniform(0.2, longest_s))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            landed += 1
    whole_run(folder, config)
    return landed


def check_source(folder: Path, kills: int, seed: int, count: int, longest_s: float) -> int:
    source = KilledSource(folder, count)
    landed = kill_until_done(folder, source.config, kills, longest_s, seed)
    source.check(log_of(folder))
    return landed


def check_sink(folder: Path, kills: int, seed: int, count: int, longest_s: float) -> int:
    sink = KilledSink(folder, log_of(folder), count)
    landed = kill_until_done(folder, sink.config, kills, longest_s, seed)
    sink.check(log_of(folder))
    return landed


def source_rounds(tmp_path: Path, kills: int, count: int) -> None:
    source = KilledSource(tmp_path / "whole", count)
    longest_s = whole_run(tmp_path / "whole", source.config)
    landed = 0
    while landed < kills:
        seed = random.randrange(2**32)
        folder = tmp_path / f"seed-{seed}"
        landed += check_source(folder, min(kills, 10), seed, count, longest_s)


def sink_rounds(tmp_path: Path, kills: int, count: int) -> None:
    folder = tmp_path / "whole"
    sink = KilledSink(folder, log_of(folder), count)
    longest_s = whole_run(folder, sink.config)
    landed = 0
    while landed < kills:
        seed = random.randrange(2**32)
        landed += check_sink(tmp_path / f"seed-{seed}", min(kills, 10), seed, count, longest_s)


def test_a_killed_file_source_writes_every_row_once(tmp_path: Path) -> None:
    source_rounds(tmp_path, kills=3, count=4_000)


def test_a_killed_sql_sink_delivers_every_record_once(tmp_path: Path) -> None:
    sink_rounds(tmp_path, kills=3, count=2_000)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # lives are measured in whole runs, and these in how busy the machine is
def test_twenty_kills_of_a_file_source(tmp_path: Path) -> None:
    source_rounds(tmp_path, kills=20, count=10_000)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # lives are measured in whole runs, and these in how busy the machine is
def test_twenty_kills_of_a_sql_sink(tmp_path: Path) -> None:
    sink_rounds(tmp_path, kills=20, count=5_000)
