"""What must be the same whatever the log is: in this process, or over the network."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from millstream.log import (
    ConfigError,
    Consumer,
    FencedInstanceIdError,
    GroupNotEmptyError,
    IllegalGenerationError,
    Log,
    LogError,
    OffsetAndMetadata,
    OffsetOutOfRangeError,
    Record,
    TopicPartition,
    UnknownGroupError,
    UnknownMemberError,
    UnknownTopicError,
    open_log,
)
from shared.kafka_log import records
from shared.served_log import SETTINGS

Run = Callable[[Callable[[Log], Awaitable[Any]]], Any]


@pytest.fixture(params=["embedded", "network", pytest.param("cluster", marks=pytest.mark.cluster)])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs a test on a log of one kind; "cluster" is Apache Kafka."""

    def on(body: Callable[[Log], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            if request.param == "embedded":
                log = open_log("memory:", config=SETTINGS)
            elif request.param == "network":
                log = open_log(request.getfixturevalue("url"))
            else:
                log = open_log(f"kafka://{request.getfixturevalue('kafka_node').address}")
            async with log:
                return await asyncio.wait_for(body(log), 60)

        return asyncio.run(main())

    return on


async def fill(log: Log, topic: str, count: int, *, partitions: int = 1) -> list[TopicPartition]:
    """A topic with records 0 to `count` in each partition, a second apart."""
    await log.create_topic(topic, partitions=partitions)
    async with log.producer() as producer:
        for partition in range(partitions):
            await producer.send_batch(
                topic,
                [b"%d" % number for number in range(count)],
                timestamps=[1000 * number for number in range(1, count + 1)],
                partition=partition,
            )
    return [TopicPartition(topic, partition) for partition in range(partitions)]


def offsets(found: list[Record]) -> list[int]:
    return [each.offset for each in found]


async def until(consumers: list[Consumer], is_so: Callable[[], bool]) -> list[Record]:
    """Poll them in turn until it is so."""
    found: list[Record] = []
    async with asyncio.timeout(30):
        while not is_so():
            for each in consumers:
                found += await each.poll(20)
    return found


def test_seeks_and_positions(run: Run, topic: str) -> None:
    async def body(log: Log) -> None:
        t0, t1 = await fill(log, topic, 10, partitions=2)
        async with log.consumer() as consumer:
            await consumer.assign([t0])
            assert consumer.position() == {}
            assert await consumer.lag() == {t0: 10}
            assert offsets(await records(consumer, 3)) == [0, 1, 2]
            assert consumer.position() == {t0: 3}
            await consumer.seek(t0, 7)
            assert consumer.position() == {t0: 7}
            assert offsets(await records(consumer, 3)) == [7, 8, 9]
            assert await consumer.lag() == {t0: 0}
            await consumer.seek_to_beginning()
            assert offsets(await records(consumer, 1)) == [0]
            await consumer.seek_to_time(4500, t0)
            assert offsets(await records(consumer, 1)) == [4]
            await consumer.seek_to_end(t0)
            assert consumer.position() == {t0: 10}
            await consumer.seek_to_time(99_999)
            assert consumer.position() == {t0: 10}
            with pytest.raises(ValueError, match="not assigned"):
                await consumer.seek(t1, 0)
            await consumer.assign([t0, t1])  # what is kept keeps its place
            assert {each.partition for each in await records(consumer, 10)} == {1}
            await consumer.assign([])
            assert (consumer.assignment(), await consumer.poll(20)) == (set(), [])
            with pytest.raises(UnknownTopicError):
                await consumer.assign([TopicPartition(topic, 2)])
            with pytest.raises(UnknownTopicError):
                await consumer.assign([TopicPartition("not-there", 0)])

    run(body)


def test_a_pause_keeps_what_was_fetched(run: Run, topic: str) -> None:
    async def body(log: Log) -> None:
        t0, t1 = await fill(log, topic, 10, partitions=2)
        async with log.consumer() as consumer:
            await consumer.assign([t0, t1])
            consumer.pause(t0)
            assert {each.partition for each in await records(consumer, 10)} == {1}
            assert await consumer.poll(300) == []
            await consumer.seek(t0, 4)
            assert await consumer.poll(300) == []
            consumer.resume(t0)
            assert offsets(await records(consumer, 2)) == [4, 5]
            consumer.pause(t0)
            async with log.producer() as producer:
                await producer.send(topic, b"more", partition=1)
                await producer.send(topic, b"more", partition=0)
            assert [each.partition for each in await records(consumer, 1)] == [1]
            assert await consumer.poll(300) == []
            assert consumer.position() == {t0: 6, t1: 11}
            consumer.resume(t0)
            assert offsets(await records(consumer, 5)) == [6, 7, 8, 9, 10]

    run(body)


def test_a_cancelled_poll_loses_nothing(run: Run, topic: str) -> None:
    async def body(log: Log) -> None:
        (t0,) = await fill(log, topic, 0)
        async with log.consumer() as consumer, log.producer() as producer:
            await consumer.assign([t0])
            found: list[Record] = []
            for number in range(20):
                polling = asyncio.ensure_future(consumer.poll(10_000))
                await asyncio.sleep(0.002 * number)
                await producer.send(topic, b"%d" % number)
                if number % 2:
                    await asyncio.wait([polling], timeout=0.01)
                polling.cancel()
                await asyncio.wait([polling])
                if not polling.cancelled():
                    found += polling.result()
            found += await records(consumer, 20 - len(found))
            assert offsets(found) == list(range(20))
            assert consumer.position() == {t0: 20}

    run(body)


def test_what_auto_offset_reset_says(run: Run, topic: str) -> None:
    async def body(log: Log) -> None:
        (t0,) = await fill(log, topic, 5)
        async with log.consumer(topic, group=f"{topic}-new", auto_offset_reset="none") as consumer:
            with pytest.raises(OffsetOutOfRangeError):
                for _ in range(20):
                    await consumer.poll(500)
        async with log.consumer(topic, auto_offset_reset="latest") as consumer:
            await consumer.poll(500)
            await until([consumer], lambda: consumer.position() == {t0: 5})
            async with log.producer() as producer:
                await producer.send(topic, b"")
            assert offsets(await records(consumer, 1)) == [5]
        async with log.consumer() as consumer:
            await consumer.assign([t0])
            await consumer.seek(t0, 100)
            assert offsets(await records(consumer, 1)) == [0]
        for wrong in ({"auto_offset_reset": "newest"}, {"isolation": "some"}):
            with pytest.raises(ConfigError):
                log.consumer(topic, **wrong)  # type: ignore[arg-type]

    run(body)


def test_a_group_goes_on_where_it_committed(run: Run, topic: str) -> None:
    async def body(log: Log) -> None:
        (t0,) = await fill(log, topic, 10)
        off = {"enable.auto.commit": "false"}
        async with log.consumer(topic, group=topic, config=off) as consumer:
            assert len(await records(consumer, 4)) == 4
            await consumer.commit()
            await consumer.poll(1000)
        async with log.consumer(topic, group=topic, config=off) as consumer:
            assert offsets(await records(consumer, 1)) == [4]
            await consumer.commit({t0: OffsetAndMetadata(6, "a note")})
            assert await consumer.committed([t0]) == {t0: OffsetAndMetadata(6, "a note")}
        assert await log.group_offsets(topic) == {t0: OffsetAndMetadata(6, "a note")}
        async with log.consumer(topic, group=topic) as consumer:  # commits by itself at the end
            assert offsets(await records(consumer, 1)) == [6]
        assert (await log.group_offsets(topic))[t0].offset == 7
        async with log.consumer(topic, group=topic, config={"auto.commit.interval.ms": 0}) as one:
            assert offsets(await records(one, 1)) == [7]
            await one.poll(0, 1)
            assert (await log.group_offsets(topic))[t0].offset == 8

    run(body)


def test_iteration(run: Run, topic: str) -> None:
    async def body(log: Log) -> None:
        (t0,) = await fill(log, topic, 5)
        async with log.consumer(topic, group=topic) as consumer:
            async for record in consumer:
                assert consumer.position() == {t0: record.offset + 1}
                if record.offset == 2:
                    break
            assert offsets(await records(consumer, 1)) == [3]

    run(body)


@pytest.mark.parametrize("assignor", ["range", "cooperative-sticky"])
def test_members_share_partitions(run: Run, topic: str, assignor: str) -> None:
    async def body(log: Log) -> None:
        partitions = set(await fill(log, topic, 10, partitions=4))
        config = {"partition.assignment.strategy": assignor, "heartbeat.interval.ms": 50}
        calls: list[tuple[str, str, tuple[TopicPartition, ...]]] = []

        async def member(name: str) -> Consumer:
            consumer = log.consumer(group=topic, config=config)

            def listener(kind: str):
                async def note(changed) -> None:
                    await consumer.committed([TopicPartition(topic, 0)])  # may be asked here
                    if changed:
                        calls.append((name, kind, tuple(sorted(changed))))

                return note

            await consumer.subscribe(
                [topic], on_assigned=listener("assigned"), on_revoked=listener("revoked")
            )
            return consumer

        first, second = await member("first"), await member("second")
        found = await until([first], lambda: first.assignment() == partitions)
        assert calls == [("first", "assigned", tuple(sorted(partitions)))]
        found += await until(
            [first, second],
            lambda: len(first.assignment()) == len(second.assignment()) == 2,
        )
        assert first.assignment() | second.assignment() == partitions
        revoked = {tp for name, kind, tps in calls if kind == "revoked" for tp in tps}
        assert revoked == (partitions if assignor == "range" else second.assignment())
        description = await log.describe_group(topic)
        assert (description.state, description.protocol) == ("Stable", assignor)
        assert {tp for each in description.members for tp in each.assignment} == partitions
        with pytest.raises(GroupNotEmptyError):
            await log.alter_group_offsets(topic, dict.fromkeys(partitions, 0))
        with pytest.raises(GroupNotEmptyError):
            await log.delete_group(topic)
        await second.close()
        found += await until([first], lambda: first.assignment() == partitions)
        await first.close()
        assert calls[-1] == ("first", "revoked", tuple(sorted(partitions)))
        assert (topic, "Empty", "consumer") in await log.groups()
        await log.delete_group(topic)
        await log.delete_group(topic)
        with pytest.raises(UnknownGroupError):
            await log.describe_group(topic)

    run(body)


def test_a_seek_before_anything_is_read(run: Run, topic: str) -> None:
    async def body(log: Log) -> None:
        t0, t1 = await fill(log, topic, 10, partitions=2)
        async with log.consumer(group=topic) as consumer:
            await consumer.assign([t0, t1])
            await consumer.seek(t0, 9)
            await consumer.seek(t1, 8)
            assert consumer.position() == {t0: 9, t1: 8}
            found = await records(consumer, 3)
            assert sorted((each.partition, each.offset) for each in found) == [
                (0, 9),
                (1, 8),
                (1, 9),
            ]

    run(body)


def test_a_seek_where_partitions_come(run: Run, topic: str) -> None:
    async def body(log: Log) -> None:
        (t0,) = await fill(log, topic, 10)
        async with log.consumer(group=topic) as consumer:

            async def assigned(partitions) -> None:
                for each in partitions:
                    await consumer.seek(each, 8)

            await consumer.subscribe([topic], on_assigned=assigned)
            assert offsets(await records(consumer, 2)) == [8, 9]
            assert consumer.position() == {t0: 10}

    run(body)


def test_a_listener_that_fails_fails_the_poll(run: Run, topic: str) -> None:
    async def body(log: Log) -> None:
        await fill(log, topic, 10)
        async with log.consumer(group=topic) as consumer:

            async def assigned(partitions) -> None:
                raise ZeroDivisionError

            await consumer.subscribe([topic], on_assigned=assigned)
            with pytest.raises(ZeroDivisionError):
                async with asyncio.timeout(20):
                    while True:
                        await consumer.poll(1000)
            assert offsets(await records(consumer, 2)) == [0, 1]

    run(body)


def test_offsets_of_a_zombie_are_refused(run: Run, topic: str) -> None:
    async def body(log: Log) -> None:
        (t0,) = await fill(log, topic, 10)
        config = {"heartbeat.interval.ms": 50, "session.timeout.ms": 6000}
        consumer = log.consumer(topic, group=topic, config=config)
        await records(consumer, 1)
        stale = consumer.group_metadata()
        assert (stale.group, stale.generation) == (topic, 1)
        await consumer.close()
        async with log.producer(transactional_id=topic) as producer:
            with pytest.raises((IllegalGenerationError, UnknownMemberError)):
                async with producer.transaction():
                    await producer.send_offsets({t0: 9}, group=stale)
            async with producer.transaction():
                await producer.send_offsets({t0: 3}, group=topic)
        async with asyncio.timeout(30):  # Apache Kafka makes a commit known when it has returned
            while (await log.group_offsets(topic))[t0].offset != 3:
                await asyncio.sleep(0.02)  # asked again
        await log.alter_group_offsets(topic, {t0: 5})
        async with log.consumer(topic, group=topic) as consumer:
            assert offsets(await records(consumer, 1)) == [5]

    run(body)


def test_a_static_member_comes_back_to_what_it_had(run: Run, topic: str) -> None:
    async def body(log: Log) -> None:
        await fill(log, topic, 3, partitions=2)
        config = {"group.instance.id": f"{topic}-a", "session.timeout.ms": 6000}
        async with log.consumer(topic, group=topic, config=config) as consumer:
            await until([consumer], lambda: len(consumer.assignment()) == 2)
            assert consumer.group_metadata().group_instance_id == f"{topic}-a"
            generation = consumer.group_metadata().generation
        (member,) = (await log.describe_group(topic)).members
        assert member.group_instance_id == f"{topic}-a"
        async with log.consumer(topic, group=topic, config=config) as consumer:
            await until([consumer], lambda: len(consumer.assignment()) == 2)
            assert consumer.group_metadata().generation == generation

    run(body)


def test_two_members_of_one_name(run: Run, topic: str) -> None:
    async def body(log: Log) -> None:
        await fill(log, topic, 3)
        config = {"group.instance.id": f"{topic}-a", "heartbeat.interval.ms": 50}
        async with log.consumer(topic, group=topic, config=config) as first:
            await until([first], lambda: len(first.assignment()) == 1)
            async with log.consumer(topic, group=topic, config=config) as second:
                await until([second], lambda: len(second.assignment()) == 1)
                with pytest.raises(FencedInstanceIdError):
                    async with asyncio.timeout(20):
                        while True:
                            await first.poll(100)
                with pytest.raises(FencedInstanceIdError):
                    await first.commit({TopicPartition(topic, 0): 1})
                await second.commit()

    run(body)


def test_patterns(run: Run, topic: str) -> None:
    async def body(log: Log) -> None:
        await fill(log, f"{topic}-a", 2)
        await fill(log, f"x-{topic}-b", 2)
        async with log.consumer(group=topic) as consumer:
            await consumer.subscribe([f"^{topic}"])
            assert {each.topic for each in await records(consumer, 2)} == {f"{topic}-a"}
            await consumer.subscribe(pattern=re.compile(f".*{topic}-b"))
            assert {each.topic for each in await records(consumer, 2)} == {f"x-{topic}-b"}
            with pytest.raises(ConfigError):
                await consumer.subscribe(["^("])
        with pytest.raises(LogError):
            async with log.consumer("not-there", group=topic) as consumer:
                async with asyncio.timeout(30):
                    while True:
                        await consumer.poll(500)

    run(body)
