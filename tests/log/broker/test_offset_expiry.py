"""Offsets that grow old: by the rules of Kafka, over restarts, with tombstones."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import OffsetAndMetadata, TopicPartition
from millstream.log.broker.consumer_protocol import Subscription, encode_subscription
from millstream.log.broker.group_values import GroupState, JoinRequest, Member
from millstream.log.broker.groups import Group
from millstream.log.broker.offset_expiry import expired_offsets
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.testing.fake_clock import FakeClock
from millstream.log.testing.sim_files import Crash, SimFiles
from shared.logs import settled, values, with_log

T0, U0 = TopicPartition("t", 0), TopicPartition("u", 0)
RETENTION_MS = 1000
TIMES = {T0: 100, U0: 900}


def group(state: GroupState, *topics: str, since_ms: int = 0, kind: str = "consumer") -> Group:
    found = Group("g", initial_delay_ms=0)
    found.state, found.state_since_ms, found.protocol_type = state, since_ms, kind
    if topics:
        data = encode_subscription(Subscription(topics))
        request = JoinRequest("m", "", 10_000, 10_000, kind, (("range", data),))
        found.members["m"] = Member(request, 0)
    return found


@pytest.mark.parametrize(
    ("group", "now_ms", "expected"),
    [
        (None, 1099, []),
        (None, 1100, [T0]),
        (None, 1900, [T0, U0]),
        (group(GroupState.EMPTY, kind=""), 1100, [T0]),
        (group(GroupState.EMPTY, since_ms=500), 1499, []),
        (group(GroupState.EMPTY, since_ms=500), 1500, [T0]),
        (group(GroupState.EMPTY, since_ms=500), 1900, [T0, U0]),
        (group(GroupState.STABLE, "t"), 1899, []),
        (group(GroupState.STABLE, "t"), 1900, [U0]),
        (group(GroupState.STABLE, "t", "u"), 9999, []),
        (group(GroupState.STABLE, "t", kind="connect"), 9999, []),
        (group(GroupState.PREPARING_REBALANCE, "t"), 9999, []),
        (group(GroupState.COMPLETING_REBALANCE, "t"), 9999, []),
    ],
)
def test_what_is_too_old(group: Group | None, now_ms: int, expected: list[TopicPartition]) -> None:
    assert expired_offsets(group, TIMES, now_ms, RETENTION_MS) == expected


def test_members_that_cannot_be_understood_keep_everything() -> None:
    found = group(GroupState.STABLE, "t")
    found.members["m"].request = found.members["m"].request._replace(protocols=(("x", b"?"),))
    assert expired_offsets(found, TIMES, 9999, RETENTION_MS) == []


SETTINGS = {
    "flush.threads": 0,
    "offsets.retention.minutes": 10,
    "offsets.retention.check.interval.ms": 60_000,
}
MINUTE = 60_000


async def minutes(clock: FakeClock, count: int, *consumers) -> None:
    """Let time pass in steps in which heartbeats arrive."""
    for _ in range(count * 6):
        clock.advance(10_000)
        await settled()
        for each in consumers:
            await each.poll(0)


def test_a_group_without_members_from_the_commit_on() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        await log.create_topic("u")
        await log.alter_group_offsets("g", {T0: 0})
        await minutes(clock, 5)
        await log.alter_group_offsets("g", {U0: 0})
        await minutes(clock, 4)
        assert set(await log.group_offsets("g")) == {T0, U0}
        await minutes(clock, 2)
        assert set(await log.group_offsets("g")) == {U0}
        await minutes(clock, 5)
        assert await log.groups() == []

    with_log(body, config=SETTINGS, clock=clock)


def test_a_group_from_when_it_became_empty() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        consumer = log.consumer("t", group="g", config={"enable.auto.commit": "false"})
        await consumer.poll(0)
        await consumer.commit({T0: 0})
        await minutes(clock, 15, consumer)
        assert set(await log.group_offsets("g")) == {T0}, "somebody reads it"
        await consumer.close()
        await minutes(clock, 9)
        assert set(await log.group_offsets("g")) == {T0}
        assert [each.state for each in await log.groups()] == ["Empty"]
        await minutes(clock, 2)
        assert await log.groups() == [], "offsets and group"
        tombstones = await values(log, TopicPartition("__consumer_offsets", 0))
        assert tombstones[-2:] == [None, None]

    with_log(body, config=SETTINGS, clock=clock)


def test_topics_that_are_not_read_any_more() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        await log.create_topic("u")
        await log.alter_group_offsets("g", {T0: 0, U0: 0})
        consumer = log.consumer("t", group="g", config={"enable.auto.commit": "false"})
        await consumer.poll(0)
        await minutes(clock, 12, consumer)
        assert set(await log.group_offsets("g")) == {T0}

    with_log(body, config=SETTINGS, clock=clock)


def test_offsets_that_a_transaction_holds_stay() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        await log.alter_group_offsets("g", {T0: 0})
        producer = log.producer(transactional_id="x", config={"transaction.timeout.ms": 800_000})
        await producer.begin_transaction()
        await producer.send_offsets({T0: 3}, group="g")
        await minutes(clock, 12)
        assert set(await log.group_offsets("g")) == {T0}
        await producer.commit_transaction()
        await producer.close()
        assert (await log.group_offsets("g"))[T0].offset == 3
        await minutes(clock, 3)
        assert await log.group_offsets("g") == {}, "its time is that of its own commit"

    with_log(body, config={**SETTINGS, "transaction.max.timeout.ms": 900_000}, clock=clock)


@pytest.mark.parametrize("with_member", [True, False])
@pytest.mark.parametrize("compacted", [True, False])
def test_the_time_outlives_the_process(with_member: bool, compacted: bool) -> None:
    """What counts is in the records, also after the topic was compacted."""
    files, clock = MemoryFiles(), FakeClock()

    async def main() -> None:
        small = {**SETTINGS, "offsets.topic.segment.bytes": 1024}
        async with open_log_on(files, "log", config=small, clock=clock) as log:
            await log.create_topic("t")
            await log.alter_group_offsets("g", {T0: 0})
            if with_member:
                async with log.consumer("t", group="g") as consumer:
                    await consumer.poll(0)
            await minutes(clock, 4)
            if compacted:
                for _ in range(8):  # 1 KiB fills a segment
                    await log.alter_group_offsets("other", {T0: OffsetAndMetadata(0, "n" * 900)})
                assert (await log._broker.cleaner.run_once()).partitions_compacted == 1
                await log.delete_group("other")
        clock.advance(4 * MINUTE)
        async with open_log_on(files, "log", config=SETTINGS, clock=clock) as log:
            await minutes(clock, 1)
            assert set(await log.group_offsets("g")) == {T0}
            await minutes(clock, 2)
            assert await log.groups() == []
        async with open_log_on(files, "log", config=SETTINGS, clock=clock) as log:
            assert await log.groups() == []

    asyncio.run(main())


def test_an_empty_group_whose_offsets_were_just_set_keeps_them() -> None:
    """Here Kafka forgets them at the next look; see docs/decisions."""
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with log.consumer("t", group="g") as consumer:
            await consumer.poll(0)
            await consumer.commit({T0: 0})
        await minutes(clock, 8)
        await log.alter_group_offsets("g", {T0: 0})
        await minutes(clock, 8)
        assert set(await log.group_offsets("g")) == {T0}
        await minutes(clock, 3)
        assert await log.groups() == []

    with_log(body, config=SETTINGS, clock=clock)


def test_since_when_a_group_is_empty_outlives_the_process() -> None:
    """Not from the commit, not from the opening: from when its last member left."""
    files, clock = MemoryFiles(), FakeClock()

    async def main() -> None:
        async with open_log_on(files, "log", config=SETTINGS, clock=clock) as log:
            await log.create_topic("t")
            consumer = log.consumer("t", group="g", config={"enable.auto.commit": "false"})
            await consumer.poll(0)
            await consumer.commit({T0: 0})
            await minutes(clock, 5, consumer)
            await consumer.close()
        clock.advance(6 * MINUTE)
        async with open_log_on(files, "log", config=SETTINGS, clock=clock) as log:
            await minutes(clock, 2)
            assert set(await log.group_offsets("g")) == {T0}
            await minutes(clock, 3)
            assert await log.groups() == []

    asyncio.run(main())


def test_a_group_that_died_is_empty_since_the_log_was_next_opened() -> None:
    """Not since it was last opened: offsets of a log that is opened every day would never go."""
    files, clock = SimFiles(), FakeClock()

    async def main() -> None:
        async with open_log_on(files, "log", config=SETTINGS, clock=clock) as log:
            await log.create_topic("t")
            consumer = log.consumer("t", group="g", config={"enable.auto.commit": "false"})
            await consumer.poll(0)
            await consumer.commit({T0: 0})
            killed = files.restart()
            files.crashed = True
            with pytest.raises(Crash):
                await log.close()
        for _ in range(2):
            async with open_log_on(killed, "log", config=SETTINGS, clock=clock) as log:
                await minutes(clock, 1)
                assert set(await log.group_offsets("g")) == {T0}
            clock.advance(4 * MINUTE)
        async with open_log_on(killed, "log", config=SETTINGS, clock=clock) as log:
            await minutes(clock, 2)
            assert await log.groups() == []

    asyncio.run(main())
