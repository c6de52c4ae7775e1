"""Offsets that are forgotten while others are being committed, and other odd moments."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import OffsetAndMetadata, TopicPartition, UnknownTopicError
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.record import ConsumerGroupMetadata
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.testing.fake_clock import FakeClock
from shared.logs import settled, with_log

T0 = TopicPartition("t", 0)
SETTINGS = {"flush.threads": 0, "offsets.retention.minutes": 10}


async def in_flight(log: EmbeddedLog, offset: int) -> asyncio.Task[None]:
    """A commit of group g that is written and not durable yet."""
    offsets = log._broker.offsets
    commit = offsets.commit(ConsumerGroupMetadata("g"), {T0: OffsetAndMetadata(offset)})
    task = asyncio.create_task(commit)
    await asyncio.sleep(0)
    assert (await log.group_offsets("g")).get(T0) != OffsetAndMetadata(offset)
    return task


def test_a_transaction_commits_no_offset_of_a_topic_that_was_deleted() -> None:
    """A topic of the same name has other records at those offsets; over a restart, too."""
    files = MemoryFiles()

    async def main() -> None:
        async with open_log_on(files, "log", config=SETTINGS) as log:
            await log.create_topic("t")
            async with log.producer(transactional_id="x") as producer, producer.transaction():
                await producer.send_offsets({T0: 3}, group="g")
                await log.delete_topic("t")
                await log.create_topic("t")
            assert await log.group_offsets("g") == {}
        async with open_log_on(files, "log", config=SETTINGS) as log:
            assert await log.group_offsets("g") == {}

    asyncio.run(main())


def test_a_commit_in_flight_goes_with_its_topic() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        await log.alter_group_offsets("g", {T0: 1})
        for _ in range(2):  # with and without one that counts already
            commit = await in_flight(log, 5)
            await log._broker.offsets.forget_topic("t")
            await commit
            assert await log.group_offsets("g") == {}

    with_log(body)


def test_the_first_commit_of_all_while_its_topic_goes() -> None:
    """It has to make `__consumer_offsets` first, and the topic is deleted meanwhile."""

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        deleting = asyncio.create_task(log.delete_topic("t"))
        while not log._broker.partitions._changing.locked():
            await asyncio.sleep(0)
        with pytest.raises(UnknownTopicError):
            await log.alter_group_offsets("g", {T0: 5})
        await deleting
        assert await log.group_offsets("g") == {}

    with_log(body)


def test_what_is_committed_while_the_old_one_expires_stays() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        await log.alter_group_offsets("g", {T0: 1})
        clock.advance(11 * 60_000)
        commit = await in_flight(log, 5)
        await log._broker.offsets.expire(clock.monotonic_ms())
        await commit
        assert await log.group_offsets("g") == {T0: OffsetAndMetadata(5)}

    with_log(body, config=SETTINGS, clock=clock)


def test_a_deletion_forgets_nothing_of_the_topic_that_is_made_next() -> None:
    """Groups lie in several partitions; all of them forget before anybody can commit again."""

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        groups = [f"g{number}" for number in range(8)]
        for group in groups:
            await log.alter_group_offsets(group, {T0: 1})

        async def make_again() -> None:
            await log.create_topic("t")
            await asyncio.gather(*[log.alter_group_offsets(each, {T0: 2}) for each in groups])

        deleting = asyncio.create_task(log.delete_topic("t"))
        await asyncio.sleep(0)
        await asyncio.gather(deleting, make_again())
        await settled()
        for group in groups:
            assert await log.group_offsets(group) == {T0: OffsetAndMetadata(2)}

    with_log(body, config={"offsets.topic.num.partitions": 4})


@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_a_commit_counts_when_it_returns(durability: str) -> None:
    async def main() -> None:
        async with open_log_on(MemoryFiles(), "log", durability=durability, config=SETTINGS) as log:
            await log.create_topic("t")
            for offset in (1, 2):
                await log.alter_group_offsets("g", {T0: offset})
                assert await log.group_offsets("g") == {T0: OffsetAndMetadata(offset)}
            await log.delete_group("g")
            assert await log.group_offsets("g") == {}

    asyncio.run(main())


def test_a_commit_of_nothing() -> None:
    """A client on the network may send one; there is no batch without records."""

    async def body(log: EmbeddedLog) -> None:
        offsets, member = log._broker.offsets, ConsumerGroupMetadata("g")
        await offsets.commit(member, {})
        producer_id, epoch = await log._broker.transactions.init_producer_id("x", 60_000)
        await offsets.commit_in_transaction("x", producer_id, epoch, member, {})
        assert await log.group_offsets("g") == {}

    with_log(body)
