"""Consumers that are assigned partitions, and what all consumers share."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import (
    ConfigError,
    CorruptRecordError,
    LogClosedError,
    OffsetAndMetadata,
    OffsetOutOfRangeError,
    TopicPartition,
    UnknownTopicError,
)
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.storage.memory_files import MemoryFiles
from shared.logs import settled, values, with_log

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


async def fill(log: EmbeddedLog, count: int, *, per_batch: int = 10, partition: int = 0) -> None:
    """Records 0 to `count`, `timestamp` = 1000 + 10 * number."""
    async with log.producer() as producer:
        for start in range(0, count, per_batch):
            numbers = range(start, min(start + per_batch, count))
            await producer.send_batch(
                "t",
                [b"%d" % number for number in numbers],
                timestamps=[1000 + 10 * number for number in numbers],
                partition=partition,
            )


async def assigned(log: EmbeddedLog, *partitions: TopicPartition, **options):
    consumer = log.consumer(**options)
    await consumer.assign(partitions)
    return consumer


def test_position_moves_when_records_are_returned() -> None:
    async def body(log: EmbeddedLog) -> None:
        await fill(log, 25)
        consumer = await assigned(log, T0)
        assert consumer.position() == {}
        first = await consumer.poll(0, max_records=7)
        assert [record.value for record in first] == [b"%d" % n for n in range(7)]
        assert consumer.position() == {T0: 7}
        assert await consumer.lag() == {T0: 18}
        batches = await consumer.poll_batches(0)
        assert [value for batch in batches for value in batch.values] == [
            b"%d" % n for n in range(7, 25)
        ]
        assert list(batches[0].offsets) == [7, 8, 9]
        assert consumer.position() == {T0: 25}
        assert await consumer.poll(0) == []

    with_log(body)


def test_iteration_moves_record_by_record() -> None:
    async def body(log: EmbeddedLog) -> None:
        await fill(log, 25)
        consumer = await assigned(log, T0)
        async for record in consumer:
            assert consumer.position() == {T0: record.offset + 1}
            if record.offset == 12:
                break
        assert (await consumer.poll(0, 1))[0].offset == 13
        async for record in consumer:
            assert record.offset == 14
            break

    with_log(body)


def test_a_waiting_poll_is_woken_at_once() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        consumer = await assigned(log, T0)
        polling = asyncio.ensure_future(consumer.poll(60_000))
        await settled()
        assert not polling.done()
        assert log.stats().waiting_fetches == 1
        await fill(log, 1)
        assert [record.value for record in await polling] == [b"0"]
        waiting = asyncio.ensure_future(consumer.poll(60_000))
        await settled()
        await consumer.seek(T0, 0)
        assert len(await waiting) == 1

    with_log(body)


def test_an_empty_poll_ends_in_time() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        consumer = await assigned(log, T0)
        assert await consumer.poll(20) == []
        nothing = log.consumer()
        assert await nothing.poll_batches(20) == []

    with_log(body)


def test_seek() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=2)
        await fill(log, 30)
        await fill(log, 5, partition=1)
        consumer = await assigned(log, T0, T1)
        await consumer.seek(T0, 13)
        assert (await consumer.poll(0))[0].offset == 13
        await consumer.seek_to_beginning()
        assert consumer.position() == {T0: 0, T1: 0}
        await consumer.seek_to_end(T0)
        assert consumer.position() == {T0: 30, T1: 0}
        await consumer.seek_to_time(1105)
        assert consumer.position() == {T0: 11, T1: 5}
        await consumer.seek_to_time(1105, T0)
        assert (await consumer.poll(0))[0].timestamp == 1110
        with pytest.raises(ValueError, match="not assigned"):
            await consumer.seek(TopicPartition("t", 9), 0)
        assert await log.offsets_for_time({T0: 1105, T1: 99_999}) == {T0: 11, T1: None}

    with_log(body)


def test_pause_and_resume() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=2)
        await fill(log, 5)
        await fill(log, 5, partition=1)
        consumer = await assigned(log, T0, T1)
        await consumer.poll(0, 2)
        consumer.pause(T0)
        assert {record.partition for record in await consumer.poll(0)} == {1}
        assert await consumer.poll(0) == []
        waiting = asyncio.ensure_future(consumer.poll(60_000))
        await settled()
        consumer.resume(T0)
        assert [record.offset for record in await waiting] == [2, 3, 4]

    with_log(body)


def test_no_partition_starves() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=2)
        await fill(log, 100)
        await fill(log, 100, partition=1)
        consumer = await assigned(log, T0, T1)
        seen = [{record.partition for record in await consumer.poll(0, 10)} for _ in range(4)]
        assert seen == [{0}, {1}, {0}, {1}]

    with_log(body)


@pytest.mark.parametrize("reset", ["earliest", "latest", "none"])
def test_offset_reset(reset) -> None:
    async def body(log: EmbeddedLog) -> None:
        await fill(log, 30)
        await log.delete_records({T0: 10})
        consumer = await assigned(log, T0, auto_offset_reset=reset)
        if reset == "none":
            with pytest.raises(OffsetOutOfRangeError, match="no position"):
                await consumer.poll(0)
            await consumer.seek(T0, 3)
            with pytest.raises(OffsetOutOfRangeError, match="t-0"):
                await consumer.poll(0)
            return
        expected = {"earliest": 10, "latest": 30}[reset]
        await consumer.poll(0, 1)
        assert consumer.position() == {T0: expected + (reset == "earliest")}
        for outside in (3, 99):
            await consumer.seek(T0, outside)
            await consumer.poll(0, 1)
            assert consumer.position() == {T0: expected + (reset == "earliest")}

    with_log(body)


def test_a_batch_larger_than_the_fetch_comes_whole() -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer() as producer:
            await producer.send_batch("t", [b"." * 5000] * 20)
        consumer = await assigned(log, T0, config={"max.partition.fetch.bytes": 1})
        assert sum(map(len, await consumer.poll_batches(0))) == 20

    with_log(body)


def test_at_most_max_partition_fetch_bytes() -> None:
    async def body(log: EmbeddedLog) -> None:
        await fill(log, 400, per_batch=10)
        consumer = await assigned(log, T0, config={"max.partition.fetch.bytes": 1000})
        batches = await consumer.poll_batches(0)
        assert 10 <= sum(map(len, batches)) < 100

    with_log(body)


def test_fetch_min_bytes_waits() -> None:
    async def body(log: EmbeddedLog) -> None:
        await fill(log, 1)
        consumer = await assigned(
            log, T0, config={"fetch.min.bytes": 100_000, "fetch.max.wait.ms": 20}
        )
        assert len(await consumer.poll(0)) == 1  # when the wait is over, what there is

    with_log(body)


def test_commit_and_committed_without_joining() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=2)
        await fill(log, 10)
        consumer = await assigned(log, T0, T1, group="g")
        assert await consumer.committed([T0]) == {T0: None}
        await consumer.poll(0, 4)
        await consumer.commit()
        await consumer.commit({T1: OffsetAndMetadata(3, "höhö")})
        assert await consumer.committed([T0, T1]) == {
            T0: OffsetAndMetadata(4),
            T1: OffsetAndMetadata(3, "höhö"),
        }
        with pytest.raises(ConfigError, match=r"offset\.metadata\.max\.bytes"):
            await consumer.commit({T0: OffsetAndMetadata(1, "x" * 5000)})
        with pytest.raises(UnknownTopicError):
            await consumer.commit({TopicPartition("nope", 0): 1})
        again = await assigned(log, T0, group="g")
        assert (await again.poll(0))[0].offset == 4
        with pytest.raises(ConfigError, match="no group"):
            await (await assigned(log, T0)).commit()

    with_log(body)


def test_topics_without_a_group_are_read_whole() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=2)
        await fill(log, 3)
        await fill(log, 3, partition=1)
        async with log.consumer("t") as consumer:
            assert len(await consumer.poll(0)) == 6
            assert consumer.assignment() == {T0, T1}
        with pytest.raises(UnknownTopicError, match="nope"):
            await log.consumer("nope").poll(0)

    with_log(body)


def test_read_uncommitted_sees_open_and_aborted() -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer(transactional_id="x") as producer:
            await producer.begin_transaction()
            await producer.send("t", b"aborted")
            await producer.abort_transaction()
            await producer.begin_transaction()
            await producer.send("t", b"open")
            assert await values(log, T0, isolation="read_uncommitted") == [b"aborted", b"open"]
            consumer = await assigned(log, T0)
            assert await consumer.poll(0) == []
            assert consumer.position() == {T0: 2}  # past what can never be returned
            assert await consumer.lag() == {T0: 0}
            await producer.abort_transaction()

    with_log(body)


def test_damage_is_reported_and_what_is_sound_is_returned() -> None:
    files = MemoryFiles()

    async def main() -> None:
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            await fill(log, 30)
            path = "log/t-0/00000000000000000000.log"
            data = files.read_whole(path)
            position = data.index(b"17", 61)
            files.open(path).overwrite(position, b"X")
            consumer = await assigned(log, T0)
            assert len(await consumer.poll(0)) == 10
            for _ in range(2):
                with pytest.raises(CorruptRecordError, match="t-0, at offset 10"):
                    await consumer.poll(0)
            assert consumer.position() == {T0: 10}
            await consumer.seek(T0, 20)
            assert len(await consumer.poll(0)) == 10

    asyncio.run(main())


def test_reading_while_the_topic_goes() -> None:
    async def body(log: EmbeddedLog) -> None:
        await fill(log, 3)
        await log.alter_group_offsets("g", {T0: 2})
        consumer = await assigned(log, T0)
        await consumer.poll(0)
        waiting = asyncio.ensure_future(consumer.poll(60_000))
        await settled()
        await log.delete_topic("t")
        with pytest.raises(UnknownTopicError, match="'t'"):
            await waiting
        assert await log.group_offsets("g") == {}

    with_log(body)


def test_closed() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        consumer = await assigned(log, T0)
        waiting = asyncio.ensure_future(consumer.poll(60_000))
        await settled()
        await consumer.close()
        with pytest.raises(LogClosedError):
            await waiting
        await consumer.close()
        with pytest.raises(LogClosedError):
            await consumer.poll(0)
        other = await assigned(log, T0)
        waiting = asyncio.ensure_future(other.poll(60_000))
        await settled()
        await log.close()
        with pytest.raises(LogClosedError):
            await waiting

    with_log(body)


def test_a_cancelled_poll_loses_nothing() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        consumer = await assigned(log, T0)
        found = []
        for number in range(40):
            polling = asyncio.ensure_future(consumer.poll(60_000))
            for _ in range(number % 9):
                await asyncio.sleep(0)
            if number % 4 == 0:
                await fill(log, 1)
            polling.cancel()
            await asyncio.wait([polling])
            if not polling.cancelled():
                found += polling.result()
        while records := await consumer.poll(0):
            found += records
        assert [record.offset for record in found] == list(range(10))

    with_log(body)


def test_wrong_settings() -> None:
    async def body(log: EmbeddedLog) -> None:
        with pytest.raises(ConfigError, match="earliest, latest or none"):
            log.consumer(auto_offset_reset="newest")
        with pytest.raises(ConfigError, match="read_committed"):
            log.consumer(isolation="serializable")
        with pytest.raises(ConfigError, match=r"session\.timeout\.ms"):
            log.consumer(config={"session.timeout": 5})

    with_log(body)


def test_a_closed_consumer_has_no_position() -> None:
    """An empty one, sent with a transaction, would commit the outputs without their offsets."""

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        consumer = log.consumer("t", group="g")
        await consumer.poll(0)
        await consumer.close()
        with pytest.raises(LogClosedError):
            consumer.position()

    with_log(body)
