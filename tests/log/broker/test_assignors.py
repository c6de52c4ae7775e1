"""range and roundrobin: the cases of Kafka's own unit tests, and what must hold for any group."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.broker.assignors import ASSIGNORS, GroupMember
from millstream.log.record import TopicPartition
from shared.assignors import assign, member, tps, wanted

# (members, partitions, expected), from RangeAssignorTest and RoundRobinAssignorTest.
BOTH = [member("c1", "t1 t2"), member("c2", "t1 t2")]
MIXED = [member("c1", "t1"), member("c2", "t1 t2"), member("c3", "t1")]
STATIC = [
    member("consumer-b", "t1 t2", instance="instance1"),
    member("consumer-a", "t1 t2", instance="instance2"),
]
STATIC_AND_NOT = [STATIC[0], member("consumer-a", "t1 t2")]
THREE_STATIC = [member(f"c{n}", "t1 t2", instance=f"instance{n}") for n in (1, 2, 3)]


@pytest.mark.parametrize("name", ["range", "roundrobin"])
@pytest.mark.parametrize(
    ("members", "partitions", "expected"),
    [
        ([member("c1", "")], {}, {"c1": ""}),
        ([member("c1", "t1")], {}, {"c1": ""}),
        ([member("c1", "t1")], {"t1": 3}, {"c1": "t1-0 t1-1 t1-2"}),
        ([member("c1", "t1")], {"t1": 3, "other": 3}, {"c1": "t1-0 t1-1 t1-2"}),
        ([member("c1", "t1 t2")], {"t1": 1, "t2": 2}, {"c1": "t1-0 t2-0 t2-1"}),
        ([member("c1", "t1"), member("c2", "t1")], {"t1": 1}, {"c1": "t1-0", "c2": ""}),
        ([member("c1", "t1"), member("c2", "t1")], {"t1": 2}, {"c1": "t1-0", "c2": "t1-1"}),
    ],
)
def test_where_both_agree(
    name: str, members: list[GroupMember], partitions: dict[str, int], expected: dict[str, str]
) -> None:
    assert assign(name, members, partitions) == {each: tps(text) for each, text in expected.items()}


@pytest.mark.parametrize(
    ("members", "partitions", "expected"),
    [
        (MIXED, {"t1": 3, "t2": 2}, {"c1": "t1-0", "c2": "t1-1 t2-0 t2-1", "c3": "t1-2"}),
        (BOTH, {"t1": 3, "t2": 3}, {"c1": "t1-0 t1-1 t2-0 t2-1", "c2": "t1-2 t2-2"}),
        (
            STATIC,
            {"t1": 3, "t2": 3},
            {"consumer-b": "t1-0 t1-1 t2-0 t2-1", "consumer-a": "t1-2 t2-2"},
        ),
        (
            STATIC_AND_NOT,
            {"t1": 3, "t2": 3},
            {"consumer-b": "t1-0 t1-1 t2-0 t2-1", "consumer-a": "t1-2 t2-2"},
        ),
        (
            [*THREE_STATIC, member("consumer5", "t1 t2")],
            {"t1": 5, "t2": 4},
            {
                "c1": "t1-0 t1-1 t2-0",
                "c2": "t1-2 t2-1",
                "c3": "t1-3 t2-2",
                "consumer5": "t1-4 t2-3",
            },
        ),
    ],
)
def test_range_as_kafka(
    members: list[GroupMember], partitions: dict[str, int], expected: dict[str, str]
) -> None:
    for order in (members, members[::-1]):
        found = assign("range", order, partitions)
        assert found == {each: tps(text) for each, text in expected.items()}


@pytest.mark.parametrize(
    ("members", "partitions", "expected"),
    [
        (MIXED, {"t1": 3, "t2": 2}, {"c1": "t1-0", "c2": "t1-1 t2-0 t2-1", "c3": "t1-2"}),
        (BOTH, {"t1": 3, "t2": 3}, {"c1": "t1-0 t1-2 t2-1", "c2": "t1-1 t2-0 t2-2"}),
        (
            STATIC,
            {"t1": 3, "t2": 3},
            {"consumer-b": "t1-0 t1-2 t2-1", "consumer-a": "t1-1 t2-0 t2-2"},
        ),
        (
            STATIC_AND_NOT,
            {"t1": 3, "t2": 3},
            {"consumer-b": "t1-0 t1-2 t2-1", "consumer-a": "t1-1 t2-0 t2-2"},
        ),
        (  # the example of the class's documentation
            [member("c0", "t0"), member("c1", "t0 t1"), member("c2", "t0 t1 t2")],
            {"t0": 1, "t1": 2, "t2": 3},
            {"c0": "t0-0", "c1": "t1-0", "c2": "t1-1 t2-0 t2-1 t2-2"},
        ),
    ],
)
def test_roundrobin_as_kafka(
    members: list[GroupMember], partitions: dict[str, int], expected: dict[str, str]
) -> None:
    for order in (members, members[::-1]):
        found = assign("roundrobin", order, partitions)
        assert found == {each: tps(text) for each, text in expected.items()}


@pytest.mark.parametrize("name", ["range", "roundrobin"])
def test_a_restarted_static_member_moves_nothing(name: str) -> None:
    """Other member ids, in another order: by instance everything is as it was."""
    partitions = {"t1": 5, "t2": 5}
    shuffled = [
        each._replace(member_id=f"c{9 - number}") for number, each in enumerate(THREE_STATIC)
    ]
    before, after = (
        {each.group_instance_id: found[each.member_id] for each in members}
        for members in (THREE_STATIC, shuffled)
        for found in [assign(name, members, partitions)]
    )
    assert before == after


def test_range_lines_topics_up() -> None:
    members = [member(f"m{n}", "a b") for n in range(3)]
    for partitions in assign("range", members, {"a": 7, "b": 7}).values():
        by_topic = {topic: [p for t, p in partitions if t == topic] for topic in ("a", "b")}
        assert by_topic["a"] == by_topic["b"]


@pytest.mark.parametrize("name", sorted(ASSIGNORS))
@given(
    topics=st.dictionaries(st.sampled_from("mnopq"), st.sets(st.sampled_from("abcx")), min_size=1),
    partitions=st.dictionaries(st.sampled_from("abc"), st.integers(1, 9)),
)
def test_every_wanted_partition_has_one_owner(
    name: str, topics: dict[str, set[str]], partitions: dict[str, int]
) -> None:
    members = [member(who, " ".join(sorted(each))) for who, each in topics.items()]
    assigned = assign(name, members, partitions)
    assert assigned.keys() == topics.keys()
    owned: list[TopicPartition] = [each for mine in assigned.values() for each in mine]
    assert sorted(owned) == wanted(members, partitions)
    for who, mine in assigned.items():
        assert {topic for topic, _ in mine} <= topics[who]
    assert assign(name, members[::-1], partitions) == assigned
    if len({frozenset(each) for each in topics.values()}) == 1 and name != "range":
        sizes = [len(mine) for mine in assigned.values()]
        assert max(sizes) - min(sizes) <= 1
