"""Rebalances in which members keep what they keep."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import OffsetAndMetadata, RebalanceInProgressError, TopicPartition
from millstream.log.client.consumer import EmbeddedConsumer
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.testing.fake_clock import FakeClock
from shared.logs import settled, with_log

COOPERATIVE = {"partition.assignment.strategy": "cooperative-sticky"}


class Watched:
    """A consumer, and what its listeners were told: (what, partition numbers)."""

    def __init__(self, consumer: EmbeddedConsumer) -> None:
        self.consumer = consumer
        self.calls: list[tuple[str, list[int]]] = []

    async def subscribe(self, topics: list[str]) -> None:
        await self.consumer.subscribe(
            topics,
            on_assigned=self._listener("assigned"),
            on_revoked=self._listener("revoked"),
            on_lost=self._listener("lost"),
        )

    def _listener(self, what: str):
        async def called(partitions) -> None:
            self.calls.append((what, sorted(each.partition for each in partitions)))

        return called

    def numbers(self) -> list[int]:
        return sorted(each.partition for each in self.consumer.assignment())

    def told(self, what: str) -> list[list[int]]:
        return [numbers for each, numbers in self.calls if each == what and numbers]


async def watched(log: EmbeddedLog, count: int, **config: str | int) -> list[Watched]:
    found = []
    for _ in range(count):
        each = Watched(log.consumer(group="g", config={**COOPERATIVE, **config}))
        await each.subscribe(["t"])
        found.append(each)
    return found


async def turns(*members: Watched, times: int = 4) -> None:
    for _ in range(times):
        for each in members:
            await each.consumer.poll(0, 1)
            await settled()


async def filled(log: EmbeddedLog, partitions: int, records: int = 50) -> None:
    await log.create_topic("t", partitions=partitions)
    async with log.producer() as producer:
        for number in range(partitions):
            await producer.send_batch("t", [b"%d" % number] * records, partition=number)


def test_only_what_moves_is_revoked() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log, 6)
        a, b, c = await watched(log, 3)
        await turns(a)
        assert a.calls == [("assigned", [0, 1, 2, 3, 4, 5])]
        await turns(a, b)
        assert a.told("revoked") == [[3, 4, 5]]
        assert b.told("assigned") == [[3, 4, 5]]
        assert (a.numbers(), b.numbers()) == ([0, 1, 2], [3, 4, 5])
        await turns(a, b, c)
        assert a.told("revoked") == [[3, 4, 5], [2]]
        assert b.told("revoked") == [[5]]
        assert c.numbers() == [2, 5]
        assert a.told("assigned") == [[0, 1, 2, 3, 4, 5]], "what stays is not assigned again"
        await b.consumer.close()
        await turns(a, c)
        assert sorted(a.numbers() + c.numbers()) == [0, 1, 2, 3, 4, 5]
        assert a.told("revoked") == [[3, 4, 5], [2]], "nothing moves that must not"
        assert c.told("revoked") == []
        assert a.told("lost") == b.told("lost") == []

    with_log(body)


def test_the_others_keep_consuming_meanwhile() -> None:
    """One member does not come to the rebalance; the others read on, and may commit."""

    async def body(log: EmbeddedLog) -> None:
        await filled(log, 4)
        a, b, c = await watched(log, 3)
        await turns(a, b)
        joining = asyncio.create_task(c.consumer.poll(10_000))
        await settled()
        before = a.consumer.position()
        for _ in range(5):  # b does not poll: the rebalance waits for it
            assert len(await a.consumer.poll(0, 1)) == 1
        assert (await log.describe_group("g")).state == "PreparingRebalance"
        after = a.consumer.position()
        assert sum(after.values()) == sum(before.values()) + 5
        await a.consumer.commit()
        assert (await log.group_offsets("g"))[TopicPartition("t", 0)].offset == after[
            TopicPartition("t", 0)
        ]
        await turns(b, a, b, a)
        assert await joining
        assert a.told("revoked")[1:] + b.told("revoked") != []
        assert c.numbers()

    with_log(body)


def test_positions_of_what_stays_are_kept() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log, 2, records=20)
        a, b = await watched(log, 2, **{"enable.auto.commit": "false"})
        seen = [each.offset for each in await a.consumer.poll(0, 100) if each.partition == 0]
        assert seen == list(range(20))
        await turns(a, b)
        assert a.numbers() == [0]
        assert a.consumer.position()[TopicPartition("t", 0)] == 20, "nothing was committed"

    with_log(body)


def test_positions_are_committed_before_partitions_go() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log, 2, records=20)
        a, b = await watched(log, 2)
        await a.consumer.poll(0, 100)
        await a.consumer.poll(0, 100)
        committed: dict[TopicPartition, OffsetAndMetadata] = {}

        async def on_revoked(_partitions) -> None:
            committed.update(await log.group_offsets("g"))

        a.consumer._membership._listeners = a.consumer._membership._listeners._replace(
            on_revoked=on_revoked
        )
        await turns(a, b)
        assert committed[TopicPartition("t", 1)] == OffsetAndMetadata(20)
        assert b.numbers() == [1]
        assert b.consumer.position() == {TopicPartition("t", 1): 20}

    with_log(body)


def test_a_commit_between_two_generations_is_to_be_tried_again() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log, 4)
        a, b = await watched(log, 2, **{"enable.auto.commit": "false"})
        await turns(a)
        joining = asyncio.create_task(b.consumer.poll(10_000))
        await settled()
        groups = log._broker.groups
        original = groups.sync_group
        entered = asyncio.Event()
        go = asyncio.Event()

        async def slow(*args, **kwargs):
            entered.set()
            await go.wait()
            return await original(*args, **kwargs)

        groups.sync_group = slow
        await a.consumer.poll(0, 1)
        await entered.wait()
        with pytest.raises(RebalanceInProgressError):
            await a.consumer.commit()
        go.set()
        groups.sync_group = original
        await settled()
        await turns(a, times=2)
        await joining
        await a.consumer.commit()

    with_log(body)


def test_a_member_that_was_away_too_long_has_lost_its_partitions() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await filled(log, 2)
        a, b = await watched(log, 2, **{"max.poll.interval.ms": 10_000})
        await turns(a)
        for _ in range(5):
            clock.advance(3_000)
            await settled()
        await turns(b)
        assert b.numbers() == [0, 1]
        await turns(a, b)
        assert a.told("lost") == [[0, 1]]
        assert a.told("revoked") == []
        assert b.told("revoked") == [[1]]
        assert (a.numbers(), b.numbers()) == ([1], [0])

    with_log(body, clock=clock)


def test_with_range_beside_it_everything_is_revoked() -> None:
    """The default list: the group may choose range, which needs everything back first."""

    async def body(log: EmbeddedLog) -> None:
        await filled(log, 4)
        a, b = (Watched(log.consumer(group="g")) for _ in range(2))
        for each in (a, b):
            await each.subscribe(["t"])
        await turns(a)
        await turns(a, b)
        assert (await log.describe_group("g")).protocol == "range"
        assert a.told("revoked") == [[0, 1, 2, 3]]
        assert sorted([a.numbers(), b.numbers()]) == [[0, 1], [2, 3]]

    with_log(body)


def test_from_range_to_cooperative_member_by_member() -> None:
    """Kafka's way of changing over (KIP-429): both in the list first, then cooperative alone."""

    async def body(log: EmbeddedLog) -> None:
        await filled(log, 4)
        both = {"partition.assignment.strategy": "cooperative-sticky,range"}
        old = Watched(log.consumer(group="g", config={"partition.assignment.strategy": "range"}))
        new = Watched(log.consumer(group="g", config=both))
        for each in (old, new):
            await each.subscribe(["t"])
        await turns(old, new)
        assert (await log.describe_group("g")).protocol == "range"
        await old.consumer.close()
        last = (await watched(log, 1))[0]
        await turns(new, last)
        assert (await log.describe_group("g")).protocol == "cooperative-sticky"
        assert sorted(new.numbers() + last.numbers()) == [0, 1, 2, 3]

    with_log(body)


