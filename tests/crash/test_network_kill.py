"""App and server are killed with SIGKILL, at any moment and not at the same one; every record
counts once."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from millstream.log import open_log
from shared.running import feed, last_integers, records
from shared.served_log import ServedLog

APP = textwrap.dedent(
    """
    from millstream.streams import App

    app = App("kills", commit_interval_ms=50)
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


def start(directory: Path, url: str) -> subprocess.Popen[bytes]:
    program = "from millstream.cli.main import main; main()"
    app = str(directory / "app.py")
    return subprocess.Popen(
        [sys.executable, "-c", program, "run", app, "--log", url, "--until-end", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=directory,
    )


def survived(directory: Path, server: ServedLog, url: str, rng: random.Random) -> Counter[str]:
    """Run the app to its end, killing it and the server meanwhile; who was killed."""
    kills: Counter[str] = Counter()
    # A killed app is a member of its group for the rest of its session: its successor waits.
    left = ["app"] * 3 + ["server"] * 10
    rng.shuffle(left)
    app = start(directory, url)
    while left:
        try:
            app.wait(rng.uniform(0.2, 3.0))
            break
        except subprocess.TimeoutExpired:
            victim = left.pop()
        kills[victim] += 1
        if victim == "server":
            server.kill()
            server.start()
        else:
            app.kill()
            app.communicate()
            app = start(directory, url)
    _, errors = app.communicate(timeout=120)
    assert app.returncode == 0, errors.decode()
    return kills


async def written(url: str, count: int) -> Counter[str]:
    rng = random.Random(7)
    rows = [(f"key-{rng.randrange(500)}", {"group": f"g{n % 10}"}, n) for n in range(count)]
    async with open_log(url) as log:
        for at in range(0, count, 10_000):
            await feed(log, "events", rows[at : at + 10_000], partitions=4)
    return Counter(key for key, _, _ in rows)


async def check(url: str, expected: Counter[str]) -> None:
    async with open_log(url) as log:
        assert Counter(await last_integers(log, "counts")) == expected
        assert len(await records(log, "counts")) == expected.total()
        groups = await last_integers(log, "group-counts")
        assert groups == {f"g{n}": expected.total() // 10 for n in range(10)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_app_and_server_are_killed(tmp_path: Path, seed: int) -> None:
    (tmp_path / "app.py").write_text(APP)
    with ServedLog(tmp_path / "served") as server:
        url = f"kafka://{server.address}"
        expected = asyncio.run(written(url, 100_000))
        kills = survived(tmp_path, server, url, random.Random(seed))
        assert kills["server"] > 0
        print(f"killed: {dict(kills)}")
        asyncio.run(check(url, expected))
