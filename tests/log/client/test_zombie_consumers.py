"""Offsets in a transaction come from a member of the group as it is now, or not at all (KIP-447).

A worker that was paused while its partitions moved still has a good producer. What stops it is the
generation: what it sends is refused before anything of it is written, and its transaction, with all
it wrote, cannot commit.
"""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import (
    ConfigError,
    ConsumerGroupMetadata,
    FencedInstanceIdError,
    IllegalGenerationError,
    LogError,
    OffsetAndMetadata,
    TopicPartition,
    UnknownMemberError,
    UnknownTopicError,
)
from millstream.log.client.consumer import EmbeddedConsumer
from millstream.log.client.embedded_log import EmbeddedLog
from shared.logs import settled, values, with_log

T0 = TopicPartition("t", 0)
OUT = TopicPartition("out", 0)
OFFSETS = TopicPartition("__consumer_offsets", 0)
MANUAL: dict[str, str | int] = {"enable.auto.commit": "false"}


async def member(log: EmbeddedLog, group: str = "g", instance: str = "") -> EmbeddedConsumer:
    config = {**MANUAL, **({"group.instance.id": instance} if instance else {})}
    consumer = log.consumer("t", group=group, config=config)
    while consumer.group_metadata().generation < 0:
        await consumer.poll(10)
    return consumer


async def joined_again(consumer: EmbeddedConsumer) -> None:
    before = consumer.group_metadata().generation
    while consumer.group_metadata().generation == before:
        await consumer.poll(10)


def end_of_offsets(log: EmbeddedLog) -> int:
    return log._broker.partitions.partition(OFFSETS).log_end_offset


def spoiled(kind: str, now: ConsumerGroupMetadata) -> ConsumerGroupMetadata:
    """What a member that may not commit says of itself."""
    return {
        "stale generation": ConsumerGroupMetadata(now.group, now.generation - 1, now.member_id),
        "generation to come": ConsumerGroupMetadata(now.group, now.generation + 1, now.member_id),
        "no generation": ConsumerGroupMetadata(now.group, -1, now.member_id),
        "unknown member": ConsumerGroupMetadata(now.group, now.generation, "somebody"),
        "nobody with a generation": ConsumerGroupMetadata(now.group, now.generation, ""),
        "another group": ConsumerGroupMetadata("h", now.generation, now.member_id),
        "unknown instance": ConsumerGroupMetadata(
            now.group, now.generation, now.member_id, "nobody"
        ),
        "fenced instance": ConsumerGroupMetadata(now.group, now.generation, "former", "one"),
    }[kind]


@pytest.mark.parametrize("with_records", [False, True], ids=["alone", "after records and offsets"])
@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("stale generation", IllegalGenerationError),
        ("generation to come", IllegalGenerationError),
        ("no generation", IllegalGenerationError),
        ("unknown member", UnknownMemberError),
        ("nobody with a generation", UnknownMemberError),
        ("another group", UnknownMemberError),
        ("unknown instance", UnknownMemberError),
        ("fenced instance", FencedInstanceIdError),
    ],
)
def test_who_may_not_commit(kind: str, error: type[LogError], with_records: bool) -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        now = (await member(log, instance="one")).group_metadata()
        zombie = spoiled(kind, now)
        async with log.producer(transactional_id="x") as producer:
            await producer.begin_transaction()
            if with_records:
                await producer.send_batch("out", [b"never"])
                await producer.send_offsets({T0: 1}, group=now)
            end = end_of_offsets(log)
            began = (await log.describe_transaction("x")).partitions
            with pytest.raises(error):
                await producer.send_offsets({T0: 7}, group=zombie)
            assert end_of_offsets(log) == end, "something of it was written"
            assert (await log.describe_transaction("x")).partitions == began
            with pytest.raises(error):  # the application may have swallowed it
                await producer.commit_transaction()
            await producer.abort_transaction()
            assert await log.group_offsets("g") == await log.group_offsets("h") == {}
            async with asyncio.timeout(5), producer.transaction():  # nothing is left pending
                await producer.send_batch("out", [b"next"])
                await producer.send_offsets({T0: 2}, group=now)
        assert await values(log, OUT) == [b"next"]
        assert await log.group_offsets("g") == {T0: OffsetAndMetadata(2)}

    with_log(body)


@pytest.mark.parametrize(
    ("offsets", "error"),
    [
        ({T0: 1, TopicPartition("t", 9): 1}, UnknownTopicError),
        ({T0: 1, TopicPartition("gone", 0): 1}, UnknownTopicError),
        ({T0: -1}, ConfigError),
        ({T0: OffsetAndMetadata(1, "." * 5000)}, ConfigError),
    ],
    ids=["partition", "topic", "negative", "note"],
)
def test_one_bad_offset_spoils_all_and_writes_none(offsets, error: type[LogError]) -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        now = (await member(log)).group_metadata()
        async with log.producer(transactional_id="x") as producer:
            await producer.begin_transaction()
            end = end_of_offsets(log)
            with pytest.raises(error):
                await producer.send_offsets(offsets, group=now)
            assert end_of_offsets(log) == end
            await producer.abort_transaction()
        assert await log.group_offsets("g") == {}

    with_log(body)


def test_a_rebalance_between_two_sends_of_one_transaction() -> None:
    """The first was right when it came; the second is not, and takes the first with it."""

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=2)
        first = await member(log)
        before = first.group_metadata()
        async with log.producer(transactional_id="x") as producer:
            await producer.begin_transaction()
            await producer.send_offsets({T0: 5}, group=before)
            joining = asyncio.gather(member(log), joined_again(first))
            while (await log.describe_group("g")).generation == before.generation:
                await settled()
            with pytest.raises(IllegalGenerationError):
                await producer.send_offsets({TopicPartition("t", 1): 5}, group=before)
            with pytest.raises(IllegalGenerationError):
                await producer.commit_transaction()
            await producer.abort_transaction()
            second, _ = await joining
            assert await log.group_offsets("g") == {}
            async with producer.transaction():
                await producer.send_offsets({T0: 6}, group=first.group_metadata())
            async with log.producer(transactional_id="y") as other, other.transaction():
                await other.send_offsets({TopicPartition("t", 1): 7}, group=second.group_metadata())
        found = await log.group_offsets("g")
        assert {each.partition: value.offset for each, value in found.items()} == {0: 6, 1: 7}

    with_log(body)


def test_a_second_user_of_an_instance_id_fences_the_first_ones_offsets() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        zombie = (await member(log, instance="one")).group_metadata()
        successor = (await member(log, instance="one")).group_metadata()
        async with log.producer(transactional_id="x") as producer:
            with pytest.raises(FencedInstanceIdError):
                async with producer.transaction():
                    await producer.send_batch("out", [b"zombie"])
                    await producer.send_offsets({T0: 5}, group=zombie)
            async with producer.transaction():
                await producer.send_offsets({T0: 6}, group=successor)
        assert await log.group_offsets("g") == {T0: OffsetAndMetadata(6)}
        assert await values(log, OUT) == []

    with_log(body)


def test_a_transaction_without_a_member_goes_by_its_producer() -> None:
    """As in Kafka: `group="g"` alone says nothing of members; only the producer can be fenced."""

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        await member(log)
        async with log.producer(transactional_id="x") as producer, producer.transaction():
            await producer.send_offsets({T0: 3}, group="g")
        assert await log.group_offsets("g") == {T0: OffsetAndMetadata(3)}

    with_log(body)
