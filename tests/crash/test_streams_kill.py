"""An app process is killed with SIGKILL about every second; every record counts once."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import orjson
import pytest

from millstream.log import open_log
from shared.running import feed, last_integers, records

APP = textwrap.dedent(
    """
    from millstream.streams import App

    app = App("kills")
    events = app.topic("events", key=str, value=dict)


    @app.table(events)
    def count(total: int, event: dict) -> int:
        return total + 1


    count.changes().to("counts")


    @app.table(events, key=lambda event: event["group"])
    def by_group(total: int, event: dict) -> int:
        return total + 1


    by_group.changes().to("group-counts")
    """
)


def command(directory: Path, *options: str) -> list[str]:
    program = "from millstream.cli.main import main; main()"
    app = str(directory / "app.py")
    log = f"file:{directory / 'log'}"
    return [sys.executable, "-c", program, "run", app, "--log", log, *options]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def prepare(directory: Path, count: int) -> Counter[str]:
    (directory / "app.py").write_text(APP)
    rng = random.Random(7)
    rows = [(f"key-{rng.randrange(500)}", {"group": f"g{n % 10}"}, n) for n in range(count)]

    async def write() -> None:
        async with open_log(f"file:{directory / 'log'}") as log:
            for start in range(0, count, 10_000):
                await feed(log, "events", rows[start : start + 10_000], partitions=4)

    asyncio.run(write())
    return Counter(key for key, _, _ in rows)


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


async def check(directory: Path, expected: Counter[str]) -> None:
    async with open_log(f"file:{directory / 'log'}") as log:
        counts = await last_integers(log, "counts")
        assert sum(counts.values()) == expected.total()
        assert counts == expected
        assert len(await records(log, "counts")) == expected.total()
        groups = await last_integers(log, "group-counts")
        assert groups == {f"g{n}": expected.total() // 10 for n in range(10)}


def test_killed_now_and_then(tmp_path: Path) -> None:
    expected = prepare(tmp_path, 30_000)
    kills = kill_until_done(tmp_path, life_s=0.4 * whole_run_s(tmp_path))
    asyncio.run(check(tmp_path, expected))
    assert kills > 0


@pytest.mark.slow
@pytest.mark.parametrize("life", ["about a second", "a part of a run"])
def test_killed_again_and_again_over_300_000_records(tmp_path: Path, life: str) -> None:
    expected = prepare(tmp_path, 300_000)
    whole_s = whole_run_s(tmp_path)  # a fast machine is done before a second is over
    life_s = min(1.0, 0.6 * whole_s) if life == "about a second" else 0.3 * whole_s
    kills = kill_until_done(tmp_path, life_s)
    asyncio.run(check(tmp_path, expected))
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
    asyncio.run(check(tmp_path, expected))


def wait_for_state(directory: Path) -> None:
    """Until the app has committed to its stores at least once."""
    end = time.monotonic() + 30
    while not list((directory / "log-state").glob("kills/count/*/CURRENT")):
        assert time.monotonic() < end
        os.sched_yield()
