"""Counts behind a new key: parts are counted before the repartition topic and added behind it."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.streams.app import App
from millstream.streams.errors import ProcessingError
from millstream.streams.nodes import CountPartsNode
from millstream.streams.testing import TestDriver
from millstream.streams.windows import tumbling
from shared.tasks import OneTask, batch_of


def word_count() -> App:
    app = App("words")
    lines = app.topic("lines", key=str, value=str)
    app.stream(lines).flat_map_values(str.split).group_by(lambda w: w).count(name="n").to("counts")
    return app


@given(st.lists(st.lists(st.sampled_from("abc"), max_size=5).map(" ".join), max_size=20))
def test_word_count_is_exact(lines: list[str]) -> None:
    driver = TestDriver(word_count(), partitions=3)
    for line in lines:
        driver.send("lines", line)
    expected = Counter(word for line in lines for word in line.split())
    assert dict(driver.store("n").items()) == dict(expected)
    last = {record.key: record.value for record in driver.read("counts")}
    assert last == dict(expected)


def test_a_key_is_sent_once_per_flush_with_its_count() -> None:
    one = OneTask(word_count())
    rows = [(None, b"to be or not to be", 5), (b"k", b"be", 9), (b"k", None, 3)]
    one.process(batch_of("lines", rows[:2]))
    assert one.task.take_outputs() == []
    one.commit()
    sent = one.sent["words-n-repartition"]
    assert [(key, int.from_bytes(value or b"", "big")) for key, value, _ in sent] == [
        (b"to", 2),
        (b"be", 3),
        (b"or", 1),
        (b"not", 1),
    ]
    assert {timestamp for _, _, timestamp in sent} == {9}
    one.commit()
    assert len(one.sent["words-n-repartition"]) == 4


def test_very_many_keys_are_sent_before_the_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("millstream.streams.task.COUNTED_KEYS_MAX", 3)
    one = OneTask(word_count())
    one.process(batch_of("lines", [(None, b"a b c", 1)]))
    assert one.task.take_outputs() == []
    one.process(batch_of("lines", [(None, b"c d", 1)]))
    [columns] = one.task.take_outputs()
    assert columns.keys == [b"a", b"b", b"c", b"d"]
    assert columns.values[2] == (2).to_bytes(8, "big")


def test_nulls_are_dropped() -> None:
    app = App("nulls")
    stream = app.stream(app.topic("in", key=str, value=str))
    stream.group_by(lambda value, key: key).count().to("out")
    driver = TestDriver(app)
    driver.send("in", "x", key=None)
    driver.send("in", None, key="k")
    driver.send("in", "x", key="k")
    assert [(r.key, r.value) for r in driver.read("out")] == [("k", 1)]
    assert driver.counters.dropped == 2


def test_keys_that_are_equal_but_not_the_same_are_not_counted_together() -> None:
    """1 == True == 1.0 in a dict; as JSON keys they are three."""
    app = App("json")
    stream = app.stream(app.topic("in", key=str, value=list))
    stream.group_by(lambda values: values[0], key_type=list).count(name="n").to("out")
    driver = TestDriver(app)
    for first in (1, True, 1.0, 1):
        driver.send("in", [first])
    assert [(str(k), n) for k, n in driver.store("n").items()] == [
        ("1", 2),
        ("1.0", 1),
        ("True", 1),
    ]


def test_a_key_of_another_type_names_the_step() -> None:
    app = App("wrong")
    stream = app.stream(app.topic("in", key=str, value=dict))
    stream.group_by(lambda value: value["n"]).count(name="n").to("out")
    driver = TestDriver(app)
    with pytest.raises(ProcessingError, match=r"the key 5, which is not str.*key_type="):
        driver.send("in", {"n": 5})


def test_windowed_counts_are_not_counted_in_parts() -> None:
    """What is late would depend on when a commit happens."""
    app = App("windowed")
    stream = app.stream(app.topic("in", key=str, value=str))
    stream.group_by(lambda value: value).window(tumbling(10)).count(name="n").final().to("out")
    nodes = [node for part in app.topology().subtopologies for node in part.nodes]
    assert not any(isinstance(node, CountPartsNode) for node in nodes)
    driver = TestDriver(app)
    for timestamp in (0, 5, 15):
        driver.send("in", "x", timestamp=timestamp)
    assert [(r.key.key, r.value) for r in driver.read("out")] == [("x", 2)]
