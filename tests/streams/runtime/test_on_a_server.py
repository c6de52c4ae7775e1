"""Apps and connectors on a log over the network: the same, exactly once."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from millstream.connect import SinkBatch, Worker, sink, source
from millstream.log import Log, OffsetAndMetadata, TopicPartition, open_log
from millstream.streams import App, run_app
from shared.running import feed, last_integers, records, to_end


@pytest.fixture
def url(kafka_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A log's; state lies in the current folder, which is the test's."""
    monkeypatch.chdir(tmp_path)
    return kafka_url


def counter() -> App:
    app = App("counter", commit_interval_ms=20)
    events = app.topic("events", key=str, value=dict, partitions=4)

    @app.table(events)
    def count(total: int, event: dict[str, Any]) -> int:
        return total + 1

    count.changes().to("counts")

    @app.table(events, key=lambda event: event["group"])
    def by_group(total: int, event: dict[str, Any]) -> int:
        return total + 1

    by_group.changes().to("group-counts")
    return app


def rows(count: int) -> list[tuple[str, Any, int]]:
    return [(f"key-{n % 50}", {"group": f"g{n % 10}"}, n) for n in range(count)]


async def check(log: Log, runs: int) -> None:
    counts = await last_integers(log, "counts")
    assert counts == {f"key-{n}": 40 * runs for n in range(50)}
    assert len(await records(log, "counts")) == 2000 * runs
    assert await last_integers(log, "group-counts") == {f"g{n}": 200 * runs for n in range(10)}


def test_counts_are_exact_over_runs_and_lost_state(url: str, tmp_path: Path) -> None:
    async def main() -> None:
        async with open_log(url) as log:
            for run in range(1, 4):
                if run == 3:
                    shutil.rmtree(tmp_path / "millstream-state")
                await feed(log, "events", rows(2000), partitions=4)
                result = await to_end(counter(), log)
                assert (result.reached_end, result.stats.records) == (True, 4000)
                assert bool(result.stats.restored) is (run == 3)
                await check(log, run)

    asyncio.run(main())


def test_an_app_that_runs_on_sees_what_comes(url: str) -> None:
    async def main() -> None:
        async with open_log(url) as log:
            await feed(log, "events", rows(0), partitions=4)
            stop = asyncio.Event()
            running = asyncio.create_task(run_app(counter(), log=log, stop=stop))
            await feed(log, "events", rows(2000), partitions=4)
            async with log.consumer("counts", group="reader") as consumer, asyncio.timeout(30):
                left = 2000
                while left:
                    left -= sum(map(len, await consumer.poll_batches(1000)))
                while sum((await last_integers(log, "group-counts")).values()) < 2000:
                    pass
            stop.set()
            await running
            await check(log, 1)

    asyncio.run(main())


@source(topic="numbers", name="numbers")
async def numbers(position: int | None) -> AsyncIterator[tuple[Any, int]]:
    for number in range(position or 0, 500):
        yield number, number + 1


def test_connectors(url: str) -> None:
    got: list[int] = []

    @sink("numbers", name="collector")
    async def collect(batch: SinkBatch) -> None:
        got.extend(batch.values)

    async def main() -> None:
        async with open_log(url) as log:
            await Worker(log, [numbers, collect], until_end=True).run()
            assert got == list(range(500))
            await Worker(log, [numbers, collect], until_end=True).run()
            assert got == list(range(500))
            at = TopicPartition("numbers", 0)
            (listed,) = [each for each in await log.groups() if "collector" in each.group]
            end = (await log.end_offsets([at]))[at]
            assert (await log.group_offsets(listed.group))[at] == OffsetAndMetadata(end)

    asyncio.run(main())
