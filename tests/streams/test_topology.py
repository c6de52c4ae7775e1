"""Names, sub-topologies and partition counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from millstream.streams.app import App
from millstream.streams.errors import TopologyError
from millstream.streams.topology import changelog_topic
from millstream.streams.windows import tumbling


def stores(app: App) -> list[str]:
    return sorted(spec.name for part in app.topology().subtopologies for spec in part.stores)


def test_state_is_named_after_what_it_belongs_to() -> None:
    app = App("names")
    orders = app.topic("orders", key=str, value=dict)

    def by_city(order: dict[str, Any]) -> str:
        return str(order["city"])

    def largest(a: Any, b: Any) -> Any:
        return max(a, b)

    app.stream(orders).group_by_key().count()
    app.stream(orders).group_by(by_city).count()
    app.stream(orders).group_by(by_city).reduce(largest)
    app.stream(orders).group_by_key().count(name="given")

    @app.stream(orders)
    def large(order: dict[str, Any]) -> dict[str, Any]:
        return order

    large.group_by_key().count()

    @app.table(large)
    def total(total: int, order: dict[str, Any]) -> int:
        return total

    @app.pipeline
    def busiest() -> None:
        app.stream(orders).group_by(lambda order: order["city"]).count()

    assert stores(app) == [
        "busiest-count",
        "by_city-count",
        "given",
        "large-count",
        "largest",
        "orders-count",
        "total",
    ]
    assert changelog_topic("names", "total") == "names-total-changelog"
    assert sorted(topic.name for topic in app.topology().repartition_topics) == [
        "names-busiest-count-repartition",
        "names-by_city-count-repartition",
        "names-largest-repartition",
    ]


def test_a_step_more_renames_nobodys_state() -> None:
    def build(more: bool) -> list[str]:
        app = App("steady")
        stream = app.stream(app.topic("orders", key=str, value=dict))
        if more:
            stream.filter(bool).map_values(lambda order: order).group_by_key().reduce(
                lambda a, b: b, name="other"
            )
            stream = stream.filter(lambda order: order["n"]).peek(print)
        stream.group_by(lambda order: order["city"]).count()
        return stores(app)

    assert build(False) == ["orders-count"]
    assert set(build(False)) < set(build(True))


@pytest.mark.parametrize("second", ["count", "stream", "table", "pipeline"])
def test_two_of_one_name_are_refused(second: str) -> None:
    app = App("twice")
    orders = app.topic("orders", key=str, value=dict)
    app.stream(orders).group_by_key().count(name="busiest")

    def busiest(*values: Any) -> None:
        return None

    again: dict[str, Callable[[], object]] = {
        "count": lambda: app.stream(orders).group_by_key().count(name="busiest"),
        "stream": lambda: app.stream(orders)(busiest),
        "table": lambda: app.table(orders, init=0)(busiest),
        "pipeline": lambda: app.pipeline(busiest),
    }
    with pytest.raises(TopologyError, match=r"would both be called 'busiest'; give one of them"):
        again[second]()


def test_a_topic_is_declared_once() -> None:
    app = App("twice")
    app.topic("orders")
    with pytest.raises(TopologyError, match="'orders' is declared twice"):
        app.topic("orders")


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 201, ".", "a/b"])
def test_names_no_topic_can_have(name: str) -> None:
    app = App("bad")
    with pytest.raises(TopologyError, match="cannot be called"):
        app.stream(app.topic("in")).group_by_key().count(name=name)
    with pytest.raises(TopologyError, match="an app cannot be called"):
        App(name)


def test_a_lambda_names_no_stream() -> None:
    app = App("lambda")
    with pytest.raises(TopologyError, match="a lambda has no name"):
        app.stream(app.topic("in"))(lambda value: value)


def test_pipelines_do_not_nest() -> None:
    app = App("nested")

    def outer() -> None:
        app.pipeline(inner)

    def inner() -> None:
        raise AssertionError

    with pytest.raises(TopologyError, match="contains another pipeline"):
        app.pipeline(outer)


def test_sub_topologies_are_cut_at_topics_and_come_upstream_first() -> None:
    app = App("cut")
    words = app.stream(app.topic("through", key=str, value=str))
    words.group_by(lambda word: word).window(tumbling(5)).count(name="n").final().to("out")
    app.stream(app.topic("in", key=str, value=str)).to("through")
    table = app.topic("names", key=str, value=str).table()
    app.stream(app.topic("people", key=str, value=str)).join(table, lambda a, b: a).to("joined")
    parts = app.topology().subtopologies
    assert [(part.id, part.sources, part.sinks, sorted(part.upstream)) for part in parts] == [
        (0, ("in",), ("through",), []),
        (1, ("through",), ("cut-n-repartition",), [0]),
        (2, ("cut-n-repartition",), ("out",), [1]),
        (3, ("names", "people"), ("joined",), []),
    ]
    assert [spec.name for part in parts for spec in part.stores] == ["n", "names"]


def test_topics_in_a_circle_are_ordered_all_the_same() -> None:
    app = App("circle")
    a, b, c = (app.topic(name, key=str, value=str) for name in "abc")
    app.stream(a).to(b)
    app.stream(b).to(c)
    app.stream(c).to(a)
    parts = app.topology().subtopologies
    assert [(part.sources, sorted(part.upstream)) for part in parts] == [
        (("a",), [2]),
        (("b",), [0]),
        (("c",), [1]),
    ]


def test_partition_counts_of_repartition_topics() -> None:
    app = App("counts")
    a = app.stream(app.topic("a", key=str, value=str)).key_by(lambda v: v)
    a.repartition(name="asked", partitions=7).to("x")
    a.merge(app.stream(app.topic("b", key=str, value=str))).repartition(name="largest").key_by(
        lambda v: v
    ).repartition(name="next").to("y")
    counts = app.topology().partition_counts({"a": 2, "b": 5, "other": 1})
    assert counts == {
        "a": 2,
        "b": 5,
        "counts-asked-repartition": 7,
        "counts-largest-repartition": 5,
        "counts-next-repartition": 5,
    }


def test_a_topic_that_is_not_there() -> None:
    app = App("missing")
    app.stream(app.topic("a")).to("b")
    with pytest.raises(TopologyError, match=r"'missing' reads a, which the log does not have"):
        app.topology().partition_counts({})


def test_folds_over_merged_topics_need_the_same_partition_counts() -> None:
    app = App("folds")
    a, b = (app.stream(app.topic(name, key=str, value=str)) for name in "ab")
    a.merge(b).group_by_key().count(name="n")
    assert app.topology().partition_counts({"a": 3, "b": 3}) == {"a": 3, "b": 3}
    with pytest.raises(TopologyError, match=r"step .n. .*: a has 3, b has 2"):
        app.topology().partition_counts({"a": 3, "b": 2})


def test_two_joins_of_one_stream_agree() -> None:
    app = App("agree")
    x, y = (app.topic(name, key=str, value=str).table() for name in "xy")
    stream = app.stream(app.topic("s", key=str, value=str)).key_by(lambda v: v).repartition()
    stream.join(x, lambda a, b: a, name="one").join(y, lambda a, b: a, name="two").to("out")
    counts = app.topology().partition_counts({"s": 1, "x": 4, "y": 4})
    assert counts["agree-s-repartition-repartition"] == 4
    with pytest.raises(TopologyError, match="x has 4, y has 2"):
        app.topology().partition_counts({"s": 1, "x": 4, "y": 2})
