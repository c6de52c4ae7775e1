"""sticky and cooperative-sticky: the cases of Kafka's own unit tests (AbstractStickyAssignorTest
and those of its two kinds), and what must hold for any group."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.log.broker.assignors import Assignments, GroupMember
from millstream.log.record import TopicPartition
from shared.assignors import assign, check, member, settle, tps

BOTH = ("sticky", "cooperative-sticky")
ANY = pytest.mark.parametrize("name", BOTH)


def again(
    members: Sequence[GroupMember],
    assigned: Assignments,
    *changed: GroupMember,
    without: Sequence[str] = (),
    generation: int = 1,
) -> list[GroupMember]:
    """The next rebalance: everybody claims what it was given; some are new, some gone."""
    kept = [
        member(
            who.member_id,
            " ".join(who.subscription.topics),
            assigned[who.member_id],
            generation,
        )
        for who in members
        if who.member_id not in without
        and who.member_id not in {each.member_id for each in changed}
    ]
    return [*kept, *changed]


def expect(assigned: Assignments, expected: dict[str, str]) -> None:
    assert {who: sorted(mine) for who, mine in assigned.items()} == {
        who: sorted(tps(text)) for who, text in expected.items()
    }


GIVEN = [
    # nothing is owned: dealt out in a circle
    ([member("c1", "")], {}, {"c1": ""}),
    ([member("c1", "t1")], {}, {"c1": ""}),
    ([member("c1", "t1")], {"t1": 3}, {"c1": "t1-0 t1-1 t1-2"}),
    (
        [member("c1", "t1", "t1-0 t1-1 other-0 other-1", 1)],
        {"t1": 2},
        {"c1": "t1-0 t1-1"},
    ),
    ([member("c1", "t1 t2")], {"t1": 1, "t2": 2}, {"c1": "t1-0 t2-0 t2-1"}),
    ([member("c1", "t1"), member("c2", "t1")], {"t1": 1}, {"c1": "t1-0", "c2": ""}),
    ([member("c1", "t1"), member("c2", "t1")], {"t1": 2}, {"c1": "t1-0", "c2": "t1-1"}),
    (
        [member("c1", "t1"), member("c2", "t1 t2"), member("c3", "t1")],
        {"t1": 3, "t2": 2},
        {"c1": "t1-0 t1-2", "c2": "t2-0 t2-1", "c3": "t1-1"},
    ),
    (
        [member("c1", "t1 t2"), member("c2", "t1 t2")],
        {"t1": 3, "t2": 3},
        {"c1": "t1-0 t1-2 t2-1", "c2": "t1-1 t2-0 t2-2"},
    ),
    # owners at the least that is fair, one of whom gets one more
    (
        [member("c1", "t1 t2", "t1-0 t2-1", 1), member("c2", "t1 t2", "t1-1 t2-2", 1)],
        {"t1": 2, "t2": 3},
        {"c1": "t1-0 t2-1 t2-0", "c2": "t1-1 t2-2"},
    ),
    # owners of more than is fair
    (
        [
            member("c1", "t1 t2", "t1-0 t2-0", 1),
            member("c2", "t1 t2", "t1-1 t2-1", 1),
            member("c3", "t1 t2", "", 1),
        ],
        {"t1": 2, "t2": 2},
        {"c1": "t1-0 t2-0", "c2": "t1-1", "c3": "t2-1"},
    ),
    # all below it
    (
        [
            member("c1", "t1 t2", "t1-0", 1),
            member("c2", "t1 t2", "t1-1", 1),
            member("c3", "t1 t2", "", 1),
        ],
        {"t1": 2, "t2": 3},
        {"c1": "t1-0 t2-1", "c2": "t1-1 t2-2", "c3": "t2-0"},
    ),
    # all at it
    (
        [member("c1", "t", "t-0 t-1", 1), member("c2", "t", "t-2", 1), member("c3", "t", "", 1)],
        {"t": 4},
        {"c1": "t-0 t-1", "c2": "t-2", "c3": "t-3"},
    ),
    # claims of an older generation, and of none, lose
    (
        [member("c1", "t t2", "t-0 t-2 t2-1", 10), member("c2", "t t2", "t-0 t-2 t2-1", 9)],
        {"t": 3, "t2": 3},
        {"c1": "t-0 t-2 t2-1", "c2": "t-1 t2-0 t2-2"},
    ),
    (
        [member("c1", "t t2", "t-0 t-2 t2-1", 10), member("c2", "t t2", "t-0 t-2 t2-1", -1)],
        {"t": 3, "t2": 3},
        {"c1": "t-0 t-2 t2-1", "c2": "t-1 t2-0 t2-2"},
    ),
    (
        [member("c1", "t t2", "t-0 t2-1 t-1", 10), member("c2", "t t2", "t-0 t2-1 t2-2", 8)],
        {"t": 3, "t2": 3},
        {"c1": "t-0 t2-1 t-1", "c2": "t-2 t2-2 t2-0"},
    ),
    (
        [
            member("c1", "t t2 t3", "t-0 t2-0 t3-0", 10),
            member("c2", "t t2 t3", "t-1 t2-1 t3-1", 9),
            member("c3", "t t2 t3", "t2-1 t3-0 t3-2", 8),
        ],
        {"t": 3, "t2": 3, "t3": 3},
        {"c1": "t-0 t2-0 t3-0", "c2": "t-1 t2-1 t3-1", "c3": "t-2 t2-2 t3-2"},
    ),
    (  # a newcomer takes what is free, of others' older claims nothing
        [
            member("c1", "t t1 t2 t3", "", -1),
            member("c2", "t t1 t2 t3", "t-0 t2-0 t1-0", 9),
            member("c3", "t t1 t2 t3", "t3-2 t2-2 t1-1", 8),
            member("c4", "t t1 t2 t3", "t3-1 t-1 t-2", 7),
        ],
        {"t": 3, "t1": 3, "t2": 3, "t3": 3},
        {
            "c1": "t1-2 t2-1 t3-0",
            "c2": "t-0 t2-0 t1-0",
            "c3": "t3-2 t2-2 t1-1",
            "c4": "t3-1 t-1 t-2",
        },
    ),
    # uniform subscriptions over several topics, without racks
    (
        [member(f"c{n}", "t1 t2 t3") for n in range(3)],
        {"t1": 6, "t2": 7, "t3": 2},
        {
            "c0": "t1-0 t1-3 t2-0 t2-3 t2-6",
            "c1": "t1-1 t1-4 t2-1 t2-4 t3-0",
            "c2": "t1-2 t1-5 t2-2 t2-5 t3-1",
        },
    ),
]


@ANY
@pytest.mark.parametrize(("members", "partitions", "expected"), GIVEN)
def test_as_kafka(
    name: str, members: list[GroupMember], partitions: dict[str, int], expected: dict[str, str]
) -> None:
    for order in (members, members[::-1]):
        assigned, _ = settle(name, order, partitions)
        expect(assigned, expected)
        check(members, partitions, assigned)


def test_who_keeps_one_more_is_the_first_by_id() -> None:
    """Where Kafka takes the order of a Java HashMap (see docs/decisions): the case is its
    testMaxQuotaConsumerMoreThanNumExpectedMaxCapacityMembers, whose hash order begins with c2."""
    members = [
        member("consumer1", "t1 t2", "t1-0 t2-0", 1),
        member("consumer2", "t1 t2", "t1-1 t2-1", 1),
        member("consumer3", "t1 t2", "", 1),
    ]
    expect(
        assign("sticky", members, {"t1": 2, "t2": 2}),
        {"consumer1": "t1-0 t2-0", "consumer2": "t1-1", "consumer3": "t2-1"},
    )


CONTESTED = [
    member("c1", "t", "t-0 t-1", 1),
    member("c2", "t", "t-0 t-2", 1),
    member("c3", "t", "", 1),
]


def test_two_claims_in_one_generation_cancel_each_other() -> None:
    expect(assign("sticky", CONTESTED, {"t": 3}), {"c1": "t-1", "c2": "t-2", "c3": "t-0"})
    expect(assign("sticky", CONTESTED, {"t": 4}), {"c1": "t-1 t-3", "c2": "t-2", "c3": "t-0"})


def test_what_two_claim_both_must_give_up_first() -> None:
    name = "cooperative-sticky"
    expect(assign(name, CONTESTED, {"t": 3}), {"c1": "t-1", "c2": "t-2", "c3": ""})
    expect(assign(name, CONTESTED, {"t": 4}), {"c1": "t-1 t-3", "c2": "t-2", "c3": ""})
    assert settle(name, CONTESTED, {"t": 3})[1] == 2


@ANY
def test_a_consumer_is_added_and_one_goes(name: str) -> None:
    partitions = {"t": 3}
    one = [member("c1", "t")]
    assigned, _ = settle(name, one, partitions)
    two = again(one, assigned, member("c2", "t", "", 1))
    assigned, rebalances = settle(name, two, partitions)
    expect(assigned, {"c1": "t-0 t-1", "c2": "t-2"})
    assert rebalances == (1 if name == "sticky" else 2)
    three = again(two, assigned, without=["c1"], generation=2)
    expect(settle(name, three, partitions)[0], {"c2": "t-0 t-1 t-2"})


def test_the_cooperative_one_takes_before_it_gives() -> None:
    members = [member("c1", "t", "t-0 t-1 t-2", 1), member("c2", "t", "", 1)]
    first = assign("cooperative-sticky", members, {"t": 3})
    expect(first, {"c1": "t-0 t-1", "c2": ""})


@ANY
def test_topics_stay_balanced(name: str) -> None:
    """testTopicBalanceAfterReassignment: one member, two, four, two: each has equally many of each
    topic."""
    partitions = {"t1": 12, "t2": 12}

    def shares(assigned: Assignments) -> set[int]:
        return {
            sum(each.topic == topic for each in mine)
            for mine in assigned.values()
            for topic in partitions
        }

    members = [member("c1", "t1 t2")]
    assigned, _ = settle(name, members, partitions)
    assert shares(assigned) == {12}
    members = again(members, assigned, member("c2", "t1 t2", "", 1))
    assigned, _ = settle(name, members, partitions)
    assert shares(assigned) == {6}
    members = again(
        members, assigned, *(member(each, "t1 t2", "", 2) for each in ("c3", "c4")), generation=2
    )
    assigned, _ = settle(name, members, partitions, 2)
    assert shares(assigned) == {3}
    members = again(members, assigned, without=["c1", "c2"], generation=3)
    assert shares(settle(name, members, partitions, 3)[0]) == {6}


@ANY
def test_two_are_added_and_two_go(name: str) -> None:
    """testAddRemoveTwoConsumersTwoTopics; who keeps one more is the first by id here."""
    partitions = {"t1": 3, "t2": 4}
    members = [member("c1", "t1 t2"), member("c2", "t1 t2")]
    assigned, _ = settle(name, members, partitions)
    expect(assigned, {"c1": "t1-0 t1-2 t2-1 t2-3", "c2": "t1-1 t2-0 t2-2"})
    members = again(members, assigned, member("c3", "t1 t2", "", 1), member("c4", "t1 t2", "", 1))
    assigned, _ = settle(name, members, partitions)
    expect(assigned, {"c1": "t1-0 t2-1", "c2": "t1-1 t2-0", "c3": "t1-2 t2-3", "c4": "t2-2"})
    members = again(members, assigned, without=["c1", "c2"], generation=2)
    assigned, _ = settle(name, members, partitions, 2)
    expect(assigned, {"c3": "t1-2 t2-3 t1-0 t2-1", "c4": "t2-2 t1-1 t2-0"})


@ANY
def test_where_roundrobin_does_poorly(name: str) -> None:
    partitions = {f"t{n}": n % 2 + 1 for n in range(1, 6)}
    members = [
        member("c1", "t1 t2 t3 t4 t5"),
        member("c2", "t1 t3 t5"),
        member("c3", "t1 t3 t5"),
        member("c4", "t1 t2 t3 t4 t5"),
    ]
    assigned, _ = settle(name, members, partitions)
    check(members, partitions, assigned)
    assert {len(mine) for mine in assigned.values()} == {2}


@ANY
def test_a_topic_is_added_and_one_goes(name: str) -> None:
    members = [member("c1", "t"), member("c2", "t")]
    assigned, _ = settle(name, members, {"t": 3})
    members = [member(who, "t t2", mine, 1) for who, mine in assigned.items()]
    more, _ = settle(name, members, {"t": 3, "t2": 3})
    for who, mine in assigned.items():
        assert set(mine) <= set(more[who])
        assert len(more[who]) == 3
    members = [member(who, "t2", mine, 2) for who, mine in more.items()]
    less, _ = settle(name, members, {"t2": 3}, 2)
    for who, mine in less.items():
        assert set(mine) <= set(more[who])


@ANY
def test_one_of_many_different_ones_goes(name: str) -> None:
    """testReassignmentAfterOneConsumerLeaves: member n wants topics 1 to n; topic n has n."""
    partitions = {f"t{n:02}": n for n in range(1, 20)}
    members = [
        member(f"c{n:02}", " ".join(f"t{each:02}" for each in range(1, n + 1)))
        for n in range(1, 20)
    ]
    assigned, _ = settle(name, members, partitions)
    check(members, partitions, assigned)
    members = again(members, assigned, without=["c10"])
    after, _ = settle(name, members, partitions)
    check(members, partitions, after)


@ANY
def test_existing_assignments_move(name: str) -> None:
    partitions = {f"t{n}": 1 for n in range(1, 7)}
    members = [
        member("c1", "t1 t2", "t1-0", 1),
        member("c2", "t1 t2 t3 t4", "t2-0 t3-0", 1),
        member("c3", "t2 t3 t4 t5 t6", "t4-0 t5-0 t6-0", 1),
    ]
    assigned, _ = settle(name, members, partitions)
    check(members, partitions, assigned)


@ANY
def test_fewer_partitions_than_members(name: str) -> None:
    members = [member(f"c{n}", "t") for n in range(1, 5)]
    assigned, _ = settle(name, members, {"t": 3})
    members = again(members, assigned, without=["c1"])
    after, _ = settle(name, members, {"t": 3})
    for who, mine in after.items():
        assert len(mine) == 1
        assert set(assigned[who]) <= set(mine)


@ANY
def test_the_only_topic_goes(name: str) -> None:
    expect(settle(name, [member("c1", "t", "t-0 t-1 t-2", 1)], {})[0], {"c1": ""})


@ANY
@pytest.mark.parametrize("generations", [(1, 2, 3), (1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2)])
def test_one_partition_claimed_in_three_generations(
    name: str, generations: tuple[int, int, int]
) -> None:
    claims = ("t-0 t-2", "t-1 t-2 t-3", "t-2 t-4 t-5")
    members = [
        *(
            member(f"c{n}", "t", owned, generation)
            for n, (owned, generation) in enumerate(zip(claims, generations, strict=True))
        ),
        member("c4", "t1", "t1-0", 2),
    ]
    assigned = assign(name, members, {"t": 6, "t1": 1})
    owned = [each for mine in assigned.values() for each in mine]
    assert len(owned) == len(set(owned))
    assert all(1 <= len(mine) <= 2 for mine in assigned.values())


@pytest.mark.parametrize("same", [True, False])
def test_conflicting_former_generations(same: bool) -> None:
    partitions = {"t": 4, "t2": 4, "t3": 4}
    members = [
        member(
            "c1",
            "t t2 t3" if same else "t",
            "t-0 t-1 t-2 t2-2 t2-3 t3-0" if same else "t-0 t-1 t-2 t-3",
            1,
        ),
        member("c2", "t t2 t3" if same else "t t2", "t-0 t-1 t2-0 t2-1 t2-2 t2-3", 2),
        member("c3", "t t2 t3", "t-2 t-3 t3-0 t3-1 t3-2 t3-3", 2),
    ]
    assigned = assign("sticky", members, partitions)
    check(members, partitions, assigned)
    for who in members[1:]:
        assert len(assigned[who.member_id]) == 4
        assert set(assigned[who.member_id]) <= set(who.subscription.owned)


@pytest.mark.parametrize("same", [True, False])
def test_a_member_comes_back_with_what_it_had_two_generations_ago(same: bool) -> None:
    """testAssignmentWithMultipleGenerations1."""
    partitions = {"t": 6, "t2": 6}
    second = "t t2" if same else "t"
    members = [member("c1", "t t2"), member("c2", second), member("c3", "t t2")]
    first = assign("sticky", members, partitions)
    assert {len(mine) for mine in first.values()} == {4}
    assigned = assign("sticky", again(members, first, without=["c3"]), partitions)
    assert {len(mine) for mine in assigned.values()} == {6}
    assert set(first["c2"]) <= set(assigned["c2"])
    if same:
        assert set(first["c1"]) <= set(assigned["c1"])
    third = [member("c2", second, assigned["c2"], 2), member("c3", "t t2", first["c3"], 1)]
    found = assign("sticky", third, partitions)
    assert {len(mine) for mine in found.values()} == {6}
    check(third, partitions, found)


TOPICS = [f"t{n}" for n in range(6)]


@st.composite
def groups(draw: st.DrawFn, *, equal: bool) -> tuple[dict[str, set[str]], dict[str, int]]:
    """(member -> topics, topic -> partition count)"""
    partitions = draw(
        st.dictionaries(st.sampled_from(TOPICS), st.integers(1, 12), min_size=1, max_size=5)
    )
    names = st.sampled_from([f"c{n}" for n in range(8)])
    topics = st.sets(st.sampled_from(TOPICS), min_size=1)
    if equal:
        same = draw(topics)
        return dict.fromkeys(draw(st.sets(names, min_size=1)), same), partitions
    return draw(st.dictionaries(names, topics, min_size=1)), partitions


@ANY
@settings(max_examples=60, deadline=None)
@given(group=groups(equal=True), data=st.data())
def test_no_more_moves_than_must(name: str, group, data: st.DataObject) -> None:
    """Equal subscriptions. A member that stays loses only what makes it larger than is fair."""
    topics, partitions = group
    members = [member(who, " ".join(sorted(each))) for who, each in topics.items()]
    before, _ = settle(name, members, partitions)
    check(members, partitions, before)
    gone = data.draw(st.sets(st.sampled_from(sorted(topics)), max_size=len(topics) - 1))
    new = [
        member(who, " ".join(sorted(next(iter(topics.values())))), "", 1)
        for who in data.draw(st.sets(st.sampled_from(["c00", "c90", "c91"])))
    ]
    members = again(members, before, *new, without=sorted(gone))
    after, rebalances = settle(name, members, partitions)
    check(members, partitions, after)
    sizes = [len(mine) for mine in after.values()]
    assert max(sizes) - min(sizes) <= 1
    for who in before.keys() & after.keys():
        lost = set(before[who]) - set(after[who])
        assert not lost or len(after[who]) in (min(sizes), max(sizes))
        assert len(lost) <= max(0, len(before[who]) - min(sizes))
        if not new:
            assert not lost
    assert rebalances == 1 or any(set(before[w]) - set(after[w]) for w in before if w in after)
    assert settle(name, members[::-1], partitions)[0] == after
    unmoved = again(members, after, generation=2)
    assert {k: set(v) for k, v in assign(name, unmoved, partitions).items()} == {
        k: set(v) for k, v in after.items()
    }


@ANY
@settings(max_examples=60, deadline=None)
@given(group=groups(equal=False), data=st.data())
def test_any_subscriptions_and_changes(name: str, group, data: st.DataObject) -> None:
    """testReassignmentWithRandomSubscriptionsAndChanges."""
    topics, partitions = group
    members = [member(who, " ".join(sorted(each))) for who, each in topics.items()]
    before, _ = settle(name, members, partitions)
    check(members, partitions, before)
    changed = [
        member(
            who,
            " ".join(sorted(data.draw(st.sets(st.sampled_from(TOPICS), min_size=1)))),
            before[who],
            1,
        )
        for who in data.draw(st.sets(st.sampled_from(sorted(topics))))
    ]
    members = again(members, before, *changed)
    after, _ = settle(name, members, partitions)
    check(members, partitions, after)
    if not changed:
        assert {k: set(v) for k, v in after.items()} == {k: set(v) for k, v in before.items()}


@ANY
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_claims_are_survived(name: str, seed: int) -> None:
    """Claims that contradict each other, in any generation, of partitions that do not exist."""
    rng = random.Random(seed)
    partitions = {topic: rng.randrange(1, 6) for topic in TOPICS[:4]}
    members = [
        member(
            f"c{n}",
            " ".join(rng.sample(TOPICS, rng.randrange(0, 6))),
            [TopicPartition(rng.choice(TOPICS), rng.randrange(8)) for _ in range(rng.randrange(8))],
            rng.randrange(-1, 4),
        )
        for n in range(rng.randrange(1, 7))
    ]
    assigned = assign(name, members, partitions)
    owned = [each for mine in assigned.values() for each in mine]
    assert len(owned) == len(set(owned))
    for who in members:
        assert {topic for topic, _ in assigned[who.member_id]} <= set(who.subscription.topics)
    if name == "sticky":
        check(members, partitions, assigned)
