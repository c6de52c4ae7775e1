"""What happens between two steps of a rebalance."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import pytest

from millstream.log import LogClosedError, StorageError, TopicPartition
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.testing.fake_clock import FakeClock
from shared.logs import settled, with_log

COOPERATIVE = {
    "partition.assignment.strategy": "cooperative-sticky",
    "enable.auto.commit": "false",
}


async def filled(log: EmbeddedLog, partitions: int) -> None:
    await log.create_topic("t", partitions=partitions)
    async with log.producer() as producer:
        for number in range(partitions):
            await producer.send_batch("t", [b"x"] * 20, partition=number)


def test_an_assignment_of_a_membership_that_is_over_is_not_taken() -> None:
    """The rebalance ended while the owner worked, and it worked for too long: the partitions belong
    to others. It read them once more, and in a transaction could have committed for them."""
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await filled(log, 2)
        slow = log.consumer("t", group="g", config={**COOPERATIVE, "max.poll.interval.ms": 10_000})
        other = log.consumer("t", group="g", config=COOPERATIVE)
        assert len(await slow.poll(0, 1)) == 1
        joining = asyncio.create_task(other.poll(1000, 1))
        await settled()
        assert len(await slow.poll(0, 1)) == 1, "it goes on meanwhile"
        await joining
        for _ in range(5):
            clock.advance(3_000)
            await settled()
        for _ in range(3):
            await other.poll(0, 1)
            await settled()
        assert len(other.assignment()) == 2
        assert await slow.poll(0, 1) == []
        assert slow.assignment() == set()

    with_log(body, clock=clock)


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_a_topic_made_while_partitions_are_given_up_is_joined_with(strategy: str) -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("a-1")
        consumer = log.consumer(group="g", config={"partition.assignment.strategy": strategy})

        async def on_revoked(_: object) -> None:
            await log.create_topic("a-3", exist_ok=True)

        await consumer.subscribe(pattern=re.compile("a-.*"), on_revoked=on_revoked)
        await consumer.poll(0)
        await log.create_topic("a-2")
        if strategy == "cooperative-sticky":
            await log.delete_topic("a-1")  # something to give up
        for _ in range(3):
            await consumer.poll(0)
            await settled()
        assert {"a-2", "a-3"} <= {each.topic for each in consumer.assignment()}

    with_log(body)


def test_subscribing_anew_while_partitions_are_given_up() -> None:
    async def body(log: EmbeddedLog) -> None:
        for name in "tuv":
            await log.create_topic(name)
        consumer = log.consumer(group="g")

        async def on_revoked(_: object) -> None:
            await consumer.subscribe(["v"])

        await consumer.subscribe(["t"], on_revoked=on_revoked)
        await consumer.poll(0)
        await consumer.subscribe(["u"], on_revoked=on_revoked)
        for _ in range(3):
            await consumer.poll(0)
            await settled()
        assert consumer.assignment() == {TopicPartition("v", 0)}

    with_log(body)


def test_closing_while_a_new_assignment_is_taken_over() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log, 2)
        revoking, may_go_on = asyncio.Event(), asyncio.Event()
        told: list[str] = []

        async def on_assigned(_: object) -> None:
            told.append("assigned")

        async def on_revoked(_: object) -> None:
            told.append("revoked")
            revoking.set()
            await may_go_on.wait()

        first = log.consumer(group="g", config=COOPERATIVE)
        await first.subscribe(["t"], on_assigned=on_assigned, on_revoked=on_revoked)
        await first.poll(0, 1)
        second = log.consumer("t", group="g", config=COOPERATIVE)
        joining = asyncio.create_task(second.poll(1000, 1))
        await settled()
        polling = asyncio.create_task(first.poll(0, 1))
        await revoking.wait()
        closing = asyncio.create_task(first.close())
        await settled()
        may_go_on.set()
        await closing
        with suppress(LogClosedError):
            assert await polling == []
        assert first.assignment() == set()
        assert told == ["assigned", "revoked", "revoked"]
        await joining
        await second.close()

    with_log(body)


def test_whoever_left_reads_no_more_though_its_last_commit_failed() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log, 1)
        consumer = log.consumer("t", group="g")
        assert len(await consumer.poll(0, 1)) == 1
        commit = log._broker.offsets.commit

        async def refuse(*_: object) -> None:
            raise StorageError("full")

        log._broker.offsets.commit = refuse
        with pytest.raises(StorageError):
            await consumer.assign([TopicPartition("t", 0)])
        log._broker.offsets.commit = commit
        assert log.stats().members == 0
        assert consumer.assignment() == set()
        assert await consumer.poll(0, 1) == []
        await consumer.subscribe(["t"])
        assert len(await consumer.poll(0, 1)) == 1
        assert log.stats().members == 1

    with_log(body)


def test_resuming_wakes_a_poll_that_had_nothing_to_read() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log, 1)
        consumer = log.consumer("t")
        assert len(await consumer.poll(0, 1)) == 1
        first = TopicPartition("t", 0)
        await consumer.seek(first, 5)
        consumer.pause(first)
        polling = asyncio.create_task(consumer.poll(10_000, 1))
        await settled()
        consumer.resume(first)
        assert [each.offset for each in await asyncio.wait_for(polling, 5)] == [5]

    with_log(body)


def test_a_seek_is_not_overtaken_by_a_committed_offset_that_came_late() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log, 1)
        first = TopicPartition("t", 0)
        producer = log.producer(transactional_id="x")
        await producer.begin_transaction()
        await producer.send_offsets({first: 3}, group="g")
        consumer = log.consumer("t", group="g")
        polling = asyncio.create_task(consumer.poll(10_000, 1))  # waits for the transaction
        await settled()
        await consumer.seek(first, 7)
        await producer.commit_transaction()
        assert [each.offset for each in await polling] == [7]
        await producer.close()

    with_log(body)
