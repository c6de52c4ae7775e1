"""Members that keep their place while they are away (KIP-345)."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import (
    FencedInstanceIdError,
    TopicPartition,
    UnknownGroupError,
    UnknownMemberError,
)
from millstream.log.client.consumer import EmbeddedConsumer
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.testing.fake_clock import FakeClock
from shared.logs import settled, with_log

T = [TopicPartition("t", number) for number in range(4)]


def static(log: EmbeddedLog, instance: str, *topics: str, **config: str | int) -> EmbeddedConsumer:
    settings = {"group.instance.id": instance, **config}
    return log.consumer(*(topics or ("t",)), group="g", config=settings)


async def turns(*members: EmbeddedConsumer, times: int = 4) -> None:
    for _ in range(times):
        for each in members:
            await each.poll(0, 1)
            await settled()


async def generation(log: EmbeddedLog) -> int:
    return (await log.describe_group("g")).generation


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "sticky", "cooperative-sticky"])
def test_a_restart_is_no_rebalance(strategy: str) -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=4)
        config = {"partition.assignment.strategy": strategy}
        members = {each: static(log, each, **config) for each in ("i1", "i2")}
        await turns(*members.values())
        before = await generation(log)
        had = {each: member.assignment() for each, member in members.items()}
        assert [len(each) for each in had.values()] == [2, 2]
        for instance, member in members.items():  # the leader's restart, and the follower's
            await member.close()
            assert len((await log.describe_group("g")).members) == 2, "it keeps its place"
            again = static(log, instance, **config)
            await again.poll(0)
            assert again.assignment() == had[instance]
            members[instance] = again
        await turns(*members.values())
        assert await generation(log) == before
        assert {each: member.assignment() for each, member in members.items()} == had
        await members["i1"].commit({next(iter(had["i1"])): 0})

    with_log(body)


def test_a_restart_before_partitions_were_given_up_leaves_none_to_nobody() -> None:
    """A cooperative member gives up what moves, and joins once more for another to have it. It was
    closed before that; whoever took its place knew of nothing to give up, and nobody joined."""

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=4)
        config = {"partition.assignment.strategy": "cooperative-sticky"}
        first, second = static(log, "i1", **config), static(log, "i2", **config)
        await turns(first)
        assert first.assignment() == set(T)
        joining = asyncio.create_task(second.poll(1000, 1))
        await settled()
        await asyncio.wait([asyncio.create_task(first._membership._begin_to_join())])
        await settled()  # the new generation is there, and its owner does not know it yet
        await first.close()
        first = static(log, "i1", **config)
        await joining
        await turns(first, second)
        assert sorted([*first.assignment(), *second.assignment()]) == T

    with_log(body)


def test_other_topics_after_a_restart_are_a_rebalance() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=4)
        await log.create_topic("u")
        a, b = static(log, "i1"), static(log, "i2")
        await turns(a, b)
        await b.close()
        b = static(log, "i2", "t", "u")
        await turns(a, b)
        assert TopicPartition("u", 0) in b.assignment()
        assert len(a.assignment() | b.assignment()) == 5

    with_log(body)


def test_it_is_given_up_when_its_session_is_over() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=4)
        a, b = static(log, "i1"), static(log, "i2")
        await turns(a, b)
        await b.close()
        for _ in range(14):
            clock.advance(3_000)
            await settled()
            await turns(a, times=1)
        assert len(a.assignment()) == 2
        clock.advance(3_000)
        await settled()
        await turns(a)
        assert a.assignment() == set(T)

    with_log(body, clock=clock)


def test_a_second_user_of_the_id_fences_the_first() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=4)
        first = static(log, "i1", **{"enable.auto.commit": "false"})
        lost: list[TopicPartition] = []

        async def on_lost(partitions) -> None:
            lost.extend(partitions)

        await first.subscribe(["t"], on_lost=on_lost)
        await first.poll(0)
        second = static(log, "i1")
        await second.poll(0)
        assert second.assignment() == set(T)
        with pytest.raises(FencedInstanceIdError, match=r"group\.instance\.id=i1"):
            await first.commit({T[0]: 1})
        async with log.producer(transactional_id="x") as producer:
            await producer.begin_transaction()
            with pytest.raises(FencedInstanceIdError):
                await producer.send_offsets({T[0]: 1}, group=first.group_metadata())
            await producer.abort_transaction()
        for _ in range(2):
            with pytest.raises(FencedInstanceIdError):
                await first.poll(0)
        assert sorted(lost) == T
        assert first.assignment() == set()
        assert FencedInstanceIdError.kafka_code == 82
        await first.close()
        await second.commit({T[0]: 1})
        assert len((await log.describe_group("g")).members) == 1

    with_log(body)


def test_one_that_waits_for_a_rebalance_is_fenced_too() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=4)
        other = static(log, "i1")
        await turns(other)
        first, second = static(log, "i2"), static(log, "i2")
        waiting = asyncio.create_task(first.poll(10_000))
        await settled()
        taking_over = asyncio.create_task(second.poll(10_000))
        await settled()
        with pytest.raises(FencedInstanceIdError):
            await waiting
        await turns(other)
        assert len(other.assignment()) == 2
        await second.close()
        await asyncio.gather(taking_over, return_exceptions=True)

    with_log(body)


def test_a_restart_of_the_process_is_a_restart() -> None:
    """The group is in the log: its static members have their places back when it is opened again,
    and the one that does not come is given up in time."""
    files, clock = MemoryFiles(), FakeClock()

    async def main() -> None:
        config = {"flush.threads": 0}
        async with open_log_on(files, "log", config=config, clock=clock) as log:
            await log.create_topic("t", partitions=4)
            a, b = static(log, "i1"), static(log, "i2")
            await turns(a, b)
            before, had = await generation(log), a.assignment()
        async with open_log_on(files, "log", config=config, clock=clock) as log:
            described = await log.describe_group("g")
            assert [each.group_instance_id for each in described.members] == ["i1", "i2"]
            assert described.state == "Stable"
            a = static(log, "i1")
            await turns(a)
            assert a.assignment() == had
            assert await generation(log) == before
            for _ in range(16):
                clock.advance(3_000)
                await settled()
                await turns(a, times=1)
            await turns(a)
            assert a.assignment() == set(T)
            assert await generation(log) > before

    asyncio.run(main())


def test_members_that_are_not_static_do_not_come_back() -> None:
    files = MemoryFiles()

    async def main() -> None:
        config = {"flush.threads": 0}
        log = open_log_on(files, "log", config=config)
        await log.__aenter__()
        await log.create_topic("t", partitions=4)
        a, b = static(log, "i1"), log.consumer("t", group="g")
        await turns(a, b)
        await log._broker.partitions.close(clean=False)  # killed: nobody leaves
        async with open_log_on(files, "log", config=config) as log:
            members = (await log.describe_group("g")).members
            assert [each.group_instance_id for each in members] == ["i1"]
            a = static(log, "i1")
            await turns(a)
            assert a.assignment() == set(T)

    asyncio.run(main())


def test_members_are_taken_out() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=4)
        a, b = static(log, "i1"), static(log, "i2")
        await turns(a, b)
        with pytest.raises(UnknownMemberError, match="i3"):
            await log.remove_group_members("g", ["i1", "i3"])
        assert len((await log.describe_group("g")).members) == 2
        await b.close()
        await log.remove_group_members("g", ["i2"])
        await turns(a)
        assert a.assignment() == set(T)
        await log.remove_group_members("g")
        assert (await log.describe_group("g")).members == ()
        await turns(a)
        assert a.assignment() == set(T), "one that lives joins again"
        with pytest.raises(UnknownGroupError, match="nope"):
            await log.remove_group_members("nope", ["i1"])

    with_log(body)
