"""Assignors: Kafka's documented examples, and what must hold for any group."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.broker.assignors import ASSIGNORS, assign_range, assign_roundrobin
from millstream.log.record import TopicPartition


def numbers(assigned: dict[str, list[TopicPartition]]) -> dict[str, list[str]]:
    return {member: [f"{t}{p}" for t, p in partitions] for member, partitions in assigned.items()}


def test_range_as_in_kafkas_documentation() -> None:
    """RangeAssignor: two members, t0 and t1 with three partitions each."""
    both = {"C0": ["t0", "t1"], "C1": ["t0", "t1"]}
    assert numbers(assign_range(both, {"t0": 3, "t1": 3})) == {
        "C0": ["t00", "t01", "t10", "t11"],
        "C1": ["t02", "t12"],
    }


def test_roundrobin_as_in_kafkas_documentation() -> None:
    """RoundRobinAssignor: equal subscriptions, and the example with different ones."""
    both = {"C0": ["t0", "t1"], "C1": ["t0", "t1"]}
    assert numbers(assign_roundrobin(both, {"t0": 3, "t1": 3})) == {
        "C0": ["t00", "t02", "t11"],
        "C1": ["t01", "t10", "t12"],
    }
    different = {"C0": ["t0"], "C1": ["t0", "t1"], "C2": ["t0", "t1", "t2"]}
    assert numbers(assign_roundrobin(different, {"t0": 1, "t1": 2, "t2": 3})) == {
        "C0": ["t00"],
        "C1": ["t10"],
        "C2": ["t11", "t20", "t21", "t22"],
    }


def test_range_lines_topics_up() -> None:
    members = {f"m{n}": ["a", "b"] for n in range(3)}
    for partitions in assign_range(members, {"a": 7, "b": 7}).values():
        by_topic = {topic: [p for t, p in partitions if t == topic] for topic in ("a", "b")}
        assert by_topic["a"] == by_topic["b"]


@pytest.mark.parametrize("name", sorted(ASSIGNORS))
@given(
    subscriptions=st.dictionaries(
        st.sampled_from("mnopq"), st.sets(st.sampled_from("abcx")), min_size=1
    ),
    partitions=st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)),
)
def test_every_wanted_partition_has_one_owner(
    name: str, subscriptions: dict[str, set[str]], partitions: dict[str, int]
) -> None:
    assigned = ASSIGNORS[name](subscriptions, partitions)
    assert assigned.keys() == subscriptions.keys()
    owned = [each for mine in assigned.values() for each in mine]
    wanted = {topic for topics in subscriptions.values() for topic in topics}
    assert sorted(owned) == [
        TopicPartition(topic, number)
        for topic, count in sorted(partitions.items())
        if topic in wanted
        for number in range(count)
    ]
    for member, mine in assigned.items():
        assert {topic for topic, _ in mine} <= subscriptions[member]
    if len({frozenset(topics) for topics in subscriptions.values()}) == 1 and name == "roundrobin":
        sizes = [len(mine) for mine in assigned.values()]
        assert max(sizes) - min(sizes) <= 1
