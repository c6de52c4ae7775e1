"""Async steps: bounded, in order, and stream time is what it was for each record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.streams.app import App
from millstream.streams.context import Context
from millstream.streams.errors import ProcessingError
from millstream.streams.testing import TestDriver
from millstream.streams.windows import hopping, tumbling
from shared.tasks import OneTask, batch_of


async def process(one: OneTask, rows: list[Any], *, first: int = 0) -> None:
    one.process(batch_of("in", rows, first=first))
    await one.task.drain()


def test_calls_overlap_up_to_the_bound_and_results_keep_their_order() -> None:
    app = App("bounded")
    finished: list[int] = []
    barrier = asyncio.Barrier(3)
    running: set[int] = set()

    @app.stream(app.topic("in", key=str, value=int), to="out", concurrency=3)
    async def slow(n: int) -> int:
        running.add(n)
        assert len(running) <= 3
        await barrier.wait()  # only a third call at the same time opens it
        for _ in range(3 - n % 3):
            await asyncio.sleep(0)
        running.remove(n)
        finished.append(n)
        return n * 10

    async def main() -> None:
        one = OneTask(app)
        await process(one, [(b"k", n.to_bytes(8, "big"), n) for n in range(9)])
        one.commit()
        assert [int.from_bytes(v, "big") for v in one.values("out")] == [n * 10 for n in range(9)]

    asyncio.run(asyncio.wait_for(main(), 10))
    assert sorted(finished) == list(range(9)) != finished


def test_the_driver_runs_async_steps_by_itself() -> None:
    app = App("driver")
    source = app.topic("in", key=str, value=str)

    @app.stream(source)
    async def upper(text: str, key: str, ctx: Context) -> str | None:
        await asyncio.sleep(0)
        return f"{key}{ctx.offset}{text.upper()}" if text else None

    @app.stream(upper, to="letters")
    async def letters(text: str) -> AsyncIterator[str]:
        for letter in text:
            await asyncio.sleep(0)
            yield letter

    app.stream(source).map_values(upper).to("again")
    driver = TestDriver(app)
    driver.send("in", "ab", key="k", timestamp=5, headers={"h": b"1"})
    driver.send("in", "", key="k")
    records = driver.read("letters")
    assert [r.value for r in records] == ["k", "0", "A", "B"]
    assert {(r.key, r.timestamp, r.headers) for r in records} == {("k", 5, (("h", b"1"),))}
    assert [r.value for r in driver.read("again")] == ["k0AB", None]


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.integers(0, 60)), max_size=30),
    st.lists(st.booleans(), min_size=30, max_size=30),
    st.booleans(),
    st.booleans(),
)
def test_windows_behind_an_async_step_are_those_of_a_plain_one(
    rows: list[tuple[bytes, int]], cuts: list[bool], is_hopping: bool, drops: bool
) -> None:
    """Lateness is judged by the stream time of the record, not by when its result came."""

    def sums(is_async: bool) -> App:
        app = App("sums")
        stream = app.stream(app.topic("in", key=str, value=int))

        def plain(n: int) -> int:
            return n

        async def later(n: int) -> int:
            return n

        if drops:
            stream = app.stream(stream.filter(lambda n: n % 3))
        window = hopping(10, advance=4, grace=3) if is_hopping else tumbling(10, grace=3)
        counts = stream.map_values(later if is_async else plain).group_by_key().window(window)
        counts.reduce(lambda a, b: a + b, name="sum").final().to("out")
        return app

    async def run(is_async: bool) -> tuple[list[Any], int]:
        one = OneTask(sums(is_async))
        batch: list[Any] = []
        for i, (key, timestamp) in enumerate(rows):
            batch.append((key, i.to_bytes(8, "big"), timestamp))
            if cuts[i]:
                await process(one, batch)
                batch = []
        await process(one, batch)
        while one.task.next_close_ms is not None:
            one.task.close_windows()
            await one.task.drain()
        one.commit()
        return one.sent.get("out", []), one.task.counters.late

    async def main() -> None:
        sent, late = await run(True)
        expected, expected_late = await run(False)
        # Windows that close together with others may close at another record of the batch.
        assert sent == expected
        assert late == expected_late

    asyncio.run(main())


def test_a_window_at_hand_is_over_when_stream_time_says_so() -> None:
    """Behind an async step windows close late; what is late is not later for that."""
    app = App("at-hand")
    stream = app.stream(app.topic("in", key=str, value=int)).filter(lambda n: n < 9)

    async def later(n: int) -> int:
        return n

    grouped = stream.map_values(later).group_by_key()
    grouped.window(tumbling(10)).count(name="tumbling").final().to("tumbling")
    grouped.window(hopping(10, advance=6)).count(name="hopping").final().to("hopping")

    async def main() -> OneTask:
        one = OneTask(app)
        rows = [(1, 7), (9, 40), (1, 8)]
        await process(one, [(b"k", n.to_bytes(8, "big"), timestamp) for n, timestamp in rows])
        one.commit()
        return one

    one = asyncio.run(main())
    assert one.values("tumbling") == [(1).to_bytes(8, "big")]
    assert one.values("hopping") == [(1).to_bytes(8, "big")] * 2
    assert one.task.counters.late == 2


def test_async_behind_a_closing_window() -> None:
    app = App("behind")
    source = app.topic("in", key=str, value=int)
    counts = app.stream(source).group_by_key().window(tumbling(10)).count(name="n")

    async def later(n: int, window: Any) -> list[int]:
        return [window.start, n]

    counts.final().map_values(later).to("out")
    driver = TestDriver(app)
    for timestamp in (1, 2, 15):
        driver.send("in", 1, key="k", timestamp=timestamp)
    driver.close_windows()
    records = driver.read("out")
    assert [(r.key.key, r.key.start, r.value) for r in records] == [
        ("k", 0, [0, 2]),
        ("k", 10, [10, 1]),
    ]


@pytest.mark.parametrize("policy", ["skip", "dead_letter"])
def test_a_failed_call_costs_its_record_only(policy: Any) -> None:
    app = App("failing", on_error=policy)

    @app.stream(app.topic("in", key=str, value=int), to="out")
    async def picky(n: int) -> int:
        await asyncio.sleep(0)
        if n == 2:
            raise ValueError("not two")
        return n

    async def main() -> OneTask:
        one = OneTask(app)
        await process(one, [(b"k", n.to_bytes(8, "big"), n) for n in range(4)], first=10)
        one.commit()
        return one

    one = asyncio.run(main())
    assert [int.from_bytes(v, "big") for v in one.values("out")] == [0, 1, 3]
    assert one.task.counters.skipped == (policy == "skip")
    letters = one.headers.get("failing-dead-letter", [])
    assert [dict(each)["__streams.errors.offset"] for each in letters] == [b"12"][
        : policy == "dead_letter"
    ]


def test_a_failed_call_fails_the_app_by_default() -> None:
    app = App("failing")

    @app.stream(app.topic("in", key=str, value=int))
    async def picky(n: int) -> int:
        raise ValueError("no")

    driver = TestDriver(app)
    with pytest.raises(ProcessingError, match=r"step 'picky' called picky\(\) .*in-0 at offset 0"):
        driver.send("in", 1)


def test_a_step_behind_an_async_one_fails_with_the_record_as_it_was_read() -> None:
    app = App("behind", on_error="dead_letter")

    @app.stream(app.topic("in", key=str, value=int))
    async def later(n: int) -> int:
        return n - 2

    later.map_values(lambda n: 10 // n).to("out")
    driver = TestDriver(app)
    for n in (1, 2, 3):
        driver.send("in", n, key="k", timestamp=n)
    assert [r.value for r in driver.read("out")] == [-10, 10]
    [letter] = driver.read("behind-dead-letter")
    assert (letter.value, letter.timestamp) == ((2).to_bytes(8, "big"), 2)
    assert dict(letter.headers)["__streams.errors.exception"] == b"builtins.ZeroDivisionError"
