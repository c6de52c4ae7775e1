"""A stream app is stopped at operations on the disk, and power is lost; then it runs to its end.

The app counts words through a repartition topic and sums numbers per minute, so that a crash may
fall into any arrow of the commit of either sub-topology, into the creation of topics, into the
deletion of consumed records. Afterwards every input record must have counted exactly once.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from random import Random
from typing import Any

import pytest

from millstream.log import Log
from millstream.log.open import open_log_on
from millstream.log.testing.sim_files import SimFiles
from millstream.streams import App, commit_cycle, tumbling
from shared.running import feed, last_integers, records, to_end
from shared.sweeping import noting

ROWS = [(f"k{n % 7}", {"words": f"w{n % 5} w{n % 3}", "n": n}, n * 1_000) for n in range(240)]
WORDS = Counter(word for _, value, _ in ROWS for word in value["words"].split())
SUMS = Counter({(key, at - at % 60_000): 0 for key, _, at in ROWS})
for _key, _value, _at in ROWS:
    SUMS[_key, _at - _at % 60_000] += _value["n"]


def make_app() -> App:
    app = App("swept", commit_interval_ms=0)
    events = app.topic("events", key=str, value=dict)

    def split(event: dict[str, Any]) -> list[str]:
        return event["words"].split()

    stream = app.stream(events)
    stream.flat_map_values(split).group_by(lambda word: word).count(name="words").changes().to(
        "word-counts"
    )

    @app.table(events, window=tumbling("1m", grace="5s"))
    def sums(total: int, event: dict[str, Any]) -> int:
        return total + event["n"]

    sums.final().to("sums")
    return app


def open_disk(disk: SimFiles) -> Any:
    return open_log_on(disk, "log", url="memory:", config={"flush.threads": 0})


async def fill(disk: SimFiles) -> None:
    async with open_disk(disk) as log:
        for start in range(0, len(ROWS), 40):
            await feed(log, "events", ROWS[start : start + 40], partitions=2)


async def run_on(disk: SimFiles) -> None:
    async with open_disk(disk) as log:
        await to_end(make_app(), log)


async def check(log: Log) -> None:
    assert await last_integers(log, "word-counts") == WORDS
    found: Counter[tuple[str, int]] = Counter()
    for record in await records(log, "sums"):
        key, start = (record.key or b"")[:-8], (record.key or b"")[-8:]
        assert (key.decode(), struct.unpack(">q", start)[0]) not in found
        found[key.decode(), struct.unpack(">q", start)[0]] = int.from_bytes(record.value or b"")
    assert found == SUMS


async def finish_and_check(disk: SimFiles) -> None:
    async with open_disk(disk) as log:
        await to_end(make_app(), log)
        await check(log)


def filled() -> SimFiles:
    disk = SimFiles()
    asyncio.run(fill(disk))
    return disk


async def run_until_crash(disk: SimFiles) -> bool:
    """Whether it crashed. Nothing runs on after the machine has stopped, whoever got the Crash."""
    running = asyncio.create_task(run_on(disk))
    while not (running.done() or disk.crashed):
        await asyncio.wait([running], timeout=0.01)
    if not disk.crashed:
        running.result()
        return False
    everything = asyncio.all_tasks() - {asyncio.current_task()} | {running}
    for task in everything:
        task.cancel()
    await asyncio.wait(everything, timeout=0.2)
    return True


def crashes(disk: SimFiles) -> bool:
    with asyncio.Runner() as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: None)
        return runner.run(run_until_crash(disk))


def sweep(first: int, step: int) -> int:
    before = filled()
    crash_at, count = first, 0
    while True:
        disk = before.after_crash("kept", "kept")
        disk.crash_at = crash_at
        if not crashes(disk):
            return count
        count += 1
        with noting(f"crash at write {crash_at}: {disk.operations[-1]}"):
            asyncio.run(finish_and_check(disk.after_crash(seed=crash_at)))
        crash_at += step


def test_the_app_without_a_crash() -> None:
    disk = filled()
    asyncio.run(finish_and_check(disk))


def test_a_crash_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_cycle, "COST_FACTOR", 0)
    step = 17
    assert sweep(Random().randrange(step), step) > 10


@pytest.mark.slow
@pytest.mark.parametrize("first", range(3))
def test_every_crash_point(first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_cycle, "COST_FACTOR", 0)
    assert sweep(first, 3) > 70
