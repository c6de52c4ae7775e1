"""Whatever stops an app, each record counts once: failing functions, failing commits, crashes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from millstream.log import LogTimeoutError, TopicPartition, open_log
from millstream.log.client.producer import EmbeddedProducer
from millstream.streams import App, ProcessingError, commit_cycle
from millstream.streams.state import KeyValueStore
from shared.running import feed, last_integers, records, to_end

ROWS = [(f"k{n % 5}", {"n": n}, n) for n in range(1_000)]
EXPECTED = {f"k{n}": 200 for n in range(5)}


def counter(
    app_id: str = "counter", check: Callable[[int], None] | None = None, **options: Any
) -> App:
    """Counts per key in one step; `check` sees each record."""
    app = App(app_id, commit_interval_ms=0, **options)
    events = app.topic("events", key=str, value=dict)

    @app.table(events)
    def count(total: int, event: dict[str, Any]) -> int:
        if check is not None:
            check(event["n"])
        return total + 1

    count.changes().to("counts")
    return app


class SimulatedCrash(BaseException):
    """As if the process were gone: nothing catches it on purpose."""


def once(action: Callable[[], None]) -> Callable[[], None]:
    state = {"left": 1}

    def act() -> None:
        if state["left"]:
            state["left"] = 0
            action()

    return act


def raise_(error: BaseException) -> None:
    raise error


async def assert_each_counted_once(log: Any) -> None:
    assert await last_integers(log, "counts") == EXPECTED
    assert len(await records(log, "counts")) == len(ROWS)


def test_a_function_that_raises_loses_nothing() -> None:
    """The message says where, nothing of the record is committed, a mended app goes on there."""

    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", ROWS)

            def fail_at_700(n: int) -> None:
                if n == 700:
                    raise ZeroDivisionError("broken")

            with pytest.raises(ProcessingError) as failure:
                await to_end(counter(check=fail_at_700), log)
            assert (failure.value.topic, failure.value.offset) == ("events", 700)
            assert "events-0 at offset 700" in str(failure.value)
            assert isinstance(failure.value.__cause__, ZeroDivisionError)
            committed = await log.group_offsets("counter")
            assert all(offset.offset <= 700 for offset in committed.values())
            visible = await records(log, "counts")
            assert len(visible) == sum(offset.offset for offset in committed.values())
            await to_end(counter(), log)
            await assert_each_counted_once(log)

    asyncio.run(main())


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", [0, 1, 3])
def test_a_commit_that_times_out_is_neither_lost_nor_doubled(
    monkeypatch: pytest.MonkeyPatch, when: str, nth: int
) -> None:
    """`after`: the log has committed, but the worker does not know. It looks what the log says."""
    commit = EmbeddedProducer.commit_transaction
    calls = []

    async def flaky(self: EmbeddedProducer) -> None:
        calls.append(None)
        if len(calls) == nth + 1 and when == "before":
            raise LogTimeoutError("no answer")
        await commit(self)
        if len(calls) == nth + 1 and when == "after":
            raise LogTimeoutError("no answer")

    async def main() -> None:
        async with open_log("memory:") as log:
            for part in range(4):
                await feed(log, "events", ROWS[part * 250 : part * 250 + 250])
                monkeypatch.setattr(EmbeddedProducer, "commit_transaction", flaky)
                await to_end(counter(), log)
                monkeypatch.setattr(EmbeddedProducer, "commit_transaction", commit)
            await assert_each_counted_once(log)

    asyncio.run(main())
    assert len(calls) > nth


def test_it_gives_up_when_commits_keep_failing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(self: EmbeddedProducer) -> None:
        raise LogTimeoutError("no answer")

    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", ROWS)
            with monkeypatch.context() as patch:
                patch.setattr(EmbeddedProducer, "commit_transaction", never)
                with pytest.raises(LogTimeoutError):
                    await to_end(counter(), log)
            await to_end(counter(), log)
            await assert_each_counted_once(log)

    asyncio.run(main())


def test_a_worker_the_group_has_given_up_commits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trap 9, as the worker sees it: the log refuses its offsets, and the transaction with them."""
    send_offsets = EmbeddedProducer.send_offsets
    refused = []

    async def refuse_once(self: EmbeddedProducer, *args: Any, **options: Any) -> None:
        if not refused:
            refused.append(options["group"])
            member = options["group"]
            self._broker.groups.leave_group(member.group, member.member_id)  # its session ended
        await send_offsets(self, *args, **options)

    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", ROWS)
            monkeypatch.setattr(EmbeddedProducer, "send_offsets", refuse_once)
            await to_end(counter(), log)
            await assert_each_counted_once(log)

    asyncio.run(main())
    assert refused