@pytest.mark.parametrize("strategy", ["sticky", "cooperative-sticky"])
def test_what_a_member_has_it_keeps(strategy: str) -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=9)
        config = {"partition.assignment.strategy": strategy}
        members = [Watched(log.consumer("t", group="g", config=config)) for _ in range(3)]
        await turns(*members)
        before = [set(each.numbers()) for each in members]
        assert [len(each) for each in before] == [3, 3, 3]
        await members[1].consumer.close()
        await turns(members[0], members[2])
        assert before[0] < set(members[0].numbers())
        assert before[2] < set(members[2].numbers())
        assert sorted(members[0].numbers() + members[2].numbers()) == list(range(9))

    with_log(body)


def test_a_topic_that_is_not_wanted_any_more_goes_before_the_rebalance() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log, 2)
        await log.create_topic("u", partitions=1)
        (a,) = await watched(log, 1)
        await a.subscribe(["t", "u"])
        await turns(a)
        assert a.calls == [("assigned", [0, 0, 1])]
        await a.subscribe(["t"])
        await turns(a)
        assert a.calls[1:] == [("revoked", [0]), ("assigned", [])]
        assert a.numbers() == [0, 1]

    with_log(body)


def test_added_partitions_are_shared_out_without_revoking() -> None:
    async def body(log: EmbeddedLog) -> None:
        await filled(log, 2)
        a, b = await watched(log, 2)
        await turns(a, b)
        await log.alter_topic("t", partitions=4)
        await turns(a, b)
        assert sorted(a.numbers() + b.numbers()) == [0, 1, 2, 3]
        assert a.told("revoked") == [[1]]
        assert b.told("revoked") == []

    with_log(body)
