"""An app process is killed with SIGKILL about every second; every record counts once."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest

from shared.counting_app import (
    check_counts,
    count_command,
    environment,
    write_counted,
    write_counting_app,
)


def log_of(directory: Path) -> str:
    return f"file:{directory / 'log'}"


def command(directory: Path, *options: str) -> list[str]:
    return count_command(directory, log_of(directory), *options)


def prepare(directory: Path, count: int) -> Counter[str]:
    write_counting_app(directory)
    return asyncio.run(write_counted(log_of(directory), count))


def whole_run_s(directory: Path) -> float:
    """How long the app takes over a copy of the input when nobody kills it."""
    copy = directory / "whole"
    copy.mkdir()
    shutil.copytree(directory / "log", copy / "log")
    shutil.copy(directory / "app.py", copy)
    started = time.monotonic()
    subprocess.run(command(copy, "--until-end"), check=True, capture_output=True, env=environment())
    return time.monotonic() - started


def kill_until_done(directory: Path, life_s: float) -> int:
    """Restart after each kill; lives vary, so that kills fall anywhere. Answers the kills."""
    kills = 0
    while True:
        process = subprocess.Popen(
            command(directory, "--until-end", "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        try:
            # Later lives are longer: it must get through in the end, however slow the machine is.
            _, errors = process.communicate(timeout=life_s * random.uniform(0.5, 1.5) * 1.1**kills)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            continue
        assert process.returncode == 0, errors.decode()
        return kills


def test_killed_now_and_then(tmp_path: Path) -> None:
    expected = prepare(tmp_path, 30_000)
    kills = kill_until_done(tmp_path, life_s=0.4 * whole_run_s(tmp_path))
    asyncio.run(check_counts(log_of(tmp_path), expected))
    assert kills > 0


@pytest.mark.slow
@pytest.mark.parametrize("life", ["about a second", "a part of a run"])
def test_killed_again_and_again_over_300_000_records(tmp_path: Path, life: str) -> None:
    expected = prepare(tmp_path, 300_000)
    whole_s = whole_run_s(tmp_path)  # a fast machine is done before a second is over
    life_s = min(1.0, 0.6 * whole_s) if life == "about a second" else 0.3 * whole_s
    kills = kill_until_done(tmp_path, life_s)
    asyncio.run(check_counts(log_of(tmp_path), expected))
    assert kills > 0


def test_sigterm_finishes_the_commit_and_leaves_nothing_to_restore(tmp_path: Path) -> None:
    expected = prepare(tmp_path, 30_000)
    process = subprocess.Popen(
        command(tmp_path, "--json"), stdout=subprocess.PIPE, env=environment()
    )
    wait_for_state(tmp_path)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    first = orjson.loads(output)
    rest = subprocess.run(
        command(tmp_path, "--until-end", "--json"),
        capture_output=True,
        check=True,
        env=environment(),
    )
    second = orjson.loads(rest.stdout)
    assert second["restored"] == 0
    assert first["commits"] > 0
    asyncio.run(check_counts(log_of(tmp_path), expected))


def wait_for_state(directory: Path) -> None:
    """Until the app has committed to its stores at least once."""
    end = time.monotonic() + 30
    while not list((directory / "log-state").glob("kills/count/*/CURRENT")):
        assert time.monotonic() < end
        os.sched_yield()
