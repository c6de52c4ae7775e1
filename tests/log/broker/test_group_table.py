"""The group state machine as a table: every event in every state, and what becomes of it."""

from __future__ import annotations

import pytest

from millstream.log.broker.group_values import GroupState, JoinRequest, JoinResult, SyncResult
from millstream.log.broker.groups import Group
from millstream.log.errors import (
    FencedInstanceIdError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    LogError,
    RebalanceInProgressError,
    UnknownMemberError,
)

EMPTY, PREPARING, COMPLETING, STABLE, DEAD = (
    GroupState.EMPTY,
    GroupState.PREPARING_REBALANCE,
    GroupState.COMPLETING_REBALANCE,
    GroupState.STABLE,
    GroupState.DEAD,
)
SESSION_MS, REBALANCE_MS = 10_000, 60_000


def request(member: str, *, data: bytes = b"", instance: str | None = None) -> JoinRequest:
    return JoinRequest(
        member, "c", SESSION_MS, REBALANCE_MS, "consumer", (("range", data),), instance
    )


def group_in(state: GroupState) -> Group:
    """A group of a (the leader) and b, which is static under i; EMPTY and DEAD have no members.
    While PREPARING, a has joined again and b has not."""
    group = Group("g", initial_delay_ms=0, generation=6)
    if state is DEAD:
        group.delete()
    if state in (EMPTY, DEAD):
        return group
    group.join(request("a"), 0)
    group.join(request("b", instance="i"), 0)
    group.join(request("a"), 0)
    if state is COMPLETING:
        group.take_replies()
        return group
    group.sync("a", 8, {"a": b"A", "b": b"B"}, 0)
    group.sync("b", 8, {}, 0)
    if state is PREPARING:
        group.join(request("a", data=b"more"), 0)
    group.take_replies()
    assert group.state is state
    return group


EVENTS = {
    "new member joins": lambda g: g.join(request("c"), 1),
    "leader joins again": lambda g: g.join(request("a"), 1),
    "leader joins changed": lambda g: g.join(request("a", data=b"other"), 1),
    "follower joins again": lambda g: g.join(request("b", instance="i"), 1),
    "follower joins changed": lambda g: g.join(request("b", data=b"other", instance="i"), 1),
    "static member is back": lambda g: g.join(request("b2", instance="i"), 1, takes_over=True),
    "instance id of another": lambda g: g.join(request("x", instance="i"), 1),
    "no common assignor": lambda g: g.join(request("c")._replace(protocols=(("x", b""),)), 1),
    "leader syncs": lambda g: g.sync("a", g.generation, {"a": b"A"}, 1),
    "follower syncs": lambda g: g.sync("b", g.generation, {}, 1),
    "former generation syncs": lambda g: g.sync("a", g.generation - 1, {}, 1),
    "heartbeat": lambda g: g.heartbeat("b", g.generation, 1),
    "heartbeat of a stranger": lambda g: g.heartbeat("x", g.generation, 1),
    "heartbeat of the fenced": lambda g: g.heartbeat("x", g.generation, 1, group_instance_id="i"),
    "leader leaves": lambda g: g.leave("a", 1),
    "follower leaves": lambda g: g.leave("b", 1),
    "stranger leaves": lambda g: g.leave("x", 1),
    "sessions end": lambda g: g.let_time_pass(SESSION_MS),
    "partitions are added": lambda g: g.rebalance(1),
    "commit": lambda g: g.check_commit("b", g.generation, 1, transactional=False),
    "commit in transaction": lambda g: g.check_commit("b", g.generation, 1, transactional=True),
    "commit of nobody": lambda g: g.check_commit("", -1, 1, transactional=False),
    "commit of former generation": lambda g: g.check_commit(
        "b", g.generation - 1, 1, transactional=True
    ),
}

