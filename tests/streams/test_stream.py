"""Each step without state, through the test driver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from millstream.streams.app import App
from millstream.streams.context import Context
from millstream.streams.errors import TopologyError
from millstream.streams.stream import Stream
from millstream.streams.testing import TestDriver


@dataclass
class Flight:
    carrier: str
    delay: int | None


@dataclass
class Late:
    carrier: str
    hours: float


FLIGHTS = [Flight("AA", 20), Flight("UA", 5), Flight("AA", None), Flight("DL", 90)]


def app_and_stream() -> tuple[App, Stream[str, Flight]]:
    app = App("test")
    return app, app.stream(app.topic("flights", key=str, value=Flight))


def fed(app: App, values: list[Any] | None = None) -> TestDriver:
    driver = TestDriver(app)
    for i, value in enumerate(FLIGHTS if values is None else values):
        driver.send("flights", value, key=f"k{i}", timestamp=1000 + i)
    return driver


def pairs(driver: TestDriver, topic: str) -> list[tuple[Any, Any]]:
    return [(record.key, record.value) for record in driver.read(topic)]


def test_a_decorated_function_is_a_function_and_a_stream() -> None:
    app, _ = app_and_stream()
    flights = app.topic("more", key=str, value=Flight)
    late_flights = app.topic("late", key=str, value=Late)

    @app.stream(flights, to=late_flights)
    def late(flight: Flight) -> Late | None:
        """Only these."""
        return Late(flight.carrier, flight.delay / 60) if flight.delay else None

    @app.stream(late, to="very-late")
    def very(late: Late) -> Late | None:
        return late if late.hours > 1 else None

    assert late(Flight("AA", 30)) == Late("AA", 0.5)
    assert (late.__name__, late.__doc__) == ("late", "Only these.")
    driver = TestDriver(app)
    driver.send("more", Flight("AA", 90), key="a", timestamp=7)
    driver.send("more", Flight("AA", None), key="b")
    driver.send("more", Flight("UA", 30), key="c")
    assert pairs(driver, "late") == [("a", Late("AA", 1.5)), ("c", Late("UA", 0.5))]
    [record] = driver.read("very-late")
    assert (record.key, record.value, record.timestamp) == ("a", Late("AA", 1.5), 7)


def test_a_generator_gives_many_and_none_is_left_out() -> None:
    app, _ = app_and_stream()
    lines = app.topic("lines", key=str, value=str)

    @app.stream(lines, to="words")
    def words(line: str) -> Iterator[str | None]:
        for word in line.split():
            yield word if word != "be" else None

    driver = TestDriver(app)
    driver.send("lines", "to be or", key="k")
    assert pairs(driver, "words") == [("k", "to"), ("k", "or")]


def test_filter_and_filter_not() -> None:
    app, flights = app_and_stream()
    flights.filter(lambda f: f.carrier == "AA").to("kept")
    flights.filter_not(lambda f, key: key == "k0").to("rest")
    driver = fed(app)
    assert [key for key, _ in pairs(driver, "kept")] == ["k0", "k2"]
    assert [key for key, _ in pairs(driver, "rest")] == ["k1", "k2", "k3"]


def test_map_values_keeps_none_as_null() -> None:
    app, flights = app_and_stream()
    flights.map_values(lambda f: f.delay, value_type=int).to("delays")
    assert pairs(fed(app), "delays") == [("k0", 20), ("k1", 5), ("k2", None), ("k3", 90)]


def test_flat_map_values_takes_any_iterable_and_none() -> None:
    app, flights = app_and_stream()
    flights.flat_map_values(lambda f: f.delay and [f.carrier, str(f.delay)]).to("parts")
    assert pairs(fed(app, FLIGHTS[1:3]), "parts") == [("k0", "UA"), ("k0", "5")]


def test_map_gives_key_and_value() -> None:
    app, flights = app_and_stream()

    def turned(flight: Flight, key: str) -> tuple[int, str]:
        return flight.delay or 0, key

    flights.map(turned).to("turned")
    assert pairs(fed(app), "turned") == [(20, "k0"), (5, "k1"), (0, "k2"), (90, "k3")]


def test_flat_map_gives_pairs() -> None:
    app, flights = app_and_stream()

    def both(flight: Flight) -> Iterator[tuple[str, int]]:
        yield flight.carrier, 1
        yield flight.carrier.lower(), 2

    flights.flat_map(both).to("both")
    assert pairs(fed(app, FLIGHTS[:1]), "both") == [("AA", 1), ("aa", 2)]


def test_map_must_be_annotated_with_a_pair() -> None:
    _, flights = app_and_stream()

    def no_pair(flight: Flight) -> int:
        return 1

    mapper: Any = no_pair
    with pytest.raises(TopologyError, match=r"must return a pair \(key, value\)"):
        flights.map(mapper)


def test_key_by_changes_the_key_only() -> None:
    app, flights = app_and_stream()
    flights.key_by(lambda f: f.carrier).to("by-carrier")
    assert [key for key, _ in pairs(fed(app), "by-carrier")] == ["AA", "UA", "AA", "DL"]


def test_merge_brings_streams_together_in_order() -> None:
    app, flights = app_and_stream()
    more = app.stream(app.topic("more", key=str, value=Flight))
    flights.filter(lambda f: f.carrier == "AA").merge(more).to("both")
    driver = TestDriver(app)
    for topic, carrier in [("flights", "AA"), ("more", "UA"), ("flights", "DL"), ("more", "XX")]:
        driver.send(topic, Flight(carrier, 1), key=carrier)
    assert [key for key, _ in pairs(driver, "both")] == ["AA", "UA", "XX"]


def test_a_stream_merged_with_a_moved_one_is_moved() -> None:
    app, flights = app_and_stream()
    flights.merge(flights.key_by(lambda f: f.carrier)).group_by_key().count(name="n")
    assert [t.name for t in app.topology().repartition_topics] == ["test-n-repartition"]


def test_merge_wants_keys_of_one_type() -> None:
    app, flights = app_and_stream()
    other: Any = app.stream(app.topic("more", key=int, value=Flight))
    with pytest.raises(TopologyError, match="keys of type str and int"):
        flights.merge(other)


def test_branches_that_are_merged_again_lose_and_double_nothing() -> None:
    app, flights = app_and_stream()
    late, punctual, rest = flights.branch(
        lambda f: f.delay is not None and f.delay > 15, lambda f: f.delay is not None
    )
    late.map_values(lambda f: "late").merge(
        punctual.map_values(lambda f: "punctual"), rest.map_values(lambda f: "unknown")
    ).to("kinds")
    assert [value for _, value in pairs(fed(app), "kinds")] == [
        "late",
        "punctual",
        "unknown",
        "late",
    ]


def test_the_rest_of_a_branching_need_not_be_used() -> None:
    app, flights = app_and_stream()
    flights.branch(lambda f: f.carrier == "AA")[0].to("american")
    assert len(fed(app).read("american")) == 2


def test_peek_and_print_show_and_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    app, flights = app_and_stream()
    seen: list[tuple[int, str, int]] = []
    flights.peek(lambda f, ctx: seen.append((ctx.offset, ctx.key, ctx.timestamp))).print().to("out")
    assert pairs(fed(app, FLIGHTS[:2]), "out") == [("k0", FLIGHTS[0]), ("k1", FLIGHTS[1])]
    assert seen == [(0, "k0", 1000), (1, "k1", 1001)]
    assert capsys.readouterr().out.startswith("[flights] k0 Flight(carrier='AA', delay=20)\n")


def test_a_context_tells_where_a_record_comes_from() -> None:
    app, flights = app_and_stream()
    seen: list[Context] = []

    def see(ctx: Context, flight: Flight) -> None:
        seen.append(ctx)

    flights.peek(see)
    driver = TestDriver(app, partitions=2)
    driver.send("flights", FLIGHTS[0], key="a", timestamp=50, partition=1, headers={"h": b"1"})
    driver.send("flights", FLIGHTS[0], key="a", timestamp=20, partition=1)
    first, second = seen
    assert (first.topic, first.partition, first.offset, first.timestamp, first.key) == (
        "flights",
        1,
        0,
        50,
        "a",
    )
    assert (first.headers, second.headers) == ((("h", b"1"),), ())
    assert (first.stream_time, second.stream_time) == (50, 50)


def test_through_goes_on_with_what_the_topic_gives() -> None:
    app, flights = app_and_stream()
    flights.map_values(lambda f: f.carrier, value_type=str).through("carriers").map_values(
        str.lower, value_type=str
    ).to("lower")
    driver = fed(app)
    assert [value for _, value in pairs(driver, "carriers")] == ["AA", "UA", "AA", "DL"]
    assert [value for _, value in pairs(driver, "lower")] == ["aa", "ua", "aa", "dl"]
    assert [s.upstream for s in app.topology().subtopologies] == [frozenset(), frozenset({0})]


def test_repartition_moves_records_to_the_partition_of_their_key() -> None:
    app, flights = app_and_stream()
    seen: set[tuple[str, int]] = set()
    flights.key_by(lambda f: f.carrier).repartition(partitions=3).peek(
        lambda f, ctx: seen.add((ctx.key, ctx.partition))
    )
    driver = TestDriver(app)
    for i in range(40):
        driver.send("flights", Flight(f"C{i % 10}", i))
    assert {key for key, _ in seen} == {f"C{i}" for i in range(10)}
    assert len(seen) == 10
    assert {partition for _, partition in seen} == {0, 1, 2}


def test_values_change_their_type_on_the_way_to_a_typed_topic() -> None:
    app = App("typed")
    source = app.topic("in", key=int, value=dict)
    app.stream(source).to(app.topic("out", key=int, value=Flight))
    driver = TestDriver(app)
    driver.send("in", {"carrier": "AA", "delay": 3}, key=5)
    assert pairs(driver, "out") == [(5, Flight("AA", 3))]


def test_the_same_bytes_do_not_pass_where_types_differ() -> None:
    app = App("differ")
    app.stream(app.topic("in", key=int, value=int)).to(app.topic("out", key=float, value=dict))
    driver = TestDriver(app)
    driver.send("in", 5, key=6)
    assert pairs(driver, "out") == [(6.0, 5)]


def test_nulls_reach_functions_as_none() -> None:
    app, flights = app_and_stream()
    flights.map_values(lambda f, key: f"{key} {f}").to("told")
    driver = TestDriver(app)
    driver.send("flights", None, key=None)
    assert pairs(driver, "told") == [(None, "None None")]


def test_a_null_that_becomes_a_key_is_a_null_key() -> None:
    app, flights = app_and_stream()
    flights.key_by(lambda flight: flight, key_type=Flight).to("own")
    driver = TestDriver(app)
    for flight in (None, FLIGHTS[0]):
        driver.send("flights", flight, key="k")
    assert [record.key for record in driver.read("own")] == [None, FLIGHTS[0]]


def test_event_time_from_the_value() -> None:
    app = App("times")
    source = app.topic("in", key=str, value=dict, timestamp=lambda value: value["at"])
    app.stream(source).to("out")
    driver = TestDriver(app)
    driver.send("in", {"at": 123}, timestamp=9)
    driver.send("in", None, timestamp=9)
    driver.send("in", {"at": "noon"}, timestamp=9)
    assert [record.timestamp for record in driver.read("out")] == [123, 9]
    [letter] = driver.read("times-dead-letter")
    assert b"noon" in dict(letter.headers)["__streams.errors.message"]


def test_a_pipeline_is_built_at_once_and_stays_a_function() -> None:
    app, flights = app_and_stream()

    @app.pipeline
    def busiest() -> None:
        flights.group_by(lambda f: f.carrier).count().to("busiest")

    assert callable(busiest)
    driver = fed(app)
    assert pairs(driver, "busiest")[-1] == ("DL", 1)
    assert driver.store("busiest-count").get("AA") == 2


@pytest.mark.parametrize(
    ("method", "options"),
    [("filter", {}), ("map", {}), ("flat_map", {}), ("key_by", {}), ("peek", {})],
)
def test_async_functions_are_refused_where_they_cannot_run(
    method: str, options: dict[str, Any]
) -> None:
    _, flights = app_and_stream()

    async def later(flight: Flight) -> bool:
        return True

    with pytest.raises(TopologyError, match=r"is async; only @app[.]stream and map_values"):
        getattr(flights, method)(later, **options)


def test_generators_are_refused_where_one_result_is_wanted() -> None:
    _, flights = app_and_stream()

    def many(flight: Flight) -> Iterator[int]:
        yield 1

    for method in (flights.filter, flights.map_values, flights.key_by, flights.peek):
        with pytest.raises(TopologyError, match="yields; use"):
            method(many)


def test_a_window_is_asked_for_where_there_is_none() -> None:
    _, flights = app_and_stream()
    with pytest.raises(TopologyError, match="asks for a window, but there is none"):
        flights.map_values(lambda flight, window: window)


def test_options_of_a_decorator_that_is_not_applied() -> None:
    app, _ = app_and_stream()
    app.stream(app.topic("other"), to="nowhere").filter(bool)
    with pytest.raises(TopologyError, match=r"to=\.\.\.\) decorates no function"):
        app.topology()


def test_concurrency_is_for_async_functions() -> None:
    _, flights = app_and_stream()
    with pytest.raises(TopologyError, match="is not async"):
        flights.map_values(lambda flight: flight, concurrency=3)
