"""The coordinator: ids of members, and a whole group of members that come, go, die and return."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from millstream.log import OffsetAndMetadata, TopicPartition
from millstream.log.broker.group_values import JoinRequest
from millstream.log.client.consumer import EmbeddedConsumer
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.errors import (
    InvalidRequestError,
    LogError,
    MemberIdRequiredError,
    RebalanceInProgressError,
    UnknownMemberError,
)
from millstream.log.limits import MEMBER_METADATA_BYTES_MAX
from millstream.log.record import ConsumerGroupMetadata
from millstream.log.testing.fake_clock import FakeClock
from shared.logs import settled, with_log

PARTITIONS = 5
T = [TopicPartition("t", number) for number in range(PARTITIONS)]


def request(member_id: str = "") -> JoinRequest:
    return JoinRequest(member_id, "net", 10_000, 10_000, "consumer", (("range", b""),))


def test_a_new_member_is_told_its_id_first() -> None:
    async def body(log: EmbeddedLog) -> None:
        groups = log._broker.groups
        with pytest.raises(MemberIdRequiredError) as raised:
            await groups.join_group("g", request(), require_known_member_id=True)
        assert raised.value.kafka_code == 79
        member_id = raised.value.member_id
        assert member_id.startswith("net-")
        joined = await groups.join_group("g", request(member_id), require_known_member_id=True)
        assert joined.member_id == member_id
        with pytest.raises(UnknownMemberError):
            await groups.join_group("g", request("made up"))

    with_log(body)


@pytest.mark.parametrize("instance_id", [None, "i" * 32_760])
def test_a_member_that_no_record_can_name_is_refused(instance_id: str | None) -> None:
    async def body(log: EmbeddedLog) -> None:
        groups = log._broker.groups
        long = request()._replace(client_id="c" * 32_760, group_instance_id=instance_id)
        with pytest.raises(InvalidRequestError, match="Use a shorter one"):
            await groups.join_group("g", long)
        assert groups.get("g") is None

    with_log(body)


def test_what_members_say_is_bounded() -> None:
    """It is taken apart when a static member is back, or a topic has more partitions; a request of
    20 MB kept everybody waiting for 20 seconds."""
    half, most = bytes(MEMBER_METADATA_BYTES_MAX // 2), bytes(MEMBER_METADATA_BYTES_MAX)

    async def body(log: EmbeddedLog) -> None:
        groups = log._broker.groups
        for protocols in ((("a", most + b"x"),), (("a", half), ("b", half + b"x"))):
            with pytest.raises(InvalidRequestError, match="fewer topics"):
                await groups.join_group("g", request()._replace(protocols=protocols))
        assert groups.get("g") is None
        joined = await groups.join_group("g", request()._replace(protocols=(("a", most),)))
        who = ("g", joined.member_id, joined.generation)
        with pytest.raises(InvalidRequestError, match="fewer topics"):
            await groups.sync_group(*who, {joined.member_id: most + b"x"})
        await groups.sync_group(*who, {joined.member_id: most})

    with_log(body)


def test_ids_that_nobody_uses_cost_little() -> None:
    """A client may ask for one after the other, and each is kept until its session is over."""

    async def body(log: EmbeddedLog) -> None:
        groups = log._broker.groups
        began = time.process_time()
        for _ in range(20_000):
            with suppress(MemberIdRequiredError):
                await groups.join_group("g", request(), require_known_member_id=True)
        assert time.process_time() - began < 2

    with_log(body, clock=FakeClock())


def test_a_member_of_no_group_makes_none() -> None:
    async def body(log: EmbeddedLog) -> None:
        with pytest.raises(UnknownMemberError):
            await log._broker.groups.join_group("g", request("made up"))
        assert await log.groups() == []

    with_log(body)


def test_who_stops_waiting_before_it_knows_its_id_is_gone() -> None:
    async def body(log: EmbeddedLog) -> None:
        groups = log._broker.groups
        await groups.join_group("g", request())
        waiting = asyncio.create_task(groups.join_group("g", request()))
        await settled()
        assert len(groups.get("g").members) == 2
        waiting.cancel()
        await settled()
        assert len(groups.get("g").members) == 1

    with_log(body)


def test_who_is_given_up_is_not_held() -> None:
    """A consumer that was thrown away, not closed, must not stay in memory with its fetches."""
    clock = FakeClock()

    class Owner:
        def rebalance(self) -> None:
            pass

    async def body(log: EmbeddedLog) -> None:
        groups = log._broker.groups
        owner = Owner()
        held = weakref.ref(owner)
        await groups.join_group("g", request(), on_rebalance=owner.rebalance)
        del owner
        gc.collect()
        assert held() is not None
        clock.advance(10_000)
        await settled()
        assert groups.get("g").members == {}
        gc.collect()
        assert held() is None

    with_log(body, clock=clock)


class Life:
    """Several consumers of one group, some static, on a clock that stands still."""

    def __init__(self, log: EmbeddedLog, clock: FakeClock, strategy: str) -> None:
        self.log = log
        self.clock = clock
        self.strategy = strategy
        self.live: dict[int, EmbeddedConsumer] = {}
        self.former: list[tuple[ConsumerGroupMetadata, set[TopicPartition]]] = []

    def _config(self, number: int) -> dict[str, str | int]:
        return {
            "partition.assignment.strategy": self.strategy,
            "group.instance.id": f"i{number}" if number % 2 else "",
            "enable.auto.commit": "false",
            "max.poll.interval.ms": 20_000,
            "session.timeout.ms": 10_000,
        }

    def _remember(self, consumer: EmbeddedConsumer) -> None:
        self.former.append((consumer.group_metadata(), consumer.assignment()))

    async def come(self, number: int) -> None:
        if number not in self.live:
            self.live[number] = self.log.consumer("t", group="g", config=self._config(number))
        await self.poll(number)

    async def poll(self, number: int) -> None:
        if number in self.live:
            self._remember(self.live[number])
            await self.live[number].poll(0, 1)
            await settled()

    async def go(self, number: int) -> None:
        if number in self.live:
            self._remember(self.live[number])
            await self.live.pop(number).close()

    async def die(self, number: int) -> None:
        """No heartbeat any more, and nobody leaves; its handle stays in somebody's hands."""
        if number in self.live:
            consumer = self.live.pop(number)
            self._remember(consumer)
            membership = consumer._membership
            for task in (membership._joining, membership._heartbeats):
                if task is not None:
                    task.cancel()
            consumer._on_close(consumer)

    async def wait(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1_000)
            await settled()

    async def owners(self) -> dict[TopicPartition, set[ConsumerGroupMetadata]]:
        """Who may commit which partition now, by trying: those who live, and every zombie with what
        it had at any time."""
        claims = [
            *((each.group_metadata(), each.assignment()) for each in self.live.values()),
            *self.former,
        ]
        found: dict[TopicPartition, set[ConsumerGroupMetadata]] = {each: set() for each in T}
        for member, had in claims:
            for partition in had:
                try:
                    await self.log._broker.offsets.commit(member, {partition: OffsetAndMetadata(0)})
                except LogError:
                    continue
                found[partition].add(member)
        return found

    async def check_at_most_one_owner(self) -> None:
        """No two members that the group listens to have the same partition, and no zombie is heard
        about one that another has. (A cooperative member that keeps a partition may have been given
        it in any former generation.)"""
        heard: list[TopicPartition] = []
        for consumer in self.live.values():
            for partition in list(consumer.assignment())[:1]:
                if await self._is_heard(consumer.group_metadata(), partition):
                    heard += consumer.assignment()
        assert len(heard) == len(set(heard)), "two have it"
        if self.strategy != "cooperative-sticky":
            for partition, members in (await self.owners()).items():
                assert len({each.member_id for each in members}) <= 1, (partition, members)

    async def _is_heard(self, member: ConsumerGroupMetadata, partition: TopicPartition) -> bool:
        try:
            await self.log._broker.offsets.commit(member, {partition: OffsetAndMetadata(0)})
        except RebalanceInProgressError:
            return True
        except LogError:
            return False
        return True

    async def settle(self) -> None:
        for _ in range(3):
            await self.wait(12)
            for _ in range(6):
                for number in list(self.live):
                    await self.poll(number)
        if self.live:
            mine = sorted(each for one in self.live.values() for each in one.assignment())
            assert mine == T, "every partition has one owner"
            sizes = [len(each.assignment()) for each in self.live.values()]
            assert max(sizes) - min(sizes) <= 1
            found = await self.owners()
            assert {len({each.member_id for each in who}) for who in found.values()} == {1}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "poll", "poll", "poll", "go", "die", "wait"]),
        st.integers(0, 4),
    ),
    max_size=25,
)


# a third member comes to two; one has joined again and waits while the others go ahead of it
THREE_IN_TURN = [
    ("come", 0), ("come", 1), ("poll", 0), ("poll", 1), ("poll", 0), ("poll", 1),
    ("come", 2), ("poll", 0), ("poll", 1), ("poll", 2), ("poll", 0), ("poll", 2), ("poll", 1),
]  # fmt: skip


@pytest.mark.parametrize("strategy", ["range", "sticky", "cooperative-sticky"])
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
@example(steps=THREE_IN_TURN)
def test_at_most_one_owner_at_any_time_and_one_in_the_end(
    strategy: str, steps: list[tuple[str, int]]
) -> None:
    """Members join, leave, die and come back as zombies. Judged by commits: at no time are two
    members heard about one partition; when all is quiet every partition has one owner."""
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=PARTITIONS)
        life = Life(log, clock, strategy)
        for what, number in steps:
            if what == "wait":
                await life.wait(number * 3)
            else:
                await getattr(life, what)(number)
            await life.check_at_most_one_owner()
        await life.settle()
        for consumer in life.live.values():
            await consumer.close()

    with_log(body, clock=clock)
