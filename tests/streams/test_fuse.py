"""Generated code: what passes untouched, headers, deep and wide topologies, tracebacks."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.record import Headers
from millstream.streams.app import App
from millstream.streams.errors import ProcessingError, TopologyError
from millstream.streams.fuse import fuse
from millstream.streams.stream import Stream
from millstream.streams.testing import TestDriver
from shared.tasks import OneTask, batch_of


def source_of(app: App, subtopology: int = 0) -> str:
    part = app.topology().subtopologies[subtopology]
    fused = fuse(part, app.id)
    return "".join(fused.program(node).program.source for node in fused.sources.values())


def test_bytes_nobody_changed_pass_through() -> None:
    app = App("raw")
    app.stream(app.topic("in", key=str, value=dict)).filter(lambda v: v["n"]).to("out")
    app.stream(app.topic("blob", key=str, value=dict)).to("copy")
    one = OneTask(app)
    one.process(batch_of("in", [(b"\xff", b'{ "n" : 2 }', 5)]))
    one.commit()
    assert one.sent["out"] == [(b"\xff", b'{ "n" : 2 }', 5)]
    other = OneTask(app, 1)
    other.process(batch_of("blob", [(b"\xfe", b"not JSON", 6), (None, None, 7)]))
    other.commit()
    assert other.sent["copy"] == [(b"\xfe", b"not JSON", 6), (None, None, 7)]


def test_a_value_is_decoded_and_encoded_once_for_all() -> None:
    calls: list[str] = []
    app = App("once")

    class Coded:
        @staticmethod
        def serialize(value: Any) -> bytes:
            calls.append("encode")
            return bytes([value])

        @staticmethod
        def deserialize(data: bytes) -> Any:
            calls.append("decode")
            return data[0]

    from millstream.streams.serde import Serde

    serde = Serde(Coded.serialize, Coded.deserialize, int)
    stream = app.stream(app.topic("in", key=str, value=serde))
    stream.filter(lambda n: n > 0).to(app.topic("a", key=str, value=serde))
    stream.filter(lambda n: n > 0).to(app.topic("b", key=str, value=serde))
    new = stream.map_values(lambda n: n + 1, value_type=serde)
    new.to(app.topic("c", key=str, value=serde))
    new.to(app.topic("d", key=str, value=serde))
    one = OneTask(app)
    one.process(batch_of("in", [(b"k", b"\x05", 0)]))
    one.commit()
    assert [one.values(topic) for topic in "abcd"] == [[b"\x05"], [b"\x05"], [b"\x06"], [b"\x06"]]
    assert calls == ["decode", "encode"]


headers_column = st.lists(st.sampled_from([(), (("a", b"1"),), (("a", None), ("b", b""))]))


@given(st.lists(st.tuples(st.booleans(), headers_column), max_size=4))
def test_headers_stay_with_their_records(batches: list[tuple[bool, list[Headers]]]) -> None:
    """Batches without headers run a variant that does not know them; columns stay even."""
    app = App("headers")
    source = app.stream(app.topic("in", key=str, value=int))
    source.filter(lambda n: n % 3 > 0).map_values(lambda n: n, value_type=int).to("out")
    one = OneTask(app)
    expected: list[Headers] = []
    number = 0
    for has_headers, column in batches:
        rows: list[Any] = []
        for headers in column:
            rows.append((b"k", number.to_bytes(8, "big"), 0))
            if number % 3:
                expected.append(headers if has_headers else ())
            number += 1
        one.process(batch_of("in", rows, headers=column if has_headers and column else None))
    one.commit()
    assert one.headers.get("out", []) == expected
    assert [int.from_bytes(v, "big") for v in one.values("out")] == [
        n for n in range(number) if n % 3
    ]


def test_headers_of_a_fold_are_those_of_the_record_that_changed_it() -> None:
    app = App("folds")
    app.stream(app.topic("in", key=str, value=int)).group_by_key().count().to("out")
    driver = TestDriver(app)
    driver.send("in", 1, key="k", headers={"h": b"1"})
    driver.send("in", 1, key="k")
    assert [r.headers for r in driver.read("out")] == [(("h", b"1"),), ()]


@pytest.mark.parametrize("length", [5, 40, 150])
def test_long_chains_of_filters(length: int) -> None:
    """Python nests neither twenty loops nor a hundred blocks."""
    app = App("long")
    stream = app.stream(app.topic("in", key=str, value=int))
    for i in range(length):
        stream = stream.filter(lambda n, i=i: n != i)
    stream.to("out")
    driver = TestDriver(app)
    for n in (0, length - 1, length):
        driver.send("in", n)
    assert [r.value for r in driver.read("out")] == [length]


def test_many_loops_in_each_other() -> None:
    app = App("loops")
    stream: Stream[Any, Any] = app.stream(app.topic("in", key=str, value=list))
    for _ in range(30):
        stream = stream.flat_map_values(lambda value: [value])
    stream.flat_map_values(lambda value: value).group_by_key().count(name="n").to("out")
    driver = TestDriver(app)
    driver.send("in", [1, 2, None], key="k")
    assert [r.value for r in driver.read("out")] == [1, 2]
    assert driver.counters.dropped == 1


def test_too_many_ways_through_branches_are_refused() -> None:
    app = App("wide")
    stream: Stream[Any, Any] = app.stream(app.topic("in", key=str, value=int))
    for _ in range(40):  # a million million ways: refused before they are written
        odd, even = stream.branch(lambda n: n % 2)
        stream = odd.merge(even)
    stream.to("out")
    with pytest.raises(TopologyError, match="too many ways lead through"):
        TestDriver(app).send("in", 1)


def test_a_failure_deep_in_a_chain_is_mapped_to_its_step() -> None:
    app = App("deep", on_error="dead_letter")
    stream = app.stream(app.topic("in", key=str, value=int))
    for _ in range(40):
        stream = stream.filter(lambda n: True)
    stream.map_values(lambda n: 1 // n, name="divide").to("out")
    driver = TestDriver(app)
    for n in (1, 0, 1):
        driver.send("in", n)
    assert [r.value for r in driver.read("out")] == [1, 1]
    [letter] = driver.read("deep-dead-letter")
    assert b"step 'divide'" in (dict(letter.headers)["__streams.errors.message"] or b"")


def test_a_traceback_shows_the_function_and_the_generated_line() -> None:
    app = App("traced")

    def divide(n: int) -> float:
        return 1 / n

    app.stream(app.topic("in", key=str, value=int)).map_values(divide).to("out")
    with pytest.raises(ProcessingError) as caught:
        TestDriver(app).send("in", 0)
    shown = "".join(traceback.format_exception(caught.value.__cause__))
    assert "in divide\n    return 1 / n" in shown
    assert "<millstream traced in" in shown
    assert "= divide_" in shown


def test_only_columns_somebody_needs_are_walked() -> None:
    app = App("columns")
    app.stream(app.topic("in", key=str, value=int)).peek(lambda n: None)
    assert "for v in rows_left" in source_of(app)


def test_counting_calls_nothing_per_record() -> None:
    app = App("inline")
    app.stream(app.topic("in", key=str, value=dict)).group_by_key().count()
    loop = source_of(app).split("in rows_left:")[1].split("except")[0]
    assert "decode" not in loop
    assert loop.count("(") == loop.count("get") + loop.count("load")


def test_a_word_that_is_its_own_key_is_not_called_for() -> None:
    app = App("identity")
    words = app.stream(app.topic("in", key=str, value=str))
    words.group_by(lambda word: word).count()
    assert "function" not in source_of(app)


def test_names_of_functions_that_are_python_keywords_or_foreign() -> None:
    app = App("names")

    def größe(n: int) -> int:
        return n

    größe.__name__ = "class"
    app.stream(app.topic("in", key=str, value=int)).map_values(größe).to("out")
    größe.__name__ = "größe"
    app.stream(app.topic("in2", key=str, value=int)).map_values(größe).to("out2")
    driver = TestDriver(app)
    driver.send("in", 3)
    driver.send("in2", 4)
    assert [r.value for r in (*driver.read("out"), *driver.read("out2"))] == [3, 4]


def test_an_empty_batch_is_nothing() -> None:
    app = App("empty")
    app.stream(app.topic("in", key=str, value=int)).group_by_key().count().to("out")
    one = OneTask(app)
    one.process(batch_of("in", []))
    one.commit()
    assert (one.sent, one.task.counters.records) == ({}, 0)
