"""aiokafka against `millstream serve`: all that it can do, but for groups whose offsets are in
transactions."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from shared.served_log import ServedLog

RECORDS = 20
FIRST_MS = 1_000_000
_numbers = itertools.count()


@pytest.fixture
def topic() -> str:
    """A name no other test uses; it comes to be, with two partitions, when it is written to."""
    return f"aiokafka-{next(_numbers)}"


def within(work: Callable[[], Awaitable[None]], limit_s: float = 60) -> None:
    async def main() -> None:
        await asyncio.wait_for(work(), limit_s)

    asyncio.run(main())


@asynccontextmanager
async def started(made: Any) -> AsyncIterator[Any]:
    await made.start()
    try:
        yield made
    finally:
        await (made.close() if isinstance(made, AIOKafkaAdminClient) else made.stop())


def producer(address: str, **settings: Any) -> Any:
    return started(AIOKafkaProducer(bootstrap_servers=address, **settings))


async def write(address: str, topic: str, values: list[bytes], **settings: Any) -> list[int]:
    """Write to partition 0, a millisecond apart; the offsets."""
    async with producer(address, **settings) as made:
        answers = [
            await made.send(
                topic, value, partition=0, timestamp_ms=FIRST_MS + number, headers=[("h", b"1")]
            )
            for number, value in enumerate(values)
        ]
        return [(await each).offset for each in answers]


@asynccontextmanager
async def reading(address: str, topic: str, **settings: Any) -> AsyncIterator[Any]:
    """A consumer of partition 0, without a group."""
    made = AIOKafkaConsumer(bootstrap_servers=address, **settings)
    async with started(made):
        made.assign([TopicPartition(topic, 0)])
        yield made


async def take(consumer: Any, count: int) -> list[bytes]:
    return [(await consumer.getone()).value for _ in range(count)]


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_every_compression_there_and_back(address: str, topic: str, codec: str | None) -> None:
    async def main() -> None:
        values = [b"%d" % number * 50 for number in range(300)]
        offsets = await write(address, topic, values, compression_type=codec, linger_ms=20)
        assert offsets == list(range(300))
        async with reading(address, topic, auto_offset_reset="earliest") as consumer:
            record = await consumer.getone()
            assert (record.timestamp, record.headers) == (FIRST_MS, (("h", b"1"),))
            assert [record.value, *await take(consumer, 299)] == values

    within(main)


def test_reading_from_every_position(address: str, topic: str) -> None:
    async def main() -> None:
        values = [b"%d" % number for number in range(RECORDS)]
        await write(address, topic, values)
        where = TopicPartition(topic, 0)
        async with reading(address, topic) as consumer:
            assert await consumer.beginning_offsets([where]) == {where: 0}
            assert await consumer.end_offsets([where]) == {where: RECORDS}
            for start in (3, 0, RECORDS - 1):
                consumer.seek(where, start)
                assert await take(consumer, RECORDS - start) == values[start:]
            await consumer.seek_to_beginning(where)
            assert await take(consumer, RECORDS) == values
            found = await consumer.offsets_for_times({where: FIRST_MS + 7})
            assert (found[where].offset, found[where].timestamp) == (7, FIRST_MS + 7)
            consumer.seek(where, found[where].offset)
            assert await take(consumer, RECORDS - 7) == values[7:]
            assert await consumer.offsets_for_times({where: 2 * FIRST_MS}) == {where: None}
            consumer.seek(where, 0)
            await consumer.seek_to_end(where)
            await write(address, topic, [b"new"])
            assert await take(consumer, 1) == [b"new"]

    within(main)


def test_groups(address: str, topic: str) -> None:
    """A second member takes its share, and gives it back; the group goes on where it was."""

    def member() -> Any:
        made = AIOKafkaConsumer(
            topic,
            bootstrap_servers=address,
            group_id=topic,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            heartbeat_interval_ms=200,
        )
        return started(made)

    async def shares(expected: list[int], *members: Any) -> None:
        while [len(each.assignment()) for each in members] != expected:
            for each in members:
                await each.getmany(timeout_ms=100)

    async def main() -> None:
        await write(address, topic, [b"%d" % number for number in range(RECORDS)])
        async with member() as first:
            assert len(await take(first, RECORDS)) == RECORDS
            await first.commit()
            async with member() as second:
                await shares([1, 1], first, second)
            await shares([2], first)
            await write(address, topic, [b"later"])
            async with member() as second:
                await shares([1, 1], first, second)
                where = TopicPartition(topic, 0)
                holder = first if where in first.assignment() else second
                await holder.seek_to_committed(where)
                assert await take(holder, 1) == [b"later"]

    within(main)


def test_transactions(tmp_path: Path, topic: str) -> None:
    """Committed, aborted, and of a producer that another one took over."""

    async def main(address: str) -> None:
        async with producer(address, transactional_id=topic) as first:
            for value in (b"0", b"1", b"2"):
                await first.begin_transaction()
                await first.send_and_wait(topic, value, partition=0)
                await (first.abort_transaction() if value == b"1" else first.commit_transaction())
            await first.begin_transaction()
            await first.send_and_wait(topic, b"of a zombie", partition=0)
            async with producer(address, transactional_id=topic) as second:
                with pytest.raises(errors.ProducerFenced):
                    await first.commit_transaction()
                async with second.transaction():
                    await second.send_and_wait(topic, b"3", partition=0)
        expected = {
            "read_committed": [b"0", b"2", b"3"],
            "read_uncommitted": [b"0", b"1", b"2", b"of a zombie", b"3"],
        }
        for isolation, values in expected.items():
            settings = {"isolation_level": isolation, "auto_offset_reset": "earliest"}
            async with reading(address, topic, **settings) as consumer:
                assert await take(consumer, len(values)) == values

    with ServedLog(tmp_path / "log") as served:
        within(lambda: main(served.address))


def code(answer: Any) -> list[int]:
    """The error of each topic."""
    told = getattr(answer, "topic_errors", None) or answer.topic_error_codes
    return [each[1] for each in told]


def test_admin(address: str, topic: str) -> None:
    async def main() -> None:
        async with started(AIOKafkaAdminClient(bootstrap_servers=address)) as admin:
            wanted = [NewTopic(topic, 2, 1, topic_configs={"retention.ms": "7"})]
            assert code(await admin.create_topics(wanted)) == [0]
            assert code(await admin.create_topics(wanted)) == [36]
            assert code(await admin.create_topics([NewTopic("a b", 1, 1)])) == [17]
            assert code(await admin.create_topics([NewTopic(f"{topic}c", 1, 3)])) == [38]
            answer = await admin.create_partitions({topic: NewPartitions(3)})
            assert code(answer) == [0]
            (described,) = await admin.describe_topics([topic])
            assert len(described["partitions"]) == 3
            resource = ConfigResource(ConfigResourceType.TOPIC, topic, {"segment.ms": "9"})
            await admin.alter_configs([resource])
            (answer,) = await admin.describe_configs(
                [ConfigResource(ConfigResourceType.TOPIC, topic)]
            )
            settings = {each[0]: each[1] for each in answer.resources[0][4]}
            assert (settings["segment.ms"], settings["retention.ms"]) == ("9", "604800000")
            await write(address, topic, [b"x"] * RECORDS)
            where = TopicPartition(topic, 0)
            assert await admin.delete_records({where: RecordsToDelete(5)}) == {where: 5}
            assert topic in await admin.list_topics()
            assert code(await admin.delete_topics([topic])) == [0]
            assert topic not in await admin.list_topics()

    within(main)


def test_errors(address: str, topic: str) -> None:
    async def main() -> None:
        with pytest.raises(errors.MessageSizeTooLargeError):
            await write(address, topic, [bytes(2_000_000)], max_request_size=5_000_000)
        async with reading(address, topic, auto_offset_reset="none") as consumer:
            consumer.seek(TopicPartition(topic, 0), 99)
            with pytest.raises(errors.OffsetOutOfRangeError):
                await consumer.getone()

    within(main)
