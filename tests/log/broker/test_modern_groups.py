"""Groups of KIP-848 through the coordinator: epochs, hand-over, static members, time, restarts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.log import OffsetAndMetadata, TopicPartition
from millstream.log.broker.group_values import JoinRequest
from millstream.log.broker.internal_topic import InternalTopic
from millstream.log.broker.modern_values import (
    FencedMemberEpochError,
    Heartbeat,
    HeartbeatResult,
    StaleMemberEpochError,
    UnreleasedInstanceIdError,
)
from millstream.log.errors import (
    FencedInstanceIdError,
    GroupMaxSizeReachedError,
    GroupNotEmptyError,
    GroupSubscribedToTopicError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    InvalidRequestError,
    LogError,
    StorageError,
    UnknownGroupError,
    UnknownMemberError,
)
from millstream.log.record import ConsumerGroupMetadata
from shared.modern_members import REBALANCE_MS, SESSION_MS, World


def run(body: Callable[[World], Awaitable[None]], partitions: int = 4, **config: int) -> None:
    async def main() -> None:
        world = World(**config)
        await world.open()
        await world.broker.create_topic("t", partitions)
        try:
            await asyncio.wait_for(body(world), 30)
        finally:
            await world.broker.close()

    asyncio.run(main())


def test_partitions_move_when_they_are_given_up() -> None:
    async def body(world: World) -> None:
        one, two = world.member("one"), world.member("two")
        told = await one.beat()
        assert (told.epoch, one.numbers, world.state) == (1, [0, 1, 2, 3], "Stable")
        told = await two.beat()
        assert (told.epoch, two.numbers, world.state) == (2, [], "Reconciling")
        had = one.has
        told = await one.beat()  # it is asked to give two up, and stays in its epoch
        assert (told.epoch, len(one.has)) == (1, 2)
        await two.beat()
        assert two.numbers == []
        told = await one.beat()
        assert told.epoch == 2
        await two.beat()
        assert two.has == had - one.has
        assert world.state == "Stable"
        told = await one.beat(rebalance_timeout_ms=-1, topics=None, owned=None)
        assert told == HeartbeatResult("one", 2, None)

    run(body)


def test_an_answer_may_be_lost() -> None:
    async def body(world: World) -> None:
        one, two = world.member("one"), world.member("two")
        await one.beat()
        await two.beat()
        await one.beat()
        kept = one.has
        await one.beat()
        told = await one.beat(epoch=1)  # the answer with epoch 2 was lost
        assert (told.epoch, told.assigned) == (2, kept)
        for epoch, owned in (
            (1, None),
            (1, kept | two.has | {world.place(9)}),
            (3, kept),
            (5, kept),
        ):
            with pytest.raises(FencedMemberEpochError):
                await one.beat(epoch=epoch, owned=owned)
        assert one.epoch == 2

    run(body)


def test_who_is_not_heard_of_is_out() -> None:
    async def body(world: World) -> None:
        one, two = world.member("one"), world.member("two")
        for each in (one, two, one, one, two):
            await each.beat()
        await world.pass_time(SESSION_MS - 1)
        await one.beat()
        await world.pass_time(1)
        assert world.state == "Assigning"
        with pytest.raises(UnknownMemberError):
            await two.beat()
        await one.beat()
        assert one.numbers == [0, 1, 2, 3]
        await world.pass_time(SESSION_MS)
        assert world.state == "Empty"

    run(body)


def test_who_gives_nothing_up_is_out() -> None:
    async def body(world: World) -> None:
        one, two = world.member("one"), world.member("two")
        await one.beat()
        had = one.has
        await two.beat()
        await one.beat()
        await world.pass_time(REBALANCE_MS - 1)
        await one.beat(owned=had, epoch=1)  # alive, but it holds on to them
        await world.pass_time(1)
        with pytest.raises(UnknownMemberError):
            await one.beat(epoch=1)
        await two.beat()
        assert two.numbers == [0, 1, 2, 3]

    run(body)


def test_static_members_keep_their_place() -> None:
    async def body(world: World) -> None:
        one = world.member("one", instance_id="i1")
        two = world.member("two", instance_id="i2")
        for each in (one, two, one, one, two):
            await each.beat()
        had, epoch = one.has, one.epoch
        again = world.member("again", instance_id="i1")
        with pytest.raises(UnreleasedInstanceIdError):
            await again.beat()
        with pytest.raises(FencedInstanceIdError):
            await world.groups.leave("g", "two", "i1")
        with pytest.raises(UnknownMemberError):
            await world.groups.leave("g", "two", "nobody")
        await one.leave(for_a_while=True)
        await two.beat()
        assert len(two.has) == 2
        told = await again.beat()
        assert (told.epoch, again.has) == (epoch, had)
        with pytest.raises(FencedInstanceIdError):
            await one.beat(epoch=epoch)
        await again.leave(for_a_while=True)
        await world.pass_time(SESSION_MS - 1)
        await two.beat()
        assert len(two.has) == 2
        await world.pass_time(1)
        await two.beat()
        assert len(two.has) == 4

    run(body)


def test_subscriptions_and_topics_change() -> None:
    async def body(world: World) -> None:
        one = world.member("one")
        await one.beat()
        await world.broker.create_topic("u", 1)
        one.topics = ("t", "u", "later")
        await one.beat()
        assert one.has == {*(world.place(each) for each in range(4)), world.place(0, "u")}
        await world.broker.create_topic("later", 2)
        await world.broker.alter_topic("t", partitions=5)
        await one.beat(topics=None)
        assert len(one.has) == 8
        await world.broker.delete_topic("t")
        await one.beat()
        await one.beat()
        assert len(one.has) == 3
        assert world.state == "Stable"

    run(body)


def test_topics_by_pattern() -> None:
    async def body(world: World) -> None:
        one = world.member("one", topics=frozenset(), regex="[tu]|__.*")
        await one.beat()
        assert len(one.has) == 4
        await world.broker.create_topic("u", 2)
        told = await world.groups.heartbeat(
            "g",
            Heartbeat("one", one.epoch),
            world.broker.partitions,
            may_see=lambda name: name != "t",
        )
        assert told.assigned == frozenset()  # it gives up what it may not see any more
        one.epoch, one.has = told.epoch, frozenset()
        await one.beat(regex=None)
        assert len(one.has) == 6

    run(body)


def test_range_lines_topics_up() -> None:
    async def body(world: World) -> None:
        await world.broker.create_topic("u", 4)
        members = [world.member(name, "t", "u", assignor="range") for name in ("one", "two")]
        for each in (*members, *members, *members):
            await each.beat()
        assert [each.numbers for each in members] == [[0, 0, 1, 1], [2, 2, 3, 3]]
        group = world.groups.get("g")
        assert group is not None
        assert group.assignor == "range"

    run(body)


def test_commits_are_of_the_members_epoch() -> None:
    async def body(world: World) -> None:
        one = world.member("one")
        await one.beat()
        await one.commit()
        for epoch in (0, 2):
            with pytest.raises(StaleMemberEpochError):
                await one.commit(epoch=epoch)
        with pytest.raises(UnknownMemberError):
            await world.member("nobody").commit(epoch=1)
        with pytest.raises(UnknownMemberError):  # an administrator's, while there are members
            await world.member("").commit(epoch=-1)
        with pytest.raises(IllegalGenerationError):
            world.broker.groups.check_commit(
                ConsumerGroupMetadata("g", 9, "one"), transactional=True
            )
        with pytest.raises(StaleMemberEpochError):
            world.groups.check_fetch("g", "one", 9)
        world.groups.check_fetch("g", None, -1)
        with pytest.raises(GroupNotEmptyError):
            await world.broker.offsets.delete_group("g")
        with pytest.raises(GroupSubscribedToTopicError):
            await world.broker.offsets.delete_offsets("g", [TopicPartition("t", 0)])
        await one.leave()
        await world.member("").commit(epoch=-1)

    run(body)


def test_a_group_is_as_it_was_after_a_restart() -> None:
    async def body(world: World) -> None:
        one = world.member("one", instance_id="i1", rack_id="r", assignor="uniform")
        two, three = world.member("two"), world.member("three", topics=frozenset(), regex="t")
        for each in (one, two, one, one, two, three, one):
            await each.beat()
        await one.commit()
        group = world.groups.get("g")
        assert group is not None
        before = (group.members, group.target, group.epoch, group.assignment_epoch)
        await world.restart()
        group = world.groups.get("g")
        assert group is not None
        assert group.state == "Reconciling"
        assert (group.target, group.epoch, group.assignment_epoch) == before[1:]
        assert {
            name: each._replace(regex_topics=frozenset()) for name, each in before[0].items()
        } == (group.members)
        for each in (one, two, three) * 3:
            await each.beat()
            others = [other.has for other in (one, two, three) if other is not each]
            assert not any(each.has & other for other in others)
        assert {each.name: each.has for each in (one, two, three)} == before[1]
        assert world.state == "Stable"
        assert len(world.broker.offsets.of_group("g")) == 1

    run(body)


def test_what_was_written_is_deleted() -> None:
    async def body(world: World) -> None:
        one = world.member("one")
        await one.beat()
        await one.commit()
        await one.leave()
        await world.restart()
        assert world.state == "Empty"
        await world.broker.offsets.delete_group("g")
        assert world.groups.get("g") is None
        await world.restart()
        assert world.groups.get("g") is None
        assert world.broker.offsets.of_group("g") == {}
        with pytest.raises(UnknownGroupError):
            await one.beat(epoch=4)

    run(body)


def test_offsets_grow_old() -> None:
    async def body(world: World) -> None:
        one = world.member("one")
        await one.beat()
        await one.commit()
        for _ in range(8):  # it reads the topic: the offset stays
            await world.pass_time(SESSION_MS - 1)
            await one.beat()
        assert world.broker.offsets.of_group("g") != {}
        await one.leave()
        await world.pass_time(59_000)
        assert world.broker.offsets.of_group("g") != {}
        await world.pass_time(10_000)
        assert world.broker.offsets.of_group("g") == {}
        assert world.groups.get("g") is None

    run(body, offsets_retention_minutes=1, offsets_retention_check_interval_ms=1_000)


def test_offsets_that_a_pattern_is_about_do_not_go_at_a_restart() -> None:
    async def body(world: World) -> None:
        one = world.member("one", topics=frozenset(), regex="t")
        await one.beat()
        await one.commit()
        for _ in range(8):
            await world.pass_time(SESSION_MS - 1)
            await one.beat()
        await world.restart()
        await world.pass_time(1_000)
        assert world.broker.offsets.of_group("g") != {}
        with pytest.raises(GroupSubscribedToTopicError):
            await world.broker.offsets.delete_offsets("g", [TopicPartition("t", 0)])
        await world.pass_time(SESSION_MS)
        assert world.broker.offsets.of_group("g") != {}, "it has been empty for a short time"

    run(body, offsets_retention_minutes=1, offsets_retention_check_interval_ms=1_000)


def test_a_group_changes_its_protocol_when_it_is_empty() -> None:
    classic = JoinRequest("", "c", 10_000, 10_000, "consumer", (("range", b""),), None, "/net")

    async def body(world: World) -> None:
        groups = world.broker.groups
        one = world.member("one")
        await one.beat()
        await one.commit()
        with pytest.raises(InconsistentGroupProtocolError):
            await groups.join_group("g", classic)
        await one.leave()
        with pytest.raises(UnknownMemberError):
            await groups.join_group("g", classic._replace(member_id="made up"))
        assert world.state == "Empty"
        joined = await groups.join_group("g", classic)
        await groups.sync_group("g", joined.member_id, joined.generation, {joined.member_id: b""})
        assert world.groups.get("g") is None
        await world.restart()
        groups = world.broker.groups
        assert world.groups.get("g") is None
        assert groups.get("g") is not None
        with pytest.raises(UnknownGroupError):
            await one.beat(epoch=0)
        groups.leave_group("g", joined.member_id)
        await one.beat(epoch=0)
        assert groups.get("g") is None
        await world.restart()
        assert world.broker.groups.get("g") is None
        assert world.state == "Stable"
        assert len(world.broker.offsets.of_group("g")) == 1

    run(body)


def test_a_group_that_could_not_be_deleted_is_still_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was forgotten, but not on the disk: a restart put it beside who had its name by then."""
    classic = JoinRequest("", "c", 10_000, 10_000, "consumer", (("range", b""),), None, "/net")

    def full(*_: object) -> int:
        raise StorageError("The disk is full.")

    async def body(world: World) -> None:
        one = world.member("one")
        await one.beat()
        await one.commit()
        await one.leave()
        with monkeypatch.context() as patch:
            patch.setattr(InternalTopic, "append", full)
            with pytest.raises(StorageError):
                await world.broker.offsets.delete_group("g")
            await world.pass_time(61_000)  # and its offsets are too old
        assert world.state == "Empty"
        groups = world.broker.groups
        joined = await groups.join_group("g", classic)
        await groups.sync_group("g", joined.member_id, joined.generation, {joined.member_id: b""})
        await world.restart()
        who = ConsumerGroupMetadata("g", joined.generation, joined.member_id)
        await world.broker.offsets.commit(who, {TopicPartition("t", 0): OffsetAndMetadata(4)})

    run(body, offsets_retention_minutes=1, offsets_retention_check_interval_ms=30_000)


