"""Iterating over a consumer of a group: what a loop of polls would do, it does too."""

from __future__ import annotations

import asyncio

from millstream.log import OffsetAndMetadata, TopicPartition
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.testing.fake_clock import FakeClock
from shared.logs import settled, with_log

T0 = TopicPartition("t", 0)
CONFIG: dict[str, str | int] = {"max.poll.records": 2, "max.poll.interval.ms": 10_000}


async def filled(log: EmbeddedLog, partitions: int = 1) -> None:
    """So few records that one fetch has all of them."""
    await log.create_topic("t", partitions=partitions)
    async with log.producer() as producer:
        for number in range(partitions):
            await producer.send_batch("t", [b"x"] * 20, partition=number)


def test_whoever_takes_its_time_with_each_record_stays_a_member() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await filled(log)
        consumer = log.consumer("t", group="g", config=CONFIG)
        async for record in consumer:
            assert consumer.group_metadata().generation == 1
            clock.advance(3_000)
            await settled()
            assert log.stats().members == 1
            if record.offset == 19:
                break

    with_log(body, clock=clock)


def test_another_member_need_not_wait_for_all_that_was_fetched() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log, 2)
        first, second = (log.consumer("t", group="g", config=CONFIG) for _ in range(2))
        seen = 0
        joining = None
        async for _ in first:
            seen += 1
            if joining is None:
                joining = asyncio.create_task(second.poll(10_000))
            await settled()
            if joining.done() or seen == 10:
                break
        assert joining is not None
        assert joining.done()
        assert len(first.assignment()) == len(second.assignment()) == 1

    with_log(body)


def test_what_the_loop_is_done_with_is_committed_in_time() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await filled(log)
        consumer = log.consumer("t", group="g", config=CONFIG)
        async for record in consumer:
            if record.offset == 5:
                break
            clock.advance(3_000)
            await settled()
        assert await log.group_offsets("g") == {T0: OffsetAndMetadata(4)}

    with_log(body, clock=clock)


def test_others_have_their_turn() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log)
        consumer = log.consumer("t", config=CONFIG)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        before = None
        async for record in consumer:
            before = turns if before is None else before
            if record.offset == 19:
                break
        assert before is not None
        assert turns > before + 5
        counting.cancel()

    with_log(body)
