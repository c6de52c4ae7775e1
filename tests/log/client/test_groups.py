"""Consumers that share a group, in one process."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from millstream.log import (
    ConfigError,
    GroupNotEmptyError,
    IllegalGenerationError,
    LogClosedError,
    OffsetAndMetadata,
    TopicPartition,
    UnknownMemberError,
    UnknownTopicError,
)
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log, open_log_on
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.testing.fake_clock import FakeClock
from shared.logs import settled, with_log

T0 = TopicPartition("t", 0)


async def topic(log: EmbeddedLog, partitions: int, *, records: int = 0) -> list[TopicPartition]:
    await log.create_topic("t", partitions=partitions)
    async with log.producer() as producer:
        for number in range(partitions if records else 0):
            await producer.send_batch("t", [b"%d" % number] * records, partition=number)
    return [TopicPartition("t", number) for number in range(partitions)]


async def balanced(*consumers) -> None:
    """Poll all of them until a rebalance is over."""
    for _ in range(4):
        await asyncio.gather(*[consumer.poll(5, 1) for consumer in consumers])
        await settled()


def test_one_member_gets_everything_at_once() -> None:
    async def body(log: EmbeddedLog) -> None:
        partitions = await topic(log, 4, records=3)
        async with log.consumer("t", group="g") as consumer:
            assert len(await consumer.poll(0)) == 12
            assert consumer.assignment() == set(partitions)
            metadata = consumer.group_metadata()
            assert (metadata.group, metadata.generation) == ("g", 1)
            assert log.stats().members == 1
        assert log.stats().members == 0

    with_log(body)


@pytest.mark.parametrize("strategy", ["range", "roundrobin"])
def test_members_come_and_go(strategy: str) -> None:
    async def body(log: EmbeddedLog) -> None:
        partitions = await topic(log, 6)
        config = {"partition.assignment.strategy": strategy}
        members = [log.consumer("t", group="g", config=config) for _ in range(3)]
        await members[0].poll(0)
        for count in (2, 3):
            await balanced(*members[:count])
            shares = [member.assignment() for member in members[:count]]
            assert sorted(map(len, shares)) == [6 // count] * count
            assert set.union(*shares) == set(partitions)
        generations = {member.group_metadata().generation for member in members}
        assert len(generations) == 1
        await members[1].close()
        await balanced(members[0], members[2])
        assert members[0].assignment() | members[2].assignment() == set(partitions)
        assert members[0].assignment() & members[2].assignment() == set()

    with_log(body)


def test_every_record_is_read_once_through_rebalances() -> None:
    async def body(log: EmbeddedLog) -> None:
        await topic(log, 4, records=200)
        seen: Counter[tuple[int, int]] = Counter()

        async def work(start_after: int, stop_after: int) -> None:
            while sum(seen.values()) < start_after:
                await asyncio.sleep(0.001)
            async with log.consumer("t", group="g") as consumer:
                while sum(seen.values()) < min(stop_after, 800):
                    for record in await consumer.poll(10, 10):
                        seen[record.partition, record.offset] += 1
                    await consumer.commit()

        await asyncio.gather(work(0, 800), work(50, 300), work(200, 800))
        assert seen == Counter({(p, offset): 1 for p in range(4) for offset in range(200)})

    with_log(body)


def test_listeners() -> None:
    async def body(log: EmbeddedLog) -> None:
        await topic(log, 2)
        calls: list[tuple[str, str, list[int]]] = []

        def listener(who: str, what: str):
            async def called(partitions) -> None:
                calls.append((who, what, sorted(each.partition for each in partitions)))

            return called

        consumers = {}
        for who in "ab":
            consumers[who] = log.consumer(group="g")
            await consumers[who].subscribe(
                ["t"],
                on_assigned=listener(who, "assigned"),
                on_revoked=listener(who, "revoked"),
            )
        await consumers["a"].poll(0)
        assert calls == [("a", "assigned", [0, 1])]
        await balanced(*consumers.values())
        assert calls[1] == ("a", "revoked", [0, 1])
        assert {(what, tuple(numbers)) for _, what, numbers in calls[2:]} == {
            ("assigned", (0,)),
            ("assigned", (1,)),
        }
        await consumers["b"].close()
        assert calls[-1][:2] == ("b", "revoked")

    with_log(body)


def test_committed_offsets_are_where_the_next_member_begins() -> None:
    async def body(log: EmbeddedLog) -> None:
        await topic(log, 1, records=20)
        manual = {"enable.auto.commit": "false"}
        async with log.consumer("t", group="g", config=manual) as consumer:
            await consumer.poll(0, 7)
            await consumer.commit()
            await consumer.poll(0, 7)
        async with log.consumer("t", group="g", config=manual) as consumer:
            assert (await consumer.poll(0, 1))[0].offset == 7
        assert await log.group_offsets("g") == {T0: OffsetAndMetadata(7)}

    with_log(body)


def test_auto_commit_covers_earlier_polls_only() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await topic(log, 1, records=20)
        consumer = log.consumer("t", group="g")
        await consumer.poll(0, 5)
        clock.advance(6000)
        await consumer.poll(0, 5)
        assert (await log.group_offsets("g"))[T0].offset == 5
        await consumer.poll(0, 5)
        assert (await log.group_offsets("g"))[T0].offset == 5
        await consumer.close()
        assert (await log.group_offsets("g"))[T0].offset == 15

    with_log(body, clock=clock)


def test_a_member_that_stops_polling_loses_its_partitions() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await topic(log, 2, records=5)
        lost: list[TopicPartition] = []

        async def on_lost(partitions) -> None:
            lost.extend(partitions)

        config = {"max.poll.interval.ms": 10_000, "enable.auto.commit": "false"}
        slow = log.consumer(group="g", config=config)
        await slow.subscribe(["t"], on_lost=on_lost)
        await slow.poll(0, 1)
        stale = slow.group_metadata()
        for _ in range(5):
            clock.advance(3000)
            await settled()
        assert log.stats().members == 0
        with pytest.raises(UnknownMemberError):
            await slow.commit()
        other = log.consumer("t", group="g", config=config)
        assert len(await other.poll(0)) == 10
        await balanced(slow, other)
        assert sorted(lost) == [T0, TopicPartition("t", 1)]
        assert slow.group_metadata() != stale
        assert len(slow.assignment()) == len(other.assignment()) == 1

    with_log(body, clock=clock)


def test_a_waiting_member_stays_alive() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await topic(log, 1)
        consumer = log.consumer("t", group="g")
        await consumer.poll(0)
        for _ in range(60):
            clock.advance(3000)
            await settled()
            if _ % 30 == 0:
                await consumer.poll(0)
        assert consumer.group_metadata().generation == 1
        assert log.stats().members == 1

    with_log(body, clock=clock)


def test_commits_of_a_former_generation_are_refused() -> None:
    async def body(log: EmbeddedLog) -> None:
        await topic(log, 2, records=5)
        manual = {"enable.auto.commit": "false"}
        first = log.consumer("t", group="g", config=manual)
        await first.poll(0, 1)
        second = log.consumer("t", group="g", config=manual)
        joining = asyncio.ensure_future(second.poll(1000))
        await settled()
        await first.commit()  # the rebalance waits for it: it may still commit
        await first.poll(0, 1)
        await joining
        broker = log._broker
        old = first.group_metadata()
        await second.close()
        await first.poll(10)
        with pytest.raises(IllegalGenerationError, match="generation"):
            await broker.offsets.commit(old, {T0: OffsetAndMetadata(3)})

    with_log(body)


def test_offsets_of_a_group_with_members_cannot_be_altered() -> None:
    async def body(log: EmbeddedLog) -> None:
        await topic(log, 1)
        consumer = log.consumer("t", group="g")
        await consumer.poll(0)
        for attempt in (log.alter_group_offsets("g", {T0: 1}), log.delete_group("g")):
            with pytest.raises(GroupNotEmptyError, match="1 members"):
                await attempt
        await consumer.close()
        await log.alter_group_offsets("g", {T0: 1})
        assert await log.group_offsets("g") == {T0: OffsetAndMetadata(1)}
        await log.delete_group("g")
        await log.delete_group("never heard of")
        assert await log.group_offsets("g") == {}

    with_log(body)


def test_a_deleted_topic_does_not_keep_a_member_from_leaving() -> None:
    async def body(log: EmbeddedLog) -> None:
        await topic(log, 1, records=3)
        await log.create_topic("u")
        consumer = log.consumer("t", "u", group="g")
        assert len(await consumer.poll(0)) == 3
        await log.delete_topic("u")
        await consumer.close()
        assert await log.group_offsets("g") == {T0: OffsetAndMetadata(3)}

    with_log(body)


def test_settings_that_do_not_fit() -> None:
    async def body(log: EmbeddedLog) -> None:
        await topic(log, 1)
        with pytest.raises(ConfigError, match=r"group\.min\.session\.timeout\.ms"):
            await log.consumer("t", group="g", config={"session.timeout.ms": 10}).poll(0)
        with pytest.raises(UnknownTopicError, match="nope"):
            await log.consumer("nope", group="g").poll(0)
        ranged = log.consumer("t", group="g")
        await ranged.poll(0)
        other = log.consumer("t", group="g", config={"partition.assignment.strategy": "roundrobin"})
        with pytest.raises(ConfigError, match=r"partition\.assignment\.strategy"):
            await other.poll(0)

    with_log(body)


def test_groups_and_generations_outlive_the_process() -> None:
    files = MemoryFiles()

    async def main() -> None:
        for generation in (1, 3):  # emptying it was a generation too, as in Kafka
            async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
                await log.create_topic("t", exist_ok=True)
                async with log.consumer("t", group="g") as consumer:
                    await consumer.poll(0)
                    assert consumer.group_metadata().generation == generation
                    await consumer.commit({T0: generation})
                    assert await log.group_offsets("g") == {T0: OffsetAndMetadata(generation)}

    asyncio.run(main())


def test_subscribing_anew() -> None:
    async def body(log: EmbeddedLog) -> None:
        await topic(log, 1)
        await log.create_topic("u")
        consumer = log.consumer("t", group="g")
        await consumer.poll(0)
        await consumer.subscribe(["u"])
        await consumer.poll(0)
        assert consumer.assignment() == {TopicPartition("u", 0)}
        await consumer.assign([T0])
        assert consumer.assignment() == {T0}
        assert log.stats().members == 0

    with_log(body)


def test_closing_a_consumer_while_another_task_polls_it() -> None:
    async def body(log: EmbeddedLog) -> None:
        await topic(log, 2)
        first, second = (log.consumer("t", group="g") for _ in range(2))
        await first.poll(0)
        polling = asyncio.create_task(second.poll(10_000))  # waits for the first to join again
        await settled()
        await second.close()
        with pytest.raises(LogClosedError):
            await polling

    with_log(body)


def test_closing_a_consumer_while_it_gives_up_its_partitions() -> None:
    """What the poll does next, joining again, would bring heartbeats that nobody ends."""

    async def body(log: EmbeddedLog) -> None:
        await topic(log, 2)
        revoking, may_go_on = asyncio.Event(), asyncio.Event()

        async def on_revoked(_: object) -> None:
            revoking.set()
            await may_go_on.wait()

        first, second = log.consumer(group="g"), log.consumer("t", group="g")
        await first.subscribe(["t"], on_revoked=on_revoked)
        await first.poll(0)
        joining = asyncio.create_task(second.poll(1000))
        await settled()
        polling = asyncio.create_task(first.poll(1000))
        await revoking.wait()
        closing = asyncio.create_task(first.close())
        await settled()
        may_go_on.set()
        await closing
        with pytest.raises(LogClosedError):
            await polling
        await joining
        await second.close()
        await settled()
        names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]
        assert [name for name in names if name.startswith("Membership")] == []

    with_log(body)


def test_no_client_is_made_while_the_log_closes() -> None:
    """`close` would not know of it, and its heartbeats would go on for ever."""

    async def main() -> None:
        log = open_log_on(MemoryFiles(), "log", config={"flush.threads": 0})
        async with log:
            await topic(log, 1)

            async def on_revoked(_: object) -> None:
                with pytest.raises(LogClosedError):
                    log.consumer("t", group="g")
                with pytest.raises(LogClosedError):
                    log.producer()
                asked.set()

            asked = asyncio.Event()
            consumer = log.consumer(group="g")
            await consumer.subscribe(["t"], on_revoked=on_revoked)
            await consumer.poll(0)
        assert asked.is_set()

    asyncio.run(main())


def test_a_poll_keeps_its_time_out_while_a_transaction_holds_the_offset() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await log.create_topic("t")
            async with log.producer() as producer, log.producer(transactional_id="x") as other:
                await producer.send("t", b"1")
                await other.begin_transaction()
                await other.send_offsets({TopicPartition("t", 0): 1}, group="g")
                async with log.consumer("t", group="g") as consumer:
                    assert await asyncio.wait_for(consumer.poll(timeout_ms=50), 5) == []
                    await other.abort_transaction()
                    assert [each.value for each in await consumer.poll(timeout_ms=5000)] == [b"1"]

    asyncio.run(main())
