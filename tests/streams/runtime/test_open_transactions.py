"""Runs to the end wait for the transactions that others have open: what they commit is part of what
there is, and on Apache Kafka a transaction is open for a moment after its commit has returned."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from millstream.log import Log, open_log
from millstream.log import reading_end as reading_end_module
from millstream.streams import App, RunResult
from millstream.streams.compare import compare_replay
from millstream.streams.replay import When, prepare_replay
from shared.running import feed, last_integers, records, to_end


def counter() -> App:
    app = App("counter")
    events = app.topic("events", key=str, value=dict)

    @app.table(events)
    def count(total: int, event: dict[str, Any]) -> int:
        return total + 1

    count.changes().to("counts")
    return app


async def until_it_waits(running: asyncio.Task[Any]) -> None:
    """It does not end, although it has all the time it needs for what it may read."""
    done, _ = await asyncio.wait([running], timeout=0.5)
    assert not done, "it did not wait for the transaction"


@pytest.mark.parametrize("is_committed", [True, False])
def test_an_open_transaction_is_waited_for(is_committed: bool) -> None:
    async def main() -> None:
        async with open_log("memory:") as log, log.producer(transactional_id="other") as producer:
            await feed(log, "events", [("a", {}, 1)])
            await producer.begin_transaction()
            await producer.send("events", b"{}", key=b"a")
            await producer.flush()
            await feed(log, "events", [("b", {}, 2)])
            running = asyncio.create_task(to_end(counter(), log))
            await until_it_waits(running)
            if is_committed:
                await producer.commit_transaction()
            else:
                await producer.abort_transaction()
            assert (await running).stats.records == 2 + is_committed
            assert await last_integers(log, "counts") == {"a": 1 + is_committed, "b": 1}

    asyncio.run(main())


def test_a_producer_that_never_ends_its_transaction_is_waited_for_until_its_time_is_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reading_end_module, "_TELLS_AFTER_S", 0.05)

    async def main() -> None:
        settings = {"transaction.timeout.ms": 1000}
        async with (
            open_log("memory:") as log,
            log.producer(transactional_id="other", config=settings) as producer,
        ):
            await feed(log, "events", [("a", {}, 1)])
            await producer.begin_transaction()
            await producer.send("events", b"{}", key=b"a")
            await producer.flush()
            with caplog.at_level(logging.WARNING, "millstream.log"):
                assert (await to_end(counter(), log)).stats.records == 1

    asyncio.run(main())
    [told] = [each.getMessage() for each in caplog.records if "reading to its end" in each.message]
    assert told.startswith("Partition events-0: reading to its end, offset 2, waits at offset 1 ")


def enriching() -> App:
    app = App("enriching")
    names = app.topic("names", key=str, value=str)
    events = app.topic("events", key=str, value=dict)

    def named(event: dict[str, Any], name: str | None) -> dict[str, Any]:
        return {"name": name}

    app.stream(events).left_join(names.table(), named).to("named")
    return app


def globally_enriching() -> App:
    app = App("enriching")
    names = app.global_table(app.topic("names", key=str, value=str), name="names")
    events = app.topic("events", key=str, value=dict)

    def named(event: dict[str, Any], name: str | None) -> dict[str, Any]:
        return {"name": name}

    app.stream(events).left_join(names, named, key=lambda event: event["of"]).to("named")
    return app


@pytest.mark.parametrize("make", [enriching, globally_enriching])
def test_what_a_join_looks_up_is_there_although_its_transaction_was_open(make: Any) -> None:
    """Of a table's topic that is not decided yet more may come: the stream must wait for it."""

    async def main() -> None:
        async with open_log("memory:") as log, log.producer(transactional_id="other") as producer:
            await feed(log, "names", [("b", b"Bert", 0)])
            await feed(log, "events", [("a", {"of": "a"}, 10), ("b", {"of": "b"}, 11)])
            await producer.begin_transaction()
            await producer.send("names", b"Anna", key=b"a", timestamp=1)
            await producer.flush()
            running: asyncio.Task[RunResult] = asyncio.create_task(to_end(make(), log))
            await until_it_waits(running)
            await producer.commit_transaction()
            await running
            found = [record.value for record in await records(log, "named")]
            assert found == [b'{"name":"Anna"}', b'{"name":"Bert"}']

    asyncio.run(main())


async def original_and_replay(log: Log) -> Any:
    await feed(log, "events", [("a", {}, 1), ("b", {}, 2)])
    await to_end(counter(), log)
    replay = await prepare_replay(counter(), log, replay_id="again", start=When(None))
    await replay.run(asyncio.Event())
    return replay


def test_a_comparison_takes_in_what_was_just_written() -> None:
    async def main() -> None:
        async with open_log("memory:") as log, log.producer(transactional_id="other") as producer:
            replay = await original_and_replay(log)
            await producer.begin_transaction()
            await producer.send("counts", (7).to_bytes(8, "big"), key=b"a", timestamp=3)
            await producer.flush()
            running = asyncio.create_task(compare_replay(replay))
            await until_it_waits(running)
            await producer.commit_transaction()
            [compared] = await running
            assert compared.same == 1
            [different] = compared.differences
            assert (different.key, different.old, different.new) == ("a", 7, 1)

    asyncio.run(main())


def test_a_replay_up_to_a_time_ends_there_although_a_transaction_is_open() -> None:
    async def main() -> None:
        async with open_log("memory:") as log, log.producer(transactional_id="other") as producer:
            await feed(log, "events", [("a", {}, 1), ("a", {}, 1000)])
            await producer.begin_transaction()
            await producer.send("events", b"{}", key=b"a", timestamp=2000)
            await producer.flush()
            replay = await prepare_replay(
                counter(), log, replay_id="again", start=When(None), end=When(1000)
            )
            assert (await replay.run(asyncio.Event())).stats.records == 1
            await producer.commit_transaction()

    asyncio.run(main())