REBALANCING, UNKNOWN, OLD, FENCED = (
    RebalanceInProgressError,
    UnknownMemberError,
    IllegalGenerationError,
    FencedInstanceIdError,
)
SAME = None
# event -> what follows in EMPTY, PREPARING, COMPLETING, STABLE, DEAD: a state, SAME, or an error
TABLE: dict[str, tuple[object, object, object, object, object]] = {
    "new member joins": (COMPLETING, SAME, PREPARING, PREPARING, UNKNOWN),
    "leader joins again": (COMPLETING, SAME, SAME, PREPARING, UNKNOWN),
    "leader joins changed": (COMPLETING, SAME, PREPARING, PREPARING, UNKNOWN),
    "follower joins again": (COMPLETING, COMPLETING, SAME, SAME, UNKNOWN),
    "follower joins changed": (COMPLETING, COMPLETING, PREPARING, PREPARING, UNKNOWN),
    "static member is back": (COMPLETING, COMPLETING, PREPARING, SAME, UNKNOWN),
    "instance id of another": (COMPLETING, FENCED, FENCED, FENCED, UNKNOWN),
    "no common assignor": (COMPLETING, *[InconsistentGroupProtocolError] * 3, UNKNOWN),
    "leader syncs": (UNKNOWN, REBALANCING, STABLE, SAME, UNKNOWN),
    "follower syncs": (UNKNOWN, REBALANCING, SAME, SAME, UNKNOWN),
    "former generation syncs": (UNKNOWN, OLD, OLD, OLD, UNKNOWN),
    "heartbeat": (UNKNOWN, REBALANCING, SAME, SAME, UNKNOWN),
    "heartbeat of a stranger": (UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN),
    "heartbeat of the fenced": (UNKNOWN, FENCED, FENCED, FENCED, UNKNOWN),
    "leader leaves": (SAME, SAME, PREPARING, PREPARING, SAME),
    "follower leaves": (SAME, COMPLETING, PREPARING, PREPARING, SAME),
    "stranger leaves": (SAME, SAME, SAME, SAME, SAME),
    "sessions end": (SAME, COMPLETING, EMPTY, EMPTY, SAME),
    "partitions are added": (SAME, SAME, PREPARING, PREPARING, SAME),
    "commit": (UNKNOWN, SAME, REBALANCING, SAME, UNKNOWN),
    "commit in transaction": (UNKNOWN, SAME, SAME, SAME, UNKNOWN),
    "commit of nobody": (SAME, UNKNOWN, UNKNOWN, UNKNOWN, SAME),
    "commit of former generation": (UNKNOWN, OLD, OLD, OLD, UNKNOWN),
}


def test_the_table_is_complete() -> None:
    assert TABLE.keys() == EVENTS.keys()


@pytest.mark.parametrize("event", TABLE)
@pytest.mark.parametrize("column", range(5), ids=["empty", "prep", "compl", "stable", "dead"])
def test_every_event_in_every_state(event: str, column: int) -> None:
    state = (EMPTY, PREPARING, COMPLETING, STABLE, DEAD)[column]
    expected, group = TABLE[event][column], group_in(state)
    before = group.generation
    if isinstance(expected, type) and issubclass(expected, LogError):
        with pytest.raises(expected):
            EVENTS[event](group)
        assert (group.state, group.generation) == (state, before), "an error changes nothing"
        return
    EVENTS[event](group)
    assert group.state is (state if expected is SAME else expected)
    began = group.state is COMPLETING and state is not COMPLETING
    emptied = group.state is EMPTY and state is not EMPTY
    assert group.generation - before == (began or emptied)
    if group.members:
        assert group.next_deadline_ms() is not None


def replies(group: Group) -> dict[str, object]:
    return {each.member_id: each.result for each in group.take_replies()}


def test_a_static_leader_is_back_and_has_nothing_to_assign() -> None:
    group = Group("g", initial_delay_ms=0)
    group.join(request("a", instance="i"), 0)
    group.sync("a", 1, {"a": b"A"}, 0)
    replies(group)
    group.join(request("a2", instance="i", data=b"\0"), 5, takes_over=True)
    assert replies(group) == {"a2": JoinResult("a2", 1, "range", "a2", ())}
    group.sync("a2", 1, {}, 5)
    assert replies(group) == {"a2": SyncResult(b"A")}
    assert list(group.members) == ["a2"]


