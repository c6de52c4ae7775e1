"""Joins with tables and global tables."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.streams.app import App
from millstream.streams.errors import TopologyError
from millstream.streams.testing import TestDriver
from millstream.streams.windows import tumbling


def side_by_side(left: str, right: str | None) -> list[str | None]:
    return [left, right]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("join", {5: ["B", "a"], 15: ["D", "d"]}),
        ("left_join", {3: ["A", None], 5: ["B", "a"], 9: ["C", None], 15: ["D", "d"]}),
    ],
)
def test_stream_table_golden(kind: str, expected: dict[int, list[str | None]]) -> None:
    """Source: Kafka Streams' documentation of joins; the stream triggers, the table does not."""
    app = App("golden")
    table = app.topic("right", key=str, value=str).table()
    left = app.stream(app.topic("left", key=str, value=str))
    getattr(left, kind)(table, side_by_side).to("out")
    driver = TestDriver(app)
    for timestamp, topic, value in [
        (1, "left", None),
        (2, "right", None),
        (3, "left", "A"),
        (4, "right", "a"),
        (5, "left", "B"),
        (6, "right", "b"),
        (7, "left", None),
        (8, "right", None),
        (9, "left", "C"),
        (10, "right", "c"),
        (11, "right", None),
        (12, "left", None),
        (13, "right", None),
        (14, "right", "d"),
        (15, "left", "D"),
    ]:
        driver.send(topic, value, key="k", timestamp=timestamp)
    assert {r.timestamp: r.value for r in driver.read("out")} == expected


@pytest.mark.parametrize(("kind", "expected"), [("join", []), ("left_join", [["A", None]])])
def test_a_null_key_finds_nothing(kind: str, expected: list[Any]) -> None:
    app = App("nulls")
    table = app.topic("right", key=str, value=str).table()
    getattr(app.stream(app.topic("left", key=str, value=str)), kind)(table, side_by_side).to("out")
    driver = TestDriver(app)
    driver.send("right", "x", key="k")
    driver.send("left", "A", key=None)
    assert [r.value for r in driver.read("out")] == expected


def test_join_with_the_table_of_a_fold() -> None:
    app = App("folded")
    source = app.topic("in", key=str, value=int)

    @app.table(source)
    def total(total: int, value: int) -> int:
        return total + value

    app.stream(source).join(total, lambda value, total: [value, total]).to("out")
    driver = TestDriver(app)
    for value in (1, 2, 3):
        driver.send("in", value, key="k")
    assert [r.value for r in driver.read("out")] == [[1, 1], [2, 3], [3, 6]]


def test_a_join_behind_a_new_key_goes_through_a_repartition_topic() -> None:
    app = App("moved")
    cities = app.topic("cities", key=str, value=str).table()
    people = app.stream(app.topic("people", key=str, value=dict))
    people.key_by(lambda p: p["city"]).join(
        cities, lambda p, country: f"{p['name']} {country}", name="located"
    ).to("out")
    topology = app.topology()
    assert [t.name for t in topology.repartition_topics] == ["moved-located-repartition"]
    assert topology.partition_counts({"cities": 3, "people": 5}) == {
        "cities": 3,
        "people": 5,
        "moved-located-repartition": 3,
    }
    driver = TestDriver(app, partitions=3)
    for i in range(6):
        driver.send("cities", f"country{i}", key=f"c{i}")
    for i in range(6):
        driver.send("people", {"name": f"n{i}", "city": f"c{i}"}, key="x")
    assert sorted(r.value for r in driver.read("out")) == [f"n{i} country{i}" for i in range(6)]


def test_global_tables_are_looked_into_by_any_key() -> None:
    app = App("global")
    airlines = app.global_table(app.topic("airlines", key=str, value=dict))
    flights = app.stream(app.topic("flights", key=int, value=dict))

    def named(flight: dict[str, Any], airline: dict[str, Any] | None, key: int) -> list[Any]:
        return [key, airline and airline["name"]]

    flights.join(airlines, named, key=lambda f: f["carrier"]).to("inner")
    flights.left_join(airlines, named, key=lambda f: f["carrier"]).to("left")
    driver = TestDriver(app, partitions=2)
    driver.send("airlines", {"name": "American"}, key="AA")
    for number, carrier in [(1, "AA"), (2, "XX"), (3, None)]:
        driver.send("flights", {"carrier": carrier}, key=number)
    driver.send("airlines", None, key="AA")
    driver.send("flights", {"carrier": "AA"}, key=4)
    driver.send("flights", None, key=5)
    assert [r.value for r in driver.read("inner")] == [[1, "American"]]
    assert [r.value for r in driver.read("left")] == [
        [1, "American"],
        [2, None],
        [3, None],
        [4, None],
    ]
    assert driver.counters.dropped == 2


def test_different_partition_counts_are_named() -> None:
    app = App("counts")
    table = app.topic("right", key=str, value=str).table()
    app.stream(app.topic("left", key=str, value=str)).join(table, side_by_side, name="pair").to("o")
    with pytest.raises(
        TopologyError,
        match=r"'pair' .* partition counts: left has 4, right has 2\..*\.repartition\(\)",
    ):
        app.topology().partition_counts({"left": 4, "right": 2})


def test_joins_that_do_not_fit() -> None:
    app = App("wrong")
    numbers = app.topic("numbers", key=int, value=str).table()
    everywhere = app.global_table(app.topic("everywhere"))
    stream = app.stream(app.topic("in", key=str, value=str))
    windowed = stream.group_by_key().window(tumbling(5)).count()
    with pytest.raises(TopologyError, match="keys of type str, table 'numbers' has int"):
        stream.join(numbers, side_by_side)
    with pytest.raises(TopologyError, match="'everywhere' needs key="):
        stream.join(everywhere, side_by_side)
    with pytest.raises(TopologyError, match=r"key=\.\.\. is for global"):
        stream.join(numbers, side_by_side, key=lambda value: value)
    with pytest.raises(TopologyError, match="'in-count' is windowed"):
        stream.join(windowed, side_by_side)
