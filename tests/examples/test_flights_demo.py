"""`millstream demo` as a user runs it: exact figures, other months, and any number of kills."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from pathlib import Path

import orjson
import pytest

from millstream.log import TopicPartition, open_log
from shared.flights import (
    JANUARY,
    Row,
    demo,
    expected_table,
    make_month,
    run_demo,
    stored_table,
)


def january_totals(table: list[Row]) -> tuple[int, ...]:
    return len(table), *(sum(row[column] for row in table) for column in range(3, 7))


async def committed_days(directory: Path) -> list[Row]:
    """All read_committed records of carrier-daily, as rows; a doubled one shows up twice."""
    rows = []
    async with open_log(f"file:{directory / 'log'}") as log:
        description = await log.describe_topic("carrier-daily")
        partitions = [
            TopicPartition("carrier-daily", number) for number in range(description.partitions)
        ]
        async with log.consumer() as consumer:
            await consumer.assign(partitions)
            while any((await consumer.lag()).values()):
                for batch in await consumer.poll_batches():
                    rows += [tuple(orjson.loads(value or b"").values()) for value in batch.values]
    return sorted(rows)


def check(directory: Path, expected: list[Row]) -> None:
    assert stored_table(directory / "demo.db") == expected
    assert asyncio.run(committed_days(directory)) == expected


def test_january_gives_exactly_the_known_figures(tmp_path: Path) -> None:
    printed = run_demo(tmp_path / "demo")
    table = stored_table(tmp_path / "demo" / "demo.db")
    assert january_totals(table) == (471, 27_004, 521, 4_918, 341_410)
    check(tmp_path / "demo", expected_table(JANUARY))
    assert "records/s" in printed


@pytest.mark.parametrize("seed", [1, 5])
def test_any_other_month_gives_what_an_independent_computation_gives(
    tmp_path: Path, seed: int
) -> None:
    flights = tmp_path / "other.csv"
    make_month(flights, seed)
    run_demo(tmp_path / "demo", "--flights", str(flights))
    check(tmp_path / "demo", expected_table(flights))


def test_a_second_run_over_the_same_directory_changes_nothing(tmp_path: Path) -> None:
    flights = tmp_path / "other.csv"
    make_month(flights, 3)
    for _ in range(2):
        run_demo(tmp_path / "demo", "--flights", str(flights))
        check(tmp_path / "demo", expected_table(flights))


def test_another_file_over_the_same_directory_is_refused(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        make_month(tmp_path / name, 2)
    run_demo(tmp_path / "demo", "--flights", str(tmp_path / "a.csv"))
    result = subprocess.run(
        demo(tmp_path / "demo", "--flights", str(tmp_path / "b.csv")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "a.csv" in result.stderr
    assert "--dir" in result.stderr


def kill_and_finish(directory: Path, kills: int, whole_run_s: float, rng: random.Random) -> int:
    """Start, SIGKILL after a random part of a whole run, `kills` times; then let it finish."""
    landed = 0
    for _ in range(kills):
        process = subprocess.Popen(
            demo(directory), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(timeout=rng.uniform(0.1, whole_run_s))
        except subprocess.TimeoutExpired:
            process.kill()
            landed += 1
        process.wait()
    run_demo(directory)
    return landed


def kill_rounds(tmp_path: Path, kills: int, kills_per_directory: int, seed: int) -> None:
    started = time.monotonic()
    run_demo(tmp_path / "whole")
    whole_run_s = time.monotonic() - started
    expected = expected_table(JANUARY)
    rng = random.Random(seed)
    landed = 0
    number = 0
    while landed < kills:
        directory = tmp_path / f"killed-{number}"
        number += 1
        landed += kill_and_finish(directory, kills_per_directory, whole_run_s, rng)
        check(directory, expected)


def test_killed_and_restarted_it_ends_the_same(tmp_path: Path) -> None:
    kill_rounds(tmp_path, kills=4, kills_per_directory=4, seed=random.randrange(2**32))


@pytest.mark.slow
def test_killed_at_twenty_random_instants_it_ends_the_same(tmp_path: Path) -> None:
    kill_rounds(tmp_path, kills=20, kills_per_directory=5, seed=random.randrange(2**32))
