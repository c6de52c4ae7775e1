"""The group state machine, told the time."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from millstream.log.broker.group_values import GroupState, JoinRequest, JoinResult, SyncResult
from millstream.log.broker.groups import Group
from millstream.log.errors import (
    ConfigError,
    IllegalGenerationError,
    LogError,
    RebalanceInProgressError,
    UnknownMemberError,
)

SESSION_MS, REBALANCE_MS = 10_000, 60_000


def request(member: str, *protocols: str, data: bytes = b"") -> JoinRequest:
    offered = tuple((name, data or member.encode()) for name in protocols or ("range",))
    return JoinRequest(member, "client", SESSION_MS, REBALANCE_MS, "consumer", offered)


def results(group: Group) -> dict[str, object]:
    return {reply.member_id: reply.result for reply in group.take_replies()}


def stable(*members: str) -> Group:
    """A group in which everybody has joined and synced, at time 0."""
    group = Group("g", initial_delay_ms=0)
    for member in members:
        for each in [member, *group.members]:
            group.join(request(each), 0)
    for member in members:
        group.sync(member, group.generation, {each: each.encode() for each in members}, 0)
    group.take_replies()
    assert group.state is GroupState.STABLE
    return group


def test_the_first_member_leads_at_once() -> None:
    group = Group("g", initial_delay_ms=0)
    group.join(request("a"), 0)
    joined = results(group)["a"]
    assert joined == JoinResult("a", 1, "range", "a", (("a", None, b"a"),))
    assert group.state is GroupState.COMPLETING_REBALANCE
    group.sync("a", 1, {"a": b"all"}, 0)
    assert group.state is GroupState.STABLE
    assert results(group) == {"a": SyncResult(b"all")}


def test_the_initial_delay_waits_for_more() -> None:
    group = Group("g", initial_delay_ms=3000)
    group.join(request("a"), 0)
    group.join(request("b"), 1000)
    group.let_time_pass(2999)
    assert results(group) == {}
    assert group.next_deadline_ms() == 3000
    group.let_time_pass(3000)
    assert results(group) == {}  # one came meanwhile, so others may
    group.let_time_pass(6000)
    assert set(results(group)) == {"a", "b"}
    assert group.generation == 1


def test_the_initial_delay_ends_with_the_rebalance_timeout() -> None:
    group = Group("g", initial_delay_ms=25_000)
    for now_ms in range(0, REBALANCE_MS + 1, 5_000):
        group.let_time_pass(now_ms)
        assert group.generation == (now_ms >= REBALANCE_MS)
        group.join(request(f"m{now_ms:06}"), now_ms)


def test_a_rebalance_waits_for_everybody() -> None:
    group = stable("a", "b")
    generation = group.generation
    group.join(request("c"), 0)
    assert group.state is GroupState.PREPARING_REBALANCE
    assert group.members_to_call() == ["a", "b"]
    for member in "ab":
        with pytest.raises(RebalanceInProgressError):
            group.heartbeat(member, generation, 0)
        group.join(request(member), 0)
    joined = results(group)
    assert {each.generation for each in joined.values()} == {generation + 1}
    assert [member for member, result in joined.items() if result.members] == ["a"]


def test_who_does_not_come_is_left_behind() -> None:
    group = stable("a", "b")
    generation = group.generation
    group.join(request("c"), 0)
    group.join(request("a"), 0)
    for now_ms in range(0, REBALANCE_MS, 5000):
        with pytest.raises(RebalanceInProgressError):
            group.heartbeat("b", generation, now_ms)  # alive, but it does not join
        group.let_time_pass(now_ms)
    assert results(group) == {}
    group.let_time_pass(REBALANCE_MS)
    assert set(results(group)) == {"a", "c"}
    with pytest.raises(UnknownMemberError):
        group.heartbeat("b", generation, REBALANCE_MS)


def test_a_session_ends() -> None:
    group = stable("a", "b")
    group.heartbeat("a", group.generation, 5000)
    group.let_time_pass(SESSION_MS - 1)
    assert set(group.members) == {"a", "b"}
    group.let_time_pass(SESSION_MS)
    assert set(group.members) == {"a"}
    assert group.state is GroupState.PREPARING_REBALANCE
    group.let_time_pass(SESSION_MS + 5000)
    assert group.state is GroupState.EMPTY


def test_the_leader_leaves() -> None:
    group = stable("a", "b")
    group.leave("a", 0)
    group.join(request("b"), 0)
    joined = results(group)["b"]
    assert isinstance(joined, JoinResult)
    assert joined.leader == "b"
    assert joined.members == (("b", None, b"b"),)


def test_who_does_not_sync_is_dropped() -> None:
    group = Group("g", initial_delay_ms=0)
    for member in "ab":
        for each in [member, *group.members]:
            group.join(request(each), 0)
    group.take_replies()
    group.sync("b", group.generation, {}, 0)
    for now_ms in range(0, REBALANCE_MS, 5000):
        for member in "ab":
            group.heartbeat(member, group.generation, now_ms)
        group.let_time_pass(now_ms)
    group.let_time_pass(REBALANCE_MS)  # the leader never brought the assignment
    assert set(group.members) == {"b"}
    assert isinstance(results(group)["b"], RebalanceInProgressError)


def test_who_waits_for_its_assignment_need_not_be_heard_of() -> None:
    """The leader takes its time; a session begins with the answer (as in Kafka)."""
    group = Group("g", initial_delay_ms=0)
    for member in "ab":
        for each in [member, *group.members]:
            group.join(request(each), 0)
    group.sync("b", group.generation, {}, 0)
    for now_ms in range(0, 3 * SESSION_MS, 5000):
        group.heartbeat("a", group.generation, now_ms)
        group.let_time_pass(now_ms)
    assert set(group.members) == {"a", "b"}
    group.sync("a", group.generation, {"b": b"B"}, 3 * SESSION_MS)
    assert results(group)["b"] == SyncResult(b"B")
    group.heartbeat("a", group.generation, 4 * SESSION_MS - 1)
    group.let_time_pass(4 * SESSION_MS - 1)
    assert set(group.members) == {"a", "b"}
    group.let_time_pass(4 * SESSION_MS)
    assert set(group.members) == {"a"}


def test_a_rebalance_ends_the_wait_for_an_assignment() -> None:
    group = stable("a", "b")
    group.rebalance(0)
    for member in "ab":
        group.join(request(member), 0)
    group.sync("b", group.generation, {}, 0)
    group.rebalance(2 * SESSION_MS)
    assert isinstance(results(group)["b"], RebalanceInProgressError)
    assert group.next_deadline_ms() == SESSION_MS, "the leader was last heard of when it joined"
    group.let_time_pass(3 * SESSION_MS - 1)
    assert set(group.members) == {"b"}
    group.let_time_pass(3 * SESSION_MS)
    assert group.state is GroupState.EMPTY


def test_joining_again_without_a_change() -> None:
    group = stable("a", "b")
    generation = group.generation
    group.join(request("b"), 0)
    joined = results(group)["b"]
    assert isinstance(joined, JoinResult)
    assert joined.generation == generation
    group.join(request("b", data=b"other topics"), 0)
    assert group.state is GroupState.PREPARING_REBALANCE


def test_a_new_member_interrupts_those_who_sync() -> None:
    group = stable("a")
    group.join(request("a"), 0)
    group.join(request("b"), 0)
    group.take_replies()
    group.join(request("a"), 0)
    group.take_replies()
    group.sync("b", group.generation, {}, 0)
    group.join(request("c"), 0)
    assert isinstance(results(group)["b"], RebalanceInProgressError)


def test_assignors_are_voted_on() -> None:
    group = Group("g", initial_delay_ms=10)
    group.join(request("a", "range", "roundrobin"), 0)
    group.join(request("b", "roundrobin", "range"), 0)
    group.join(request("c", "roundrobin", "range", "sticky"), 0)
    with pytest.raises(ConfigError, match="sticky"):
        group.join(request("d", "sticky"), 0)
    with pytest.raises(ConfigError, match="no assignor"):
        group.join(request("e")._replace(protocols=()), 0)
    group.let_time_pass(10)
    group.let_time_pass(20)
    assert {each.protocol for each in results(group).values()} == {"roundrobin"}


def test_commits_are_fenced() -> None:
    group = stable("a")
    generation = group.generation
    group.check_commit("a", generation, 0, transactional=False)
    with pytest.raises(IllegalGenerationError):
        group.check_commit("a", generation - 1, 0, transactional=True)
    with pytest.raises(UnknownMemberError):
        group.check_commit("zombie", generation, 0, transactional=True)
    with pytest.raises(UnknownMemberError):
        group.check_commit("", -1, 0, transactional=False)
    group.check_commit("", -1, 0, transactional=True)
    group.join(request("b"), 0)
    group.check_commit("a", generation, 0, transactional=False)
    group.join(request("a"), 0)
    with pytest.raises(RebalanceInProgressError):
        group.check_commit("a", generation + 1, 0, transactional=False)


def test_a_deleted_group_is_gone() -> None:
    group = Group("g", initial_delay_ms=0)
    group.delete()
    with pytest.raises(UnknownMemberError):
        group.join(request("a"), 0)


class Members(RuleBasedStateMachine):
    """Members join, sync, beat, leave and fall silent at random; then all who live agree."""

    def __init__(self) -> None:
        super().__init__()
        self.group = Group("g", initial_delay_ms=0)
        self.now_ms = 0
        self.generations: dict[str, int] = {}
        self.generation = 0

    @rule(member=st.sampled_from("abcd"))
    def join(self, member: str) -> None:
        self.group.join(request(member), self.now_ms)
        self.deliver()

    @rule(member=st.sampled_from("abcd"))
    def sync(self, member: str) -> None:
        self.attempt(
            lambda: self.group.sync(
                member, self.generations.get(member, 0), {"a": b"x"}, self.now_ms
            )
        )

    @rule(member=st.sampled_from("abcd"))
    def beat(self, member: str) -> None:
        self.attempt(
            lambda: self.group.heartbeat(member, self.generations.get(member, 0), self.now_ms)
        )

    @rule(member=st.sampled_from("abcd"))
    def leave(self, member: str) -> None:
        self.group.leave(member, self.now_ms)
        self.deliver()

    @rule(duration_ms=st.integers(1, 20_000))
    def wait(self, duration_ms: int) -> None:
        self.now_ms += duration_ms
        self.group.let_time_pass(self.now_ms)
        self.deliver()

    def attempt(self, call) -> None:
        with contextlib.suppress(LogError):
            call()
        self.deliver()

    def deliver(self) -> None:
        for reply in self.group.take_replies():
            if isinstance(reply.result, JoinResult):
                self.generations[reply.member_id] = reply.result.generation

    @invariant()
    def holds_together(self) -> None:
        group = self.group
        assert group.generation >= self.generation
        self.generation = group.generation
        assert (group.state is GroupState.EMPTY) == (not group.members)
        assert group.leader is None or group.leader in group.members
        if group.state in {GroupState.STABLE, GroupState.COMPLETING_REBALANCE}:
            assert group.leader is not None
            assert not any(member.joining for member in group.members.values())
        if group.members:
            assert group.next_deadline_ms() is not None

    def teardown(self) -> None:
        for _ in range(10):
            for member in list(self.group.members):
                self.join(member)
        for member in list(self.group.members):
            self.sync(member)
        if self.group.members:
            leader = self.group.leader or ""
            self.group.sync(leader, self.group.generation, {}, self.now_ms)
            assert self.group.state is GroupState.STABLE


TestMembers = Members.TestCase
TestMembers.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