def test_who_waits_under_the_instance_id_is_fenced() -> None:
    group = group_in(PREPARING)
    group.join(request("c"), 1)
    group.join(request("b2", instance="i"), 1, takes_over=True)
    answered = replies(group)
    assert {"a", "b2", "c"} <= answered.keys()
    group = group_in(COMPLETING)
    group.sync("b", 8, {}, 1)
    group.join(request("b2", instance="i"), 1, takes_over=True)
    assert isinstance(replies(group)["b"], FencedInstanceIdError)


def test_who_joins_again_waits_for_no_assignment_any_more() -> None:
    """The answer to its sync, on a connection it gave up, was taken for the one to its join."""
    group = group_in(COMPLETING)
    group.sync("b", 8, {}, 1)
    group.join(request("b", instance="i", data=b"other"), 2)
    assert group.state is PREPARING
    assert replies(group) == {}
    group.join(request("a"), 3)
    assert isinstance(replies(group)["b"], JoinResult)


def test_a_static_member_that_does_not_come_stays() -> None:
    """It is in the next generation with an assignment; its session decides."""
    group = group_in(PREPARING)
    for now_ms in range(0, REBALANCE_MS, 5_000):
        with pytest.raises(RebalanceInProgressError):
            group.heartbeat("b", 8, now_ms)
        group.let_time_pass(now_ms)
    group.let_time_pass(REBALANCE_MS)
    assert group.state is COMPLETING
    assert [each for each, _, _ in replies(group)["a"].members] == ["a", "b"]
    with pytest.raises(IllegalGenerationError):
        group.heartbeat("b", 8, REBALANCE_MS)
    group.sync("a", 9, {"a": b"A", "b": b"B"}, REBALANCE_MS)
    group.join(request("b", instance="i"), REBALANCE_MS)
    assert replies(group)["b"].generation == 9
    assert group.state is STABLE


def test_static_members_alone_wait_for_each_other() -> None:
    group = group_in(PREPARING)
    group.leave("a", 1)
    assert group.state is PREPARING
    for now_ms in (5_000, 14_000, 23_000):
        with pytest.raises(RebalanceInProgressError):
            group.heartbeat("b", 8, now_ms)
    group.let_time_pass(32_000)
    assert list(group.members) == ["b"]
    group.let_time_pass(33_000)
    assert group.state is EMPTY


def test_an_expected_member_is_waited_for() -> None:
    """MEMBER_ID_REQUIRED: an id was given out; a rebalance waits for it to be used, or to end."""
    group = group_in(STABLE)
    group.expect("c", 9_000)
    group.join(request("a", data=b"x"), 1)
    group.join(request("b", instance="i"), 1)
    assert group.state is PREPARING
    assert group.size() == 3
    group.join(request("c"), 2)
    assert group.state is COMPLETING
    group.expect("d", 5_000)
    for member in "abc":
        group.join(request(member, data=b"y", instance="i" if member == "b" else None), 3)
    assert group.state is PREPARING
    group.let_time_pass(5_000)
    assert group.state is COMPLETING
    assert not group.is_expected("d")


def test_who_never_syncs_goes_even_when_the_leader_did() -> None:
    group = Group("g", initial_delay_ms=0)
    group.join(request("a"), 0)
    group.join(request("b"), 0)
    group.join(request("a"), 0)
    group.sync("a", 2, {"a": b"A"}, 0)
    assert group.state is STABLE
    for now_ms in range(0, REBALANCE_MS, 5_000):
        for member in "ab":
            group.heartbeat(member, 2, now_ms)
        group.let_time_pass(now_ms)
    group.let_time_pass(REBALANCE_MS)
    assert list(group.members) == ["a"]
    assert group.state is PREPARING


def test_each_member_has_its_own_times() -> None:
    group = Group("g", initial_delay_ms=0)
    slow = request("a")._replace(session_timeout_ms=50_000, rebalance_timeout_ms=5_000)
    group.join(slow, 0)
    group.join(request("b"), 0)
    group.join(slow, 0)
    group.sync("a", 2, {}, 0)
    group.sync("b", 2, {}, 0)
    group.let_time_pass(SESSION_MS)
    assert list(group.members) == ["a"]
    assert group.next_deadline_ms() == SESSION_MS + 5_000, "the longest of those who are left"