@pytest.mark.parametrize(("step", "restored"), [("apply", 5), ("settle", 0)])
def test_a_crash_between_the_log_and_the_stores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: str, restored: int
) -> None:
    """Before `apply` the stores are a commit behind; a restart restores that, and only that."""
    original = getattr(KeyValueStore, step)
    calls: list[None] = []

    def crash_on_third(self: KeyValueStore, *args: Any) -> None:
        calls.append(None)
        if len(calls) == 3:
            raise SimulatedCrash
        original(self, *args)

    async def run_all() -> None:
        async with open_log(f"file:{tmp_path / 'log'}") as log:
            await to_end(counter(), log)

    async def feed_all() -> None:
        async with open_log(f"file:{tmp_path / 'log'}") as log:
            for part in range(4):
                await feed(log, "events", ROWS[part * 250 : part * 250 + 250])

    async def check() -> None:
        async with open_log(f"file:{tmp_path / 'log'}") as log:
            result = await to_end(counter(), log)
            assert result.stats.restored == restored  # a commit is one record per key
            await assert_each_counted_once(log)
            assert (await to_end(counter(), log)).stats.restored == 0

    asyncio.run(feed_all())
    monkeypatch.setattr(commit_cycle, "COST_FACTOR", 0)  # a commit after each batch
    with monkeypatch.context() as patch:
        patch.setattr(KeyValueStore, step, crash_on_third)
        with pytest.raises(SimulatedCrash):
            asyncio.run(run_all())
    asyncio.run(check())


def test_a_cancelled_run_can_be_started_again() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", ROWS)
            for delay_ms in (0, 1, 2, 5, 10):
                running = asyncio.create_task(to_end(counter(), log))
                await asyncio.wait([running], timeout=delay_ms / 1000)
                running.cancel()
                await asyncio.wait([running])
            await to_end(counter(), log)
            await assert_each_counted_once(log)

    asyncio.run(main())


def test_a_start_that_is_cancelled_leaves_no_database_open(tmp_path: Path) -> None:
    """Restoring takes long; who gives up while it does can start again in the same process."""

    async def main() -> None:
        async with open_log(f"file:{tmp_path / 'log'}") as log:
            await feed(log, "events", ROWS)
            await to_end(counter(), log)
            shutil.rmtree(tmp_path / "log-state")
            for turns in range(0, 40, 3):
                running = asyncio.create_task(to_end(counter(), log))
                for _ in range(turns):
                    await asyncio.sleep(0)
                running.cancel()
                await asyncio.wait([running])
            await to_end(counter(), log)
            await assert_each_counted_once(log)

    asyncio.run(main())


def test_at_least_once_loses_nothing() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", ROWS)

            def fail_at_700(n: int) -> None:
                if n == 700:
                    raise ZeroDivisionError

            with pytest.raises(ProcessingError):
                await to_end(counter(check=fail_at_700, guarantee="at_least_once"), log)
            await to_end(counter(guarantee="at_least_once"), log)
            counts = await last_integers(log, "counts")
            assert all(counts[key] >= EXPECTED[key] for key in EXPECTED)

    asyncio.run(main())


def test_at_least_once_without_failures_is_exact() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            for part in range(4):
                await feed(log, "events", ROWS[part * 250 : part * 250 + 250])
                await to_end(counter(guarantee="at_least_once"), log)
            await assert_each_counted_once(log)

    asyncio.run(main())


def test_a_mutable_state_is_what_it_was_at_the_commit() -> None:
    """Trap 15: the fold keeps its list and goes on changing it after the commit."""
    kept: list[list[int]] = []

    def app() -> App:
        app = App("lists", commit_interval_ms=0)
        events = app.topic("events", key=str, value=dict)

        @app.table(events)
        def seen(numbers: list[int], event: dict[str, Any]) -> list[int]:
            numbers.append(event["n"])
            kept.append(numbers)
            return numbers

        seen.changes().to("lists")
        return app

    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", [("a", {"n": 1}, 1), ("a", {"n": 2}, 2)])
            await to_end(app(), log)
            for numbers in kept:
                numbers.append(99)
            await feed(log, "events", [("a", {"n": 3}, 3)])
            await to_end(app(), log)
            values = [orjson.loads(record.value or b"") for record in await records(log, "lists")]
            assert values == [[1], [1, 2], [1, 2, 3]]

    asyncio.run(main())


def test_a_failed_run_takes_back_what_it_changed_in_place() -> None:
    def app(check: Callable[[int], None]) -> App:
        app = App("lists", commit_interval_ms=0)
        events = app.topic("events", key=str, value=dict)

        @app.table(events)
        def seen(numbers: list[int], event: dict[str, Any]) -> list[int]:
            numbers.append(event["n"])
            check(event["n"])
            return numbers

        seen.changes().to("lists")
        return app

    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", [("a", {"n": n}, n) for n in range(3)])
            with pytest.raises(ProcessingError):
                await to_end(app(lambda n: raise_(ValueError()) if n == 2 else None), log)
            await to_end(app(lambda n: None), log)
            [*_, last] = await records(log, "lists")
            assert orjson.loads(last.value or b"") == [0, 1, 2]

    asyncio.run(main())


def test_uncommitted_output_is_invisible() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await feed(log, "events", ROWS)
            with pytest.raises(ProcessingError):
                await to_end(
                    counter(check=lambda n: raise_(ValueError()) if n == 999 else None), log
                )
            ends = await log.end_offsets([TopicPartition("counts", 0)])
            committed = await log.group_offsets("counter")
            assert len(await records(log, "counts")) == sum(o.offset for o in committed.values())
            assert ends[TopicPartition("counts", 0)] >= len(await records(log, "counts"))

    asyncio.run(main())
