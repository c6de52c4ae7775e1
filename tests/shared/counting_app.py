"""An app that counts, as a command that may be killed: what it reads, and what must come out."""

from __future__ import annotations

import os
import random
import sys
import textwrap
from collections import Counter
from pathlib import Path

from millstream.log import open_log
from shared.running import decided, feed, last_integers, records

__all__ = ["check_counts", "count_command", "environment", "write_counted", "write_counting_app"]

APP = textwrap.dedent(
    """
    from millstream.streams import App

    app = App("kills"%s)
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


def write_counting_app(directory: Path, options: str = "") -> None:
    """`app.py`; `options` are further arguments of its App."""
    (directory / "app.py").write_text(APP % (options and f", {options}"))


def count_command(directory: Path, url: str, *options: str) -> list[str]:
    """The app in this directory as a user runs it."""
    program = "from millstream.cli.main import main; main()"
    app = str(directory / "app.py")
    return [sys.executable, "-c", program, "run", app, "--log", url, *options]


def environment() -> dict[str, str]:
    """In which a command imports what this process does."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


async def write_counted(url: str, count: int) -> Counter[str]:
    """The app's input; how many records of each key."""
    rng = random.Random(7)
    rows = [(f"key-{rng.randrange(500)}", {"group": f"g{n % 10}"}, n) for n in range(count)]
    async with open_log(url) as log:
        for at in range(0, count, 10_000):
            await feed(log, "events", rows[at : at + 10_000], partitions=4)
    return Counter(key for key, _, _ in rows)


async def check_counts(url: str, expected: Counter[str]) -> None:
    """Every record was counted once, and each count written once."""
    async with open_log(url) as log:
        await decided(log, "counts", "group-counts")
        counts = await last_integers(log, "counts")
        off = {key: found for key, found in counts.items() if found != expected[key]}
        assert sum(counts.values()) == expected.total(), off
        assert counts == expected
        assert len(await records(log, "counts")) == expected.total()
        groups = await last_integers(log, "group-counts")
        assert groups == {f"g{n}": expected.total() // 10 for n in range(10)}
