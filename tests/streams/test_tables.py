"""Folds without windows, tables from topics, and how states begin."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.streams.app import App
from millstream.streams.errors import TopologyError
from millstream.streams.testing import TestDriver
from shared.tasks import OneTask, Row, batch_of


@dataclass
class Stats:
    count: int = 0
    words: list[str] = field(default_factory=list)


@dataclass
class Needy:
    needed: int


def app_and_grouped() -> tuple[App, Any]:
    app = App("tables")
    return app, app.stream(app.topic("in", key=str, value=str)).group_by_key()


def fed(app: App, *rows: tuple[str | None, str | None]) -> TestDriver:
    driver = TestDriver(app)
    for i, (key, value) in enumerate(rows):
        driver.send("in", value, key=key, timestamp=i)
    return driver


def pairs(driver: TestDriver, topic: str) -> list[tuple[Any, Any]]:
    return [(record.key, record.value) for record in driver.read(topic)]


def test_count() -> None:
    app, grouped = app_and_grouped()
    grouped.count().to("out")
    driver = fed(app, ("a", "x"), ("b", "x"), ("a", "y"), (None, "x"), ("a", None))
    assert pairs(driver, "out") == [("a", 1), ("b", 1), ("a", 2)]
    assert driver.counters.dropped == 2
    assert dict(driver.store("in-count").items()) == {"a": 2, "b": 1}


@given(
    st.lists(st.tuples(st.sampled_from([b"a", b"b", None]), st.sampled_from([b"v", None]))),
    st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_counting_is_the_same_whatever_batches_and_restarts(
    rows: list[tuple[bytes | None, bytes | None]], cuts: list[bool]
) -> None:
    app, grouped = app_and_grouped()
    grouped.count().to("out")
    one = OneTask(app)
    batch: list[Row] = []
    expected: list[int] = []
    counts: dict[bytes, int] = {}
    for i, (key, value) in enumerate(rows):
        batch.append((key, value, i))
        if key is not None and value is not None:
            counts[key] = counts.get(key, 0) + 1
            expected.append(counts[key])
        if cuts[i % len(cuts)]:
            one.process(batch_of("in", batch))
            batch = []
            one.restart()
    one.process(batch_of("in", batch))
    one.commit()
    assert [int.from_bytes(value, "big") for value in one.values("out")] == expected


def test_reduce_begins_with_the_first_value() -> None:
    app, grouped = app_and_grouped()
    grouped.reduce(lambda a, b: a + b).to("out")
    driver = fed(app, ("a", "x"), ("a", "y"), ("b", "z"), ("a", "!"))
    assert pairs(driver, "out") == [("a", "x"), ("a", "xy"), ("b", "z"), ("a", "xy!")]


def test_aggregate_with_a_callable_a_value_and_a_mutable_value() -> None:
    app, grouped = app_and_grouped()

    def put(words: list[str], word: str) -> list[str]:
        return [*words, word]

    grouped.aggregate(list, put, name="callable").to("callable")
    grouped.aggregate([], put, name="value").to("value")
    grouped.aggregate(10, lambda n, word: n + 1, name="ten").to("ten")
    driver = fed(app, ("a", "x"), ("b", "y"), ("a", "z"))
    expected = [("a", ["x"]), ("b", ["y"]), ("a", ["x", "z"])]
    assert pairs(driver, "callable") == pairs(driver, "value") == expected
    assert pairs(driver, "ten") == [("a", 11), ("b", 11), ("a", 12)]


def test_a_decorated_fold_begins_with_the_zero_of_its_type() -> None:
    app, _ = app_and_grouped()
    source = app.stream(app.topic("more", key=str, value=str))

    @app.table(source)
    def stats(stats: Stats, word: str) -> Stats:
        return Stats(stats.count + 1, [*stats.words, word])

    @app.table(source)
    def lengths(lengths: dict[str, int], word: str, key: str) -> dict[str, int]:
        return lengths | {f"{key}{word}": len(word)}

    @app.table(source)
    def first(state: str | None, word: str) -> str:
        return word if state is None else state

    assert stats(Stats(), "x") == Stats(1, ["x"])
    stats.to("stats")
    driver = TestDriver(app)
    for word in ("to", "be"):
        driver.send("more", word, key="k")
    assert driver.read("stats")[-1].value == Stats(2, ["to", "be"])
    assert driver.store("lengths").get("k") == {"kto": 2, "kbe": 2}
    assert driver.store("first").get("k") == "to"


@pytest.mark.parametrize("init", [list, []])
def test_a_state_changed_in_place_is_of_one_key_only(init: Any) -> None:
    app, grouped = app_and_grouped()

    def put(words: list[str], word: str) -> list[str]:
        words.append(word)
        return words

    grouped.aggregate(init, put, name="words").to("out")
    driver = fed(app, ("a", "x"), ("b", "y"), ("a", "z"))
    assert pairs(driver, "out") == [("a", ["x"]), ("b", ["y"]), ("a", ["x", "z"])]


def test_none_deletes_a_row() -> None:
    app, grouped = app_and_grouped()
    grouped.aggregate(0, lambda n, word: None if word == "end" else n + 1, name="n").to("out")
    driver = fed(app, ("a", "x"), ("a", "y"), ("a", "end"), ("a", "z"))
    assert pairs(driver, "out") == [("a", 1), ("a", 2), ("a", None), ("a", 1)]


def test_none_deletes_a_row_within_one_batch() -> None:
    """The deleted key is in the overlay as None: below it there is still the committed value."""
    app, grouped = app_and_grouped()
    grouped.aggregate(
        0, lambda n, word: None if word == "end" else n + 1, name="n", value_type=int
    ).to("out")
    one = OneTask(app)
    one.process(batch_of("in", [(b"a", b"x", 0), (b"a", b"x", 0)]))
    one.commit()
    one.process(batch_of("in", [(b"a", b"end", 0), (b"a", b"x", 0)]))
    one.commit()
    assert one.values("out")[-1] == (1).to_bytes(8, "big")


def test_states_that_cannot_begin() -> None:
    app, grouped = app_and_grouped()
    with pytest.raises(TopologyError, match="the state has to begin somehow"):
        grouped.aggregate(None, lambda state, word: state)

    def needy(state: Needy, word: str) -> Needy:
        return state

    with pytest.raises(TopologyError, match=r"Needy cannot begin by itself \(needed"):
        app.table(app.topic("other"))(needy)


def test_a_topic_as_a_table_follows_its_values() -> None:
    app = App("users")
    users = app.topic("users", key=int, value=Stats)
    users.table().changes().map_values(lambda user: user and user.count).to("counts")
    driver = TestDriver(app)
    driver.send("users", Stats(1), key=7)
    driver.send("users", Stats(2), key=7)
    assert driver.store("users").get(7) == Stats(2)
    driver.send("users", None, key=7)
    driver.send("users", Stats(9), key=None)
    assert pairs(driver, "counts") == [(7, 1), (7, 2), (7, None)]
    assert (len(driver.store("users")), driver.counters.dropped) == (0, 1)


def test_grouping_by_a_new_key_goes_through_a_repartition_topic() -> None:
    app, _ = app_and_grouped()
    stream = app.stream(app.topic("orders", key=str, value=dict))

    def city(order: dict[str, Any]) -> str:
        return str(order["city"])

    stream.group_by(city).reduce(lambda a, b: {"n": a["n"] + b["n"]}, name="sum").to("sums")
    assert [t.name for t in app.topology().repartition_topics] == ["tables-sum-repartition"]
    driver = TestDriver(app, partitions=3)
    for i in range(9):
        driver.send("orders", {"city": f"c{i % 2}", "n": i}, key=f"k{i}")
    assert driver.store("sum").get("c0") == {"n": 20}
    assert driver.store("sum").get("c1") == {"n": 16}


def test_key_types_of_group_by() -> None:
    app = App("typed")
    stream = app.stream(app.topic("in", key=str, value=dict))

    def number(value: dict[str, int]) -> int:
        return value["n"]

    stream.group_by(number).count(name="annotated").to("annotated")
    stream.group_by(lambda v: v["n"], key_type=int).count(name="said").to("said")
    driver = TestDriver(app)
    driver.send("in", {"n": 5})
    assert pairs(driver, "annotated") == pairs(driver, "said") == [(5, 1)]
