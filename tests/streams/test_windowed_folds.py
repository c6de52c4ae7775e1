"""Windowed folds: the windows of records, lateness, closing; the same whatever the batches."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.streams.app import App
from millstream.streams.errors import TopologyError
from millstream.streams.serde import serde_for, windowed_serde
from millstream.streams.testing import TestDriver
from millstream.streams.windows import Window, Windowed, WindowSpec, hopping, tumbling
from shared.tasks import OneTask, Row, batch_of

KEYS = (b"a", b"b", b"c")


def sums(window: WindowSpec) -> App:
    app = App("sums")
    source = app.topic("in", key=str, value=int)

    @app.table(source, window=window, late_to="late")
    def total(total: int, value: int) -> int:
        return total + value

    total.final().to("final")
    total.changes().to("changes")
    return app


Results = dict[tuple[int, bytes], int]


class Model:
    """Windowed sums the slow way: every window of every record, closings after every record."""

    def __init__(self, window: WindowSpec) -> None:
        self.window = window
        self.now = -1
        self.open: dict[int, dict[bytes, int]] = defaultdict(dict)
        self.final: list[tuple[int, bytes, int]] = []
        self.changes: list[tuple[int, bytes, int]] = []
        self.late: list[int] = []

    def is_over(self, start: int) -> bool:
        return start + self.window.size_ms + self.window.grace_ms <= self.now

    def add(self, key: bytes, value: int | None, timestamp: int) -> None:
        self.now = max(self.now, timestamp)
        self.close()
        if value is None:
            return
        starts = list(self.window.starts_of(timestamp))
        for start in starts:
            if not self.is_over(start):
                state = self.open[start].get(key, 0) + value
                self.open[start][key] = state
                self.changes.append((start, key, state))
        if any(self.is_over(start) for start in starts):
            self.late.append(value)

    def close(self) -> None:
        for start in sorted(start for start in self.open if self.is_over(start)):
            rows = self.open.pop(start)
            self.final += [(start, key, rows[key]) for key in sorted(rows)]


windows = st.builds(
    lambda size, parts, grace: hopping(size, advance=max(1, size // parts), grace=grace),
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(0, 30),
)
# A null value moves stream time and is folded into nothing.
values = st.none() | st.integers(0, 9)
steps = st.lists(
    st.tuples(st.sampled_from(KEYS), values, st.integers(-8, 12) | st.integers(0, 60)), max_size=60
)


def timed(
    steps: list[tuple[bytes, int | None, int]],
) -> list[tuple[bytes, int | None, int]]:
    """Times that mostly go on by little steps, and sometimes back."""
    rows, time = [], 0
    for key, value, step in steps:
        time = max(0, time + step)
        rows.append((key, value, time))
    return rows


records = steps.map(timed)


@given(window=windows, rows=records, cuts=st.lists(st.integers(0, 60)), data=st.data())
def test_results_are_those_of_the_model_whatever_batches_and_restarts(
    window: WindowSpec,
    rows: list[tuple[bytes, int | None, int]],
    cuts: list[int],
    data: st.DataObject,
) -> None:
    model = Model(window)
    for row in rows:
        model.add(*row)
    one = OneTask(sums(window))
    encoded: list[Row] = [
        (key, None if value is None else value.to_bytes(8, "big"), ts) for key, value, ts in rows
    ]
    edges = sorted({0, len(rows), *(cut for cut in cuts if cut < len(rows))})
    for first, stop in pairwise(edges):
        one.process(batch_of("in", encoded[first:stop], first=first))
        step = data.draw(st.sampled_from([None, one.commit, one.restart]))
        if step is not None:
            step()
    one.commit()
    assert decoded(one, "final") == model.final
    assert decoded(one, "changes") == model.changes
    assert [int.from_bytes(value, "big") for value in one.values("late")] == model.late
    assert all(ts == start_of(key) + window.size_ms - 1 for key, _, ts in one.sent.get("final", []))
    one.task.close_windows()
    one.commit()
    model.now = 1 << 40
    model.close()
    assert decoded(one, "final") == model.final
    assert one.task.next_close_ms is None


def start_of(key: bytes | None) -> int:
    assert key is not None
    return int.from_bytes(key[-8:], "big")


def decoded(one: OneTask, topic: str) -> list[tuple[int, bytes, int]]:
    return [
        (start_of(key), key[:-8], int.from_bytes(value, "big"))
        for key, value, _ in one.sent.get(topic, [])
        if key is not None and value is not None
    ]


def test_a_window_at_hand_is_let_go_when_it_closes() -> None:
    """The record that closes it need not fall into another: it may have no value."""
    for window in (tumbling(10), hopping(10, advance=6)):
        one = OneTask(sums(window))
        one.process(batch_of("in", [(b"k", bytes(8), 5), (b"k", None, 40), (b"k", bytes(8), 6)]))
        one.commit()
        assert (len(one.values("final")), one.task.counters.late) == (1, 1)


def test_tumbling_golden() -> None:
    """Source: reference on windows; [0, 10) takes records until stream time reaches 10 + grace."""
    driver = TestDriver(sums(tumbling(10, grace=5)))
    for value, timestamp in [(1, 0), (2, 9), (4, 10), (8, 14), (16, 3)]:
        driver.send("in", value, key="k", timestamp=timestamp)
    assert driver.read("final") == []
    driver.send("in", 32, key="k", timestamp=15)
    [record] = driver.read("final")
    assert (record.key, record.value, record.timestamp) == (Windowed("k", 0, 10), 19, 9)
    driver.send("in", 64, key="k", timestamp=9)
    assert (driver.counters.late, [r.value for r in driver.read("late")]) == (1, [64])
    assert [r.value for r in driver.read("changes")] == [1, 3, 4, 12, 19, 44]


def test_hopping_golden() -> None:
    """A record falls into every window with start <= ts < end; none starts before the epoch."""
    driver = TestDriver(sums(hopping(10, advance=5)))
    driver.send("in", 1, key="k", timestamp=3)
    driver.send("in", 2, key="k", timestamp=7)
    assert [(r.key.start, r.value) for r in driver.read("changes")] == [(0, 1), (0, 3), (5, 2)]
    driver.send("in", 4, key="k", timestamp=20)
    assert [(r.key.start, r.value) for r in driver.read("final")] == [(0, 3), (5, 2)]
    assert [r.key.start for r in driver.read("changes")] == [15, 20]


def test_keys_of_a_closing_window_come_in_order() -> None:
    driver = TestDriver(sums(tumbling(10)))
    for key in ("c", "a", "b"):
        driver.send("in", 1, key=key, timestamp=0)
    driver.advance_stream_time(10)
    assert [r.key.key for r in driver.read("final")] == ["a", "b", "c"]
    driver.advance_stream_time(100)
    assert driver.read("final") == []


def test_records_without_key_or_value_are_dropped() -> None:
    driver = TestDriver(sums(tumbling(10)))
    driver.send("in", 1, key=None, timestamp=0)
    driver.send("in", None, key="k", timestamp=0)
    assert (driver.counters.dropped, driver.read("changes")) == (2, [])


def test_a_record_without_a_time_is_a_dead_letter() -> None:
    for window in (tumbling(10), hopping(10, advance=5)):
        driver = TestDriver(sums(window))
        driver.send("in", 1, key="k", timestamp=-1)
        [letter] = driver.read("sums-dead-letter")
        assert b"belongs to no window" in dict(letter.headers)["__streams.errors.message"]


def test_functions_see_the_window() -> None:
    app = App("seen")
    seen: list[Any] = []

    @app.table(app.topic("in", key=str, value=int), window=tumbling(10))
    def total(total: int, value: int, window: Window, key: str) -> int:
        seen.append((key, window))
        return total + value

    (
        total.final()
        .filter(lambda value, window: window.start < 10)
        .map(lambda value, key, window: (key.key, [window.start, window.end, value]))
        .to("rows")
    )
    driver = TestDriver(app)
    driver.send("in", 1, key="k", timestamp=5)
    driver.send("in", 1, key="k", timestamp=15)
    driver.close_windows()
    assert seen == [("k", Window(0, 10)), ("k", Window(10, 20))]
    assert [(r.key, r.value) for r in driver.read("rows")] == [("k", [0, 10, 1])]


def test_windows_of_final_results_wait_for_the_windows_below() -> None:
    """Hours of ten into days of a hundred: the day closes when no more hour of it can come."""
    app = App("levels")
    source = app.topic("in", key=str, value=int)
    hours = app.stream(source).group_by_key().window(tumbling(10, grace=20)).count(name="hours")
    daily = hours.final().map(lambda n, key: (key.key, n), key_type=str, value_type=int)
    assert app.topology().subtopologies[0].stores[0].retention_ms == 30
    days = (
        hours.final()
        .group_by_key()
        .window(tumbling(100))
        .reduce(lambda total, n: total + n, name="days")
    )
    days.final().map_values(lambda n, key: [key.key.start, key.start, n]).to("days")
    daily.to("hours")
    driver = TestDriver(app)
    for timestamp in (5, 95, 99, 119, 93):
        driver.send("in", 1, key="k", timestamp=timestamp)
    assert [r.value for r in driver.read("hours")] == [1]
    driver.send("in", 1, key="k", timestamp=120)
    assert [r.value for r in driver.read("days")] == [[0, 0, 1], [90, 0, 3]]
    driver.send("in", 1, key="k", timestamp=5_000)
    driver.close_windows()
    assert [r.value for r in driver.read("days")] == [[110, 100, 1], [120, 100, 1], [5000, 5000, 1]]
    assert driver.counters.late == 0


def test_windows_over_final_results_wait_for_the_latest_of_them() -> None:
    """The same hour comes twice, once 20 later: the day of both must not close in between."""
    app = App("latest")
    source = app.stream(app.topic("in", key=str, value=int)).group_by_key()
    soon = source.window(tumbling(10)).count(name="soon").final()
    later = source.window(tumbling(10, grace=20)).count(name="later").final()
    days = soon.merge(later).group_by_key().window(tumbling(100))
    days.reduce(lambda a, b: 10 * a + b, name="days").final().to("out")
    driver = TestDriver(app)
    for timestamp in (95, 105, 99, 120):
        driver.send("in", 1, key="k", timestamp=timestamp)
    assert [(r.key.key.start, r.value) for r in driver.read("out")] == [(90, 12)]


def test_a_table_that_is_ahead_makes_nothing_late() -> None:
    app = App("ahead")
    names = app.topic("names", key=str, value=str).table()
    joined = app.stream(app.topic("in", key=str, value=int)).join(names, lambda n, name: name)
    joined.group_by_key().window(tumbling(10)).count(name="count").changes().to("out")
    driver = TestDriver(app)
    driver.send("names", "Anna", key="k", timestamp=1_000_000)
    driver.send("in", 1, key="k", timestamp=5)
    assert ([r.value for r in driver.read("out")], driver.counters.late) == ([1], 0)


def test_final_needs_windows() -> None:
    app = App("plain")
    table = app.stream(app.topic("in")).group_by_key().count()
    with pytest.raises(TopologyError, match="has no windows, so no result is ever final"):
        table.final()


def test_windowed_keys_are_written_in_kafkas_layout_and_lie_where_the_key_does() -> None:
    driver = TestDriver(sums(tumbling(10)), partitions=4)
    for i in range(20):
        driver.send("in", 1, key=f"k{i}", timestamp=3)
    plain = {f"k{i}": None for i in range(20)}
    raw = [(row[0], row[3]) for row in driver._topics["changes"].records]
    serde = windowed_serde(serde_for(str), 10)
    for data, partition in raw:
        assert data is not None
        assert data[-8:] == bytes(8)
        plain[serde.deserialize(data).key] = partition
    sources = {r[0].decode(): r[3] for r in driver._topics["in"].records if r[0] is not None}
    assert plain == sources


def test_a_reduce_begins_with_the_first_value_and_none_deletes() -> None:
    app = App("reduce")
    source = app.topic("in", key=str, value=int)
    grouped = app.stream(source).group_by_key().window(tumbling(10))
    grouped.reduce(lambda a, b: None if b == 0 else max(a, b), name="largest").changes().to("out")
    driver = TestDriver(app)
    for value in (3, 7, 5, 0, 2):
        driver.send("in", value, key="k", timestamp=1)
    assert [r.value for r in driver.read("out")] == [3, 7, 7, None, 2]
