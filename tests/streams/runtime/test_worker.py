"""The worker while it runs: stops, idle time-outs, several of them, reading their stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from millstream.log import Log, TopicPartition, open_log
from millstream.log.testing.fake_clock import FakeClock
from millstream.streams import App, ProcessingError, Windowed, commit_cycle, run_app, tumbling
from millstream.streams.global_tables import GlobalTables
from millstream.streams.queries import UnknownStoreError
from millstream.streams.run_context import RunContext
from millstream.streams.worker import Worker
from shared.running import feed, last_integers, records

MINUTE_MS = 60_000


def counter(app_id: str = "counter", **options: Any) -> App:
    app = App(app_id, commit_interval_ms=5, **options)
    events = app.topic("events", key=str, value=dict, partitions=4)

    @app.table(events)
    def count(total: int, event: dict[str, Any]) -> int:
        return total + 1

    count.changes().to("counts")
    return app


def windowed(idle_timeout: str | None) -> App:
    app = App("windowed", commit_interval_ms=5, idle_timeout=idle_timeout)
    events = app.topic("events", key=str, value=dict, partitions=1)

    @app.table(events, window=tumbling("1m", grace="10s"))
    def total(total: int, event: dict[str, Any]) -> int:
        return total + event["n"]

    total.final().to("totals")
    return app


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.002)


async def count_of(log: Log, topic: str) -> int:
    return sum((await log.end_offsets([TopicPartition(topic, n) for n in range(4)])).values())


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[asyncio.Task[bool]]:
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop=stop))
    try:
        yield task
        stop.set()
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def app_running(app: App, log: Log) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(run_app(app, log=log, stop=stop))
    try:
        yield
        stop.set()
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_records_are_processed_as_they_come() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            async with app_running(counter(), log):
                await until(lambda: exists(log, "events"))
                for n in range(5):
                    await feed(log, "events", [("a", {}, n)])
                    await until(lambda n=n: has_count(log, "a", n + 1))

    asyncio.run(main())


def test_slow_functions_get_few_records_at_once() -> None:
    """Nothing else runs for as long as a batch takes: no commit, no sink, no heartbeat."""

    async def main() -> None:
        async with open_log("memory:") as log:
            clock = FakeClock()
            app = App("slow")
            events = app.topic("events", key=str, value=dict, partitions=1)

            def work(event: dict[str, Any]) -> dict[str, Any]:
                clock.advance(50)
                return event

            app.stream(events).map_values(work).to("done")
            worker = Worker(RunContext.of(app, log)._replace(clock=clock))
            async with running(worker):
                for rounds in (1, 2):
                    commits = worker.stats().commits
                    await until(lambda: exists(log, "events"))
                    await feed(log, "events", [("a", {}, 1)] * 100)
                    await until(lambda n=rounds: returns(worker.stats().records == 100 * n))
                assert worker.stats().commits - commits > 40

    asyncio.run(main())


def test_much_state_does_not_wait_for_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit_cycle, "DIRTY_ENTRIES_MAX", 50)

    async def main() -> None:
        async with open_log("memory:") as log:
            app = counter()
            app.commit_interval_ms = 3_600_000
            clock = FakeClock()
            worker = Worker(RunContext.of(app, log)._replace(clock=clock))
            async with running(worker):
                await until(lambda: exists(log, "events"))
                for part in range(3):
                    await feed(log, "events", [(f"k{part}-{n}", {}, n) for n in range(20)])
                    await until(lambda n=part: returns(worker.stats().records == 20 * n + 20))
                assert await count_of(log, "counts") == 0
                clock.advance(100)
                await until(lambda: has_records(log, "counts", 60))

    asyncio.run(main())


def test_stores_are_flushed_now_and_then(tmp_path: Path) -> None:
    """So that a crash after weeks without a restart has little to restore (trap 1)."""

    def files() -> list[Path]:
        return list(tmp_path.glob("log-state/counter/count/*/*.sst"))

    async def main() -> None:
        async with open_log(f"file:{tmp_path / 'log'}") as log:
            await feed(log, "events", [("a", {}, 1)], partitions=4)
            clock = FakeClock()
            worker = Worker(RunContext.of(counter(), log)._replace(clock=clock))
            async with running(worker):
                for minutes in (1, 9):
                    assert files() == []
                    clock.advance(minutes * MINUTE_MS)
                    commits = worker.stats().commits
                    await feed(log, "events", [("a", {}, 1)])
                    await until(lambda n=commits: returns(worker.stats().commits > n))
                await until(lambda: returns(len(files()) == 1))

    asyncio.run(main())


async def exists(log: Log, topic: str) -> bool:
    return topic in await log.topics()


async def has_count(log: Log, key: str, count: int) -> bool:
    return await exists(log, "counts") and (await last_integers(log, "counts")).get(key) == count


def test_a_stop_commits_what_was_processed() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", [(f"k{n}", {}, n) for n in range(100)], partitions=4)
            app = counter()
            app.commit_interval_ms = 3_600_000
            worker = Worker(RunContext.of(app, log))
            async with running(worker):
                await until(lambda: returns(worker.stats().records == 100))
                assert await count_of(log, "counts") == 0
            assert len(await records(log, "counts")) == 100
            offsets = await log.group_offsets("counter")
            assert sum(offset.offset for offset in offsets.values()) == 100

    asyncio.run(main())


async def returns(value: bool) -> bool:
    return value


def test_silence_closes_windows_and_that_is_remembered() -> None:
    """Trap 3: after a restart, a record for the closed window is late as it was before."""

    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", [("a", {"n": 1}, 1_000)])
            clock = FakeClock()
            context = RunContext.of(windowed("30s"), log)._replace(clock=clock)
            worker = Worker(context)
            async with running(worker):
                await until(lambda: returns(worker.stats().records == 1))
                clock.advance(60_000)
                await wait_for_turns(worker, 3)
                assert await records(log, "totals") == []
                clock.advance(10_000)
                await until(lambda: has_records(log, "totals", 1))
            again = Worker(context._replace(clock=FakeClock()))
            async with running(again):
                await feed(log, "events", [("a", {"n": 5}, 2_000)])
                await until(lambda: returns(again.stats().late == 1))
            assert len(await records(log, "totals")) == 1

    asyncio.run(main())


def test_without_idle_timeout_windows_stay_open() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", [("a", {"n": 1}, 1_000)])
            clock = FakeClock()
            worker = Worker(RunContext.of(windowed(None), log)._replace(clock=clock))
            async with running(worker):
                await until(lambda: returns(worker.stats().records == 1))
                clock.advance(10 * MINUTE_MS)
                await wait_for_turns(worker, 3)
            assert await records(log, "totals") == []

    asyncio.run(main())


async def wait_for_turns(worker: Worker, count: int) -> None:
    """Until the loop has gone round; a poll without records waits a tenth of a second."""
    seen = worker.stats().turns
    await until(lambda: returns(worker.stats().turns >= seen + count))


async def has_records(log: Log, topic: str, count: int) -> bool:
    return await exists(log, topic) and len(await records(log, topic)) == count


def test_two_workers_share_the_partitions() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            rows = [(f"k{n}", {}, n) for n in range(100)]
            await feed(log, "events", rows, partitions=4)
            workers = [Worker(RunContext.of(counter(), log), name=str(index)) for index in range(2)]
            async with running(workers[0]):
                await until(lambda: has_records(log, "counts", 100))
                async with running(workers[1]):
                    await until(lambda: returns(len(workers[1].parts("count")) == 2))
                    assert len(workers[0].parts("count")) == 2
                    await feed(log, "events", rows)
                    await until(lambda: has_records(log, "counts", 200))
                await until(lambda: returns(len(workers[0].parts("count")) == 4))
                await feed(log, "events", rows)
                await until(lambda: has_records(log, "counts", 300))
            assert set((await last_integers(log, "counts")).values()) == {3}
            assert workers[1].stats().records == 50 or workers[1].stats().records > 0

    asyncio.run(main())


def test_a_zombie_changes_nothing() -> None:
    """Trap 9: another worker has taken over the transactional id; the first is fenced."""

    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", [(f"k{n}", {}, n) for n in range(100)], partitions=4)
            app = counter()
            app.commit_interval_ms = 3_600_000
            zombie = Worker(RunContext.of(app, log))
            stop = asyncio.Event()
            sleeping = asyncio.create_task(zombie.run(stop=stop))
            await until(lambda: returns(zombie.stats().records == 100))
            async with running(Worker(RunContext.of(counter(), log))):
                await until(lambda: has_records(log, "counts", 100))
                stop.set()
                await asyncio.wait([sleeping])
                await feed(log, "events", [("k1", {}, 1)])
                await until(lambda: has_records(log, "counts", 101))
            assert sum((await last_integers(log, "counts")).values()) == 101

    asyncio.run(main())


def test_stores_can_be_read_while_the_app_runs() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", [(f"k{n % 3}", {}, n) for n in range(30)], partitions=4)
            app = counter()
            with pytest.raises(UnknownStoreError, match="does not run"):
                app.store("count")
            async with app_running(app, log):
                await until(lambda: has_records(log, "counts", 30))
                assert app.store("count").get("k1") == 10
                assert app.store("count").get("nobody") is None
                assert dict(app.store("count").items()) == {"k0": 10, "k1": 10, "k2": 10}
                assert len(app.store("count")) == 3
                with pytest.raises(UnknownStoreError, match="there are: count"):
                    app.store("cuont")

    asyncio.run(main())


def test_windows_can_be_read_while_the_app_runs() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            rows = [("a", {"n": 1}, 0), ("a", {"n": 2}, 61_000), ("b", {"n": 4}, 61_500)]
            await feed(log, "events", rows)
            app = windowed(None)
            async with app_running(app, log):
                await until(lambda: offsets_reach(log, "windowed", 3))
                store = app.store("total")
                assert store.get("a", 0) == 1
                assert store.fetch("a", 0, 60_000) == [((0, 60_000), 1), ((60_000, 120_000), 2)]
                assert list(store.items()) == [
                    (Windowed("a", 0, 60_000), 1),
                    (Windowed("a", 60_000, 120_000), 2),
                    (Windowed("b", 60_000, 120_000), 4),
                ]
                with pytest.raises(TypeError, match="windowed"):
                    store.get("a")

    asyncio.run(main())


async def offsets_reach(log: Log, group: str, offset: int) -> bool:
    return sum(each.offset for each in (await log.group_offsets(group)).values()) == offset


class Companion:
    """A source or sink that does what a test says."""

    def __init__(self, name: str, work: Callable[[Log, bool], Awaitable[None]]) -> None:
        self.name = name
        self._work = work

    async def run(self, log: Log, *, until_end: bool, progress: Any = None) -> None:
        await self._work(log, until_end)


def test_sources_run_first_and_sinks_last_until_the_end() -> None:
    order: list[str] = []

    async def main() -> None:
        async with open_log("memory:") as log:

            async def write(log: Log, until_end: bool) -> None:
                assert until_end
                await feed(log, "events", [("a", {}, 1)] * 10)
                order.append("source")

            async def read(log: Log, until_end: bool) -> None:
                order.append(f"sink saw {len(await records(log, 'counts'))}")

            app = counter()
            app.source(Companion("s", write))
            app.sink(Companion("t", read))
            await run_app(app, log=log, until_end=True)

    asyncio.run(main())
    assert order == ["source", "sink saw 10"]


@pytest.mark.parametrize("kind", ["source", "sink"])
def test_a_failing_companion_stops_the_app_which_commits(kind: str) -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", [("a", {}, 1)] * 10, partitions=4)

            async def fail_later(log: Log, until_end: bool) -> None:
                await until(lambda: has_records(log, "counts", 10))
                raise OSError("disk is gone")

            app = counter()
            (app.source if kind == "source" else app.sink)(Companion("c", fail_later))
            with pytest.raises(OSError, match="disk is gone"):
                await run_app(app, log=log)
            assert len(await records(log, "counts")) == 10

    asyncio.run(main())


def test_a_failing_app_stops_its_companions() -> None:
    cancelled = []

    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", [("a", {}, 1)])

            async def wait_for_ever(log: Log, until_end: bool) -> None:
                try:
                    await asyncio.Event().wait()
                finally:
                    cancelled.append(True)

            app = App("broken")
            events = app.topic("events", key=str, value=dict)
            app.stream(events).map_values(lambda event: event["missing"]).to("out")
            app.source(Companion("c", wait_for_ever))
            with pytest.raises(ProcessingError):
                await run_app(app, log=log)

    asyncio.run(main())
    assert cancelled == [True]


def named_events() -> App:
    app = App("joined", commit_interval_ms=5)
    events = app.topic("events", key=str, value=dict)
    names = app.global_table(app.topic("names", key=str, value=dict))

    def join(event: dict[str, Any], name: dict[str, Any] | None) -> str | None:
        return name and name["name"]

    app.stream(events).left_join(names, join, key=lambda event: event["id"]).to("named")
    return app


def test_a_global_table_is_loaded_before_anything_is_processed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(self: GlobalTables, consumer: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(GlobalTables, "_follow", never)

    async def main() -> None:
        async with open_log("memory:") as log:
            names = [(f"id{n}", {"name": f"n{n}", "more": "x" * 300}, n) for n in range(8_000)]
            await feed(log, "names", names, partitions=2)  # more than one fetch has room for
            await feed(log, "events", [(f"e{n}", {"id": f"id{n}"}, n) for n in range(8_000)])
            await run_app(named_events(), log=log, until_end=True)
            values = {record.value for record in await records(log, "named")}
            assert values == {f"n{n}".encode() for n in range(8_000)}

    asyncio.run(main())


def test_a_global_table_is_followed() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "names", [("a", {"name": "old"}, 1), ("b", {"name": "b"}, 1)])
            app = named_events()
            await feed(log, "events", [("e", {"id": "a"}, 1)])
            async with app_running(app, log):
                await until(lambda: has_records(log, "named", 1))
                assert app.store("names").get("a") == {"name": "old"}
                await feed(log, "names", [("a", {"name": "new"}, 2), ("c", {"name": "c"}, 2)])
                await until(lambda: returns(app.store("names").get("c") == {"name": "c"}))
                assert dict(app.store("names").items()) == {
                    "a": {"name": "new"},
                    "b": {"name": "b"},
                    "c": {"name": "c"},
                }
                await feed(log, "events", [("e", {"id": "a"}, 3)])
                await until(lambda: has_records(log, "named", 2))
            assert [record.value for record in await records(log, "named")] == [b"old", b"new"]

    asyncio.run(main())