def test_what_cannot_be() -> None:
    async def body(world: World) -> None:
        await world.member("one").beat()
        with pytest.raises(GroupMaxSizeReachedError):
            await world.member("two").beat()
        with pytest.raises(UnknownMemberError):
            await world.groups.leave("g", "two", None)
        with pytest.raises(UnknownGroupError):
            await world.groups.leave("h", "two", None)
        with pytest.raises(InvalidRequestError):
            await world.groups.heartbeat("g" * 40_000, Heartbeat("one", 0), world.broker.partitions)

    run(body, group_consumer_max_size=1)


def test_a_member_that_no_record_can_name_ends_nothing() -> None:
    """It was in the group, which could not be written: no session of any group ended any more."""

    async def body(world: World) -> None:
        with pytest.raises(InvalidRequestError):
            await world.member("m" * 40_000).beat()
        one = world.member("one")
        await one.beat()
        await world.pass_time(SESSION_MS)
        assert world.state == "Empty"

    run(body)


def test_a_heartbeat_costs_little_whatever_the_others_want() -> None:
    """Names of nothing were looked up again with each of them, and all others waited."""

    async def body(world: World) -> None:
        for number in range(4):
            many = frozenset(f"{number}-{each}" for each in range(30_000))
            await world.member(f"m{number}", "t", *many).beat()
        one = world.member("one")
        await one.beat()
        began = time.process_time()
        for _ in range(50):
            await one.beat(topics=None, owned=None)
        assert time.process_time() - began < 2

    run(body)


