"""A worker: connectors beside each other, one failing, status and order of a run to the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from millstream.connect import (
    ConnectConfigError,
    ConnectorFailedError,
    SinkBatch,
    State,
    Worker,
    sink,
    source,
)
from millstream.log import open_log
from shared.topics import values_of


@source(topic="good", name="good-source")
async def good(position: int | None) -> AsyncIterator[tuple[Any, int]]:
    for n in range(position or 0, 3):
        yield n, n + 1


@source(topic="bad", name="bad-source")
async def bad(position: int | None) -> AsyncIterator[tuple[Any, int]]:
    yield "first", 1
    raise ZeroDivisionError("a bug in the connector")


def test_a_failed_connector_is_kept_with_its_trace_and_the_others_go_on() -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            worker = Worker(log, [bad, good], until_end=True)
            assert [status.state for status in worker.status()] == [State.UNASSIGNED] * 2
            with pytest.raises(ConnectorFailedError, match="a bug in the connector") as raised:
                await worker.run()
            assert raised.value.names == ("bad-source",)
            failed, finished = worker.status()
            assert (failed.state, failed.records) == (State.FAILED, 1)
            assert "ZeroDivisionError: a bug in the connector" in failed.trace
            assert (finished.state, finished.records, finished.trace) == (State.FINISHED, 3, "")
            assert await values_of(log, "good") == [0, 1, 2]
            shape = failed.as_dict("here:8083")
            assert shape["name"] == "bad-source"
            assert shape["type"] == "source"
            assert shape["connector"]["state"] == "FAILED"
            assert shape["tasks"][0]["worker_id"] == "here:8083"
            assert "ZeroDivisionError" in shape["tasks"][0]["trace"]

    asyncio.run(check())


def test_two_connectors_of_one_name_are_refused() -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            with pytest.raises(ConnectConfigError, match="'good-source'") as raised:
                Worker(log, [good, bad, good], until_end=True)
            assert "is the name of more than one connector" in str(raised.value)

    asyncio.run(check())


def test_to_the_end_sources_run_before_sinks() -> None:
    seen: list[int] = []

    @sink("good")
    async def take(records: SinkBatch) -> None:
        seen.extend(record.value for record in records)

    async def check() -> None:
        async with open_log("memory:") as log:
            await Worker(log, [take, good], until_end=True).run()

    asyncio.run(check())
    assert seen == [0, 1, 2]


def test_cancelled_it_stops_every_connector() -> None:
    async def check() -> None:
        running = asyncio.Event()
        never = asyncio.Event()

        @source(topic="t", name="endless")
        async def endless(position: int | None) -> AsyncIterator[tuple[Any, int]]:
            running.set()
            await never.wait()
            yield 1, 1

        async with open_log("memory:") as log:
            worker = Worker(log, [endless, good], until_end=False)
            job = asyncio.create_task(worker.run())
            await running.wait()
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job
            assert {status.state for status in worker.status()} == {State.STOPPED}

    asyncio.run(check())
