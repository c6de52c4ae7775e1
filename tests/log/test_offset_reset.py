"""Resetting a group's offsets: Kafka's rules, form by form."""

from __future__ import annotations

import pytest

from millstream.log import ConfigError, GroupNotEmptyError, TopicPartition, UnknownTopicError
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.offset_reset import ResetPlan, ResetTo, plan_offset_reset
from shared.logs import with_log

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


async def filled(log: EmbeddedLog) -> None:
    """Partition 0 holds offsets 5 to 19 with the times 50 to 190, the group is at 12; partition 1
    holds 0 to 9 with the times 0 to 90, and the group committed nothing."""
    await log.create_topic("t", partitions=2)
    async with log.producer() as producer:
        for partition, count in ((0, 20), (1, 10)):
            await producer.send_batch(
                "t", [b"x"] * count, timestamps=range(0, count * 10, 10), partition=partition
            )
    await log.delete_records({T0: 5})
    await log.alter_group_offsets("g", {T0: 12})


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        (ResetTo.beginning(), (5, 0)),
        (ResetTo.end(), (20, 10)),
        (ResetTo.offset(7), (7, 7)),
        (ResetTo.offset(2), (5, 2)),
        (ResetTo.offset(15), (15, 10)),
        (ResetTo.time(85), (9, 9)),
        (ResetTo.time(0), (5, 0)),
        (ResetTo.time(95), (10, 10)),
        (ResetTo.time(10**12), (20, 10)),
        (ResetTo.current(), (12, 10)),
    ],
    ids=str,
)
def test_forms(to: ResetTo, expected: tuple[int, int]) -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log)
        plan = await plan_offset_reset(log, "g", [T0, T1], to)
        assert plan == {T0: ResetPlan(12, expected[0]), T1: ResetPlan(None, expected[1])}
        assert (await log.group_offsets("g"))[T0].offset == 12, "a plan changes nothing"
        await log.alter_group_offsets("g", {each: found.new for each, found in plan.items()})
        async with log.consumer("t", group="g", auto_offset_reset="none") as consumer:
            await consumer.poll(0, 1)
            found = {**consumer.position()}
            assert found[T0] in (expected[0], expected[0] + 1)

    with_log(body)


@pytest.mark.parametrize(("by", "expected"), [(3, 15), (-4, 8), (-100, 5), (100, 20), (0, 12)])
def test_shifts(by: int, expected: int) -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log)
        plan = await plan_offset_reset(log, "g", [T0], ResetTo.shift(by))
        assert plan == {T0: ResetPlan(12, expected)}
        with pytest.raises(ConfigError, match="t-1 has no committed offset"):
            await plan_offset_reset(log, "g", [T0, T1], ResetTo.shift(by))

    with_log(body)


def test_only_without_members() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log)
        consumer = log.consumer("t", group="g")
        await consumer.poll(0)
        with pytest.raises(GroupNotEmptyError, match="1 members"):
            await plan_offset_reset(log, "g", [T0], ResetTo.end())
        await consumer.close()
        await plan_offset_reset(log, "g", [T0], ResetTo.end())

    with_log(body)


def test_a_group_that_is_not_there_yet() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log)
        assert await plan_offset_reset(log, "new", [T1], ResetTo.end()) == {T1: ResetPlan(None, 10)}
        with pytest.raises(UnknownTopicError):
            await plan_offset_reset(log, "new", [TopicPartition("nope", 0)], ResetTo.end())

    with_log(body)


def test_the_end_is_the_end_of_open_transactions_too() -> None:
    """Kafka's tool asks for the latest offset without regard to transactions."""

    async def body(log: EmbeddedLog) -> None:
        await filled(log)
        async with log.producer(transactional_id="x") as producer:
            await producer.begin_transaction()
            await producer.send("t", b"x", partition=1)
            plan = await plan_offset_reset(log, "g", [T1], ResetTo.end())
            assert plan[T1].new == 11
            await producer.abort_transaction()

    with_log(body)