def test_a_group_that_cannot_be_written_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    classic = JoinRequest("", "c", SESSION_MS, 10_000, "consumer", (("range", b""),), None, "/net")
    append = InternalTopic.append

    def full(self: InternalTopic, where: TopicPartition, keys: list[bytes], *more: Any) -> int:
        if any(b"first" in key for key in keys):
            raise StorageError("The disk is full.")
        return append(self, where, keys, *more)

    async def body(world: World) -> None:
        join = Heartbeat("m", 0, topics=frozenset({"t"}), owned=frozenset())
        await world.groups.heartbeat("first", join, world.broker.partitions)
        await world.member("one").beat()
        await world.broker.groups.join_group("classic", classic)
        monkeypatch.setattr(InternalTopic, "append", full)
        await world.pass_time(SESSION_MS)
        assert world.state == "Empty"
        group = world.broker.groups.get("classic")
        assert group is not None
        assert group.members == {}
        monkeypatch.undo()

    run(body)


STEP = st.one_of(
    st.tuples(st.just("beat"), st.integers(0, 3)),
    st.tuples(st.just("leave"), st.integers(0, 3)),
    st.tuples(st.just("vanish"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.sampled_from([100, 2_000, 5_000])),
    st.tuples(st.just("grow"), st.just(0)),
    st.tuples(st.just("restart"), st.just(0)),
)


class Life:
    """Four members: 0 and 1 are dynamic, 2 and 3 static. Who is fenced gives everything up."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.partitions = 4
        self.members = [
            world.member(f"m{each}", **({"instance_id": f"i{each}"} if each > 1 else {}))
            for each in range(4)
        ]

    async def beat(self, number: int) -> None:
        try:
            await self.members[number].beat()
        except (UnknownMemberError, FencedMemberEpochError):
            await self.vanish(number)

    async def leave(self, number: int) -> None:
        with suppress(LogError):
            await self.members[number].leave()
        await self.vanish(number)

    async def vanish(self, number: int) -> None:
        """It comes back as if it had never been."""
        self.members[number].epoch, self.members[number].has = 0, frozenset()

    async def wait(self, ms: int) -> None:
        await self.world.pass_time(ms)

    async def grow(self, _number: int) -> None:
        self.partitions += 1
        await self.world.broker.alter_topic("t", partitions=self.partitions)

    async def restart(self, _number: int) -> None:
        await self.world.restart()

    def check(self) -> None:
        group = self.world.groups.get("g")
        if group is None:
            return
        everybody = group.members.values()
        assert group.subscribed_topics() == {name for each in everybody for name in each.subscribed}
        held = [each for member in group.members.values() for each in member.held]
        assert len(held) == len(set(held))
        for each in self.members:
            known = group.members.get(each.name)
            if known is not None and known.epoch == each.epoch:
                assert each.has <= known.held

    async def three_settle(self) -> None:
        """Member 3 is not heard of any more."""
        for ms in (SESSION_MS - 1, 1, 0):
            for number in (0, 1, 2) * 6:
                await self.beat(number)
            await self.wait(ms)


@settings(deadline=None, max_examples=60)
@given(st.lists(STEP, max_size=40))
def test_no_partition_has_two_owners_and_all_are_read_in_the_end(
    steps: list[tuple[str, int]],
) -> None:
    async def body(world: World) -> None:
        life = Life(world)
        for what, number in steps:
            await getattr(life, what)(number)
            life.check()
        await life.three_settle()
        shares = [each.numbers for each in life.members[:3]]
        assert sorted(each for share in shares for each in share) == list(range(life.partitions))
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert world.state == "Stable"

    run(body)


def test_a_pattern_is_remembered_until_its_member_is_heard_of() -> None:
    async def body(world: World) -> None:
        one = world.member("one", topics=frozenset(), regex="t")
        two = world.member("two")
        for each in (one, two, one, one, two):
            await each.beat()
        had = one.has
        await world.restart()
        await two.beat()
        assert len(two.has) == 2
        await one.beat()
        assert one.has == had
        assert world.state == "Stable"  # in one go: nothing moves, not even in what is meant

    run(body)
