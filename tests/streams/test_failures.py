"""Records that fail: which record, which step, and what becomes of it and its neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.errors import MillstreamError, StorageError
from millstream.log.record import Record
from millstream.streams.app import App
from millstream.streams.errors import ErrorPolicy, ProcessingError, SerdeError, StreamsError
from millstream.streams.testing import TestDriver
from millstream.streams.windows import tumbling
from shared.tasks import OneTask, batch_of


def halves(**options: Any) -> App:
    app = App("halves", **options)
    source = app.topic("in", key=str, value=dict)

    @app.stream(source, to="out")
    def half(value: dict[str, int]) -> float:
        return value["n"] / 2

    return app


def test_a_failing_function_stops_the_app_and_is_named() -> None:
    driver = TestDriver(halves())
    driver.send("in", {"n": 1}, key="k")
    with pytest.raises(ProcessingError) as caught:
        driver.send("in", {"m": 1}, key="k")
    error = caught.value
    assert (error.topic, error.partition, error.offset) == ("in", 0, 1)
    assert (error.step, error.function.split(":")[0]) == ("half", "half() (test_failures.py")
    assert isinstance(error.__cause__, KeyError)
    assert str(error).startswith("step 'half' called half() (test_failures.py:")
    assert "for in-0 at offset 1: KeyError: 'n'. Mend the function" in str(error)


@given(st.sets(st.integers(0, 11)), st.sampled_from(["skip", "dead_letter"]))
def test_neighbours_of_failing_records_are_neither_lost_nor_doubled(
    bad: set[int], policy: ErrorPolicy
) -> None:
    one = OneTask(halves(on_error=policy))
    values = [b"{}" if i in bad else b'{"n":%d}' % (2 * i) for i in range(12)]
    one.process(batch_of("in", [(b"k%d" % i, value, i) for i, value in enumerate(values)]))
    one.commit()
    good = [i for i in range(12) if i not in bad]
    assert [(key, ts) for key, _, ts in one.sent.get("out", [])] == [(b"k%d" % i, i) for i in good]
    letters = one.sent.get("halves-dead-letter", [])
    counters = one.task.counters
    if policy == "skip":
        assert (letters, counters.skipped, counters.dead_letters) == ([], len(bad), 0)
    else:
        assert [(key, ts) for key, _, ts in letters] == [(b"k%d" % i, i) for i in sorted(bad)]
        assert (counters.skipped, counters.dead_letters) == (0, len(bad))


def test_what_cannot_be_read_is_a_dead_letter_by_default() -> None:
    driver = TestDriver(halves())
    driver.send("in", b"{broken", key=b"\xff", timestamp=77, headers={"own": b"1"})
    driver.send("in", {"n": 4}, key="k")
    [letter] = driver.read("halves-dead-letter")
    assert (letter.key, letter.value, letter.timestamp) == (b"\xff", b"{broken", 77)
    headers = dict(letter.headers)
    assert headers["own"] == b"1"
    prefix = "__streams.errors."
    assert {name.removeprefix(prefix) for name in headers if name.startswith(prefix)} == {
        "exception",
        "message",
        "stacktrace",
        "topic",
        "partition",
        "offset",
    }
    assert (headers[prefix + "topic"], headers[prefix + "partition"]) == (b"in", b"0")
    assert headers[prefix + "exception"] == b"orjson.JSONDecodeError"
    assert b"JSONDecodeError" in (headers[prefix + "stacktrace"] or b"")
    assert [r.value for r in driver.read("out")] == [2.0]


def test_what_cannot_be_read_may_stop_the_app() -> None:
    driver = TestDriver(halves(on_deserialization_error="fail"))
    with pytest.raises(SerdeError, match="the value of in-0 at offset 0 cannot be read") as caught:
        driver.send("in", b"[", key="k")
    assert (caught.value.topic, caught.value.partition, caught.value.offset) == ("in", 0, 0)


def test_a_key_is_read_only_when_somebody_asks() -> None:
    driver = TestDriver(halves())
    driver.send("in", {"n": 2}, key=b"\xff")
    assert driver.counters.dead_letters == 0
    with pytest.raises(UnicodeDecodeError):  # the test itself asks here
        driver.read("out")

    app = App("asks")
    app.stream(app.topic("in", key=str, value=dict)).filter(lambda value, key: key).to("out")
    driver = TestDriver(app)
    driver.send("in", {"n": 2}, key=b"\xff")
    [letter] = driver.read("asks-dead-letter")
    assert b"the key of in-0 at offset 0" in (
        dict(letter.headers)["__streams.errors.message"] or b""
    )


def test_a_function_decides() -> None:
    asked: list[tuple[StreamsError, Record]] = []

    def decide(error: StreamsError, record: Record) -> ErrorPolicy:
        asked.append((error, record))
        return "skip" if record.key == b"a" else "dead_letter"

    driver = TestDriver(halves(on_error=decide))
    for key in ("a", "b"):
        driver.send("in", {}, key=key)
    assert [letter.key for letter in driver.read("halves-dead-letter")] == [b"b"]
    assert isinstance(asked[0][0], ProcessingError)
    assert (asked[1][1].offset, asked[1][1].value) == (1, b"{}")


def test_a_decision_that_is_none() -> None:
    driver = TestDriver(halves(on_error=lambda error, record: "retry"))
    with pytest.raises(StreamsError, match="on_error answered 'retry'"):
        driver.send("in", {})


def test_a_step_has_a_policy_of_its_own() -> None:
    app = App("steps")
    stream = app.stream(app.topic("in", key=str, value=int))
    stream.map_values(lambda n: 10 // n, on_error="skip").map_values(lambda n: 10 // (n - 1)).to(
        "o"
    )
    driver = TestDriver(app)
    driver.send("in", 0)
    driver.send("in", 5)
    with pytest.raises(ProcessingError, match="step 'map_values-2'"):
        driver.send("in", 10)
    assert [r.value for r in driver.read("o")] == [10]


def test_a_result_that_cannot_be_written() -> None:
    app = App("results", on_error="dead_letter")
    stream = app.stream(app.topic("in", key=str, value=int))
    stream.map_values(lambda n: {1: 2} if n == 1 else n).to("out")
    driver = TestDriver(app)
    for n in (0, 1, 2):
        driver.send("in", n, key="k")
    assert [(r.key, r.value) for r in driver.read("out")] == [("k", 0), ("k", 2)]
    [letter] = driver.read("results-dead-letter")
    assert b"could not write its result" in (
        dict(letter.headers)["__streams.errors.message"] or b""
    )


def test_a_key_that_cannot_be_written_leaves_columns_even() -> None:
    app = App("keys", on_error="skip")
    stream = app.stream(app.topic("in", key=str, value=int))
    stream.key_by(lambda n: "k" if n else 5).to("out")
    driver = TestDriver(app)
    for n in (1, 0, 2):
        driver.send("in", n, key="x")
    assert [(r.key, r.value) for r in driver.read("out")] == [("k", 1), ("k", 2)]


def test_what_was_sent_before_a_record_failed_stays() -> None:
    app = App("many", on_error="skip")

    @app.stream(app.topic("in", key=str, value=int), to="out")
    def up(n: int) -> Iterator[int]:
        for i in range(n):
            if i == 2:
                raise ValueError
            yield i

    driver = TestDriver(app)
    driver.send("in", 5)
    driver.send("in", 1)
    assert [r.value for r in driver.read("out")] == [0, 1, 0]


def test_a_state_is_not_changed_by_a_fold_that_fails() -> None:
    app = App("folds", on_error="skip")

    @app.table(app.topic("in", key=str, value=int))
    def total(total: int, n: int) -> int:
        return total + 10 // n

    driver = TestDriver(app)
    for n in (5, 0, 2):
        driver.send("in", n, key="k")
    assert driver.store("total").get("k") == 7


def test_a_failure_behind_a_closing_window_costs_one_key() -> None:
    app = App("closing", on_error="dead_letter")
    counts = app.stream(app.topic("in", key=str, value=int)).group_by_key().window(tumbling(10))

    def check(n: int, key: Any) -> int:
        if key.key == "b":
            raise ValueError("not b")
        return n

    counts.count(name="n").final().map_values(check).to("out")
    driver = TestDriver(app)
    for key in ("a", "b", "c"):
        driver.send("in", 1, key=key, timestamp=3)
    driver.send("in", 1, key="d", timestamp=10)
    assert [r.key.key for r in driver.read("out")] == ["a", "c"]
    [letter] = driver.read("closing-dead-letter")
    assert (letter.key, letter.value) == (b"b" + bytes(8), (1).to_bytes(8, "big"))
    assert dict(letter.headers)["__streams.errors.topic"] == b"closing-n-changelog"
    assert driver.store("n").get("d", 10) == 1


def test_a_failure_behind_a_closing_window_stops_the_app_once() -> None:
    app = App("closing")
    counts = app.stream(app.topic("in", key=str, value=int)).group_by_key().window(tumbling(10))
    counts.count(name="n").final().map_values(lambda n: n // 0, name="boom").to("out")
    driver = TestDriver(app)
    driver.send("in", 1, key="a", timestamp=3)
    with pytest.raises(ProcessingError, match="step 'boom'") as caught:
        driver.send("in", 1, key="a", timestamp=10)
    assert caught.value.topic == "closing-n-changelog"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_what_a_store_raises_is_not_the_fault_of_the_record() -> None:
    app = App("stores", on_error="skip")
    app.stream(app.topic("in", key=str, value=str)).group_by_key().count(name="n")
    one = OneTask(app)

    class Broken:
        overlay: dict[bytes, Any] = {}  # noqa: RUF012 - never filled

        def load(self, key: bytes) -> None:
            raise StorageError("the disk is gone")

    broken: Any = Broken()
    one.stores["n"] = broken
    one.task = one._start(-1)
    with pytest.raises(MillstreamError, match="the disk is gone") as caught:
        one.process(batch_of("in", [(b"k", b"v", 0)]))
    assert isinstance(caught.value, StorageError)


def test_an_error_that_is_no_exception_goes_through() -> None:
    app = App("stops", on_error="skip")

    def stop(value: str) -> str:
        raise KeyboardInterrupt

    app.stream(app.topic("in", key=str, value=str)).map_values(stop)
    with pytest.raises(KeyboardInterrupt):
        TestDriver(app).send("in", "x")
