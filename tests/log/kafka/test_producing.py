"""Producers on a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from millstream.log import (
    BufferFullError,
    InvalidTxnStateError,
    Log,
    LogClosedError,
    ProducerFencedError,
    RecordTooLargeError,
    RetriableError,
    TopicPartition,
    UnknownTopicError,
)
from millstream.log.format.partitioner import partition_for_key
from shared.kafka_log import on_log, records


def test_records_with_all_they_can_have(url: str, topic: str) -> None:
    async def body(log: Log) -> None:
        await log.create_topic(topic)
        async with log.producer() as producer:
            headers = (("a", b"1"), ("a", None))
            sent = await producer.send(topic, None, key=b"k", timestamp=1234, headers=headers)
            assert (sent.topic, sent.partition, sent.offset, sent.timestamp) == (topic, 0, 0, 1234)
            await producer.send_batch(
                topic,
                [b"1", None, b""],
                keys=[None, b"", b"k"],
                timestamps=[5, 6, 7],
                headers=[(), (("h", b""),), ()],
            )
            await producer.flush()
        async with log.consumer(topic) as consumer:
            found = [
                (each.key, each.value, each.timestamp, each.headers)
                for each in await records(consumer, 4)
            ]
        assert found == [
            (b"k", None, 1234, headers),
            (None, b"1", 5, ()),
            (b"", None, 6, (("h", b""),)),
            (b"k", b"", 7, ()),
        ]

    on_log(url, body)


def test_keys_go_where_kafka_puts_them(url: str, topic: str) -> None:
    """The embedded log and Java's clients agree: murmur2."""

    async def body(log: Log) -> None:
        await log.create_topic(topic, partitions=7)
        keys = [b"key-%d" % number for number in range(50)]
        async with log.producer() as producer:
            sent = await asyncio.gather(*(producer.send(topic, b"", key=key) for key in keys))
        assert [each.partition for each in sent] == [partition_for_key(key, 7) for key in keys]

    on_log(url, body)


def test_order_of_a_large_batch(url: str, topic: str) -> None:
    async def body(log: Log) -> None:
        await log.create_topic(topic)
        values = [b"%d" % number for number in range(25_000)]
        async with log.producer(config={"buffer.memory": 1 << 16}) as producer:  # waits for room
            await producer.send_batch(topic, values)
        async with log.consumer(topic) as consumer:
            assert [each.value for each in await records(consumer, len(values))] == values

    on_log(url, body)


def test_what_is_refused(url: str, topic: str) -> None:
    async def body(log: Log) -> None:
        await log.create_topic(topic, config={"max.message.bytes": 1000})
        async with log.producer() as producer:
            with pytest.raises(RecordTooLargeError, match=r"max\.message\.bytes"):
                await producer.send(topic, bytes(2000))
            with pytest.raises(UnknownTopicError, match="partitions 0 to 0"):
                await producer.send(topic, b"", partition=1)
            with pytest.raises(TypeError, match="str"):
                await producer.send(topic, "text")  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="2 values and 1 keys"):
                await producer.send_batch(topic, [b"", b""], keys=[b""])
            await producer.send_batch(topic, [bytes(2000)])
            with pytest.raises(RecordTooLargeError):
                await producer.flush()
            await producer.flush()  # once
            assert (await producer.send(topic, b"")).offset == 0
        with pytest.raises(LogClosedError):
            await producer.send(topic, b"")

    on_log(url, body)


def test_a_buffer_that_stays_full(url: str, topic: str) -> None:
    async def body(log: Log) -> None:
        await log.create_topic(topic)
        config = {"buffer.memory": 1 << 16, "max.block.ms": 50, "linger.ms": 2_000}
        async with log.producer(config={**config, "batch.size": 1 << 20}) as producer:
            with pytest.raises(BufferFullError, match=r"buffer\.memory"):
                await producer.send_batch(topic, [bytes(1000)] * 100)

    on_log(url, body)


def test_a_transaction_counts_when_it_is_committed(url: str, topic: str) -> None:
    async def body(log: Log) -> None:
        await log.create_topic(topic)
        t0 = TopicPartition(topic, 0)
        async with log.producer(transactional_id=topic) as producer:
            with pytest.raises(InvalidTxnStateError, match="no open transaction"):
                await producer.send(topic, b"early")
            async with producer.transaction():
                await producer.send(topic, b"first")
                assert await log.end_offsets([t0]) == {t0: 0}
                assert await log.end_offsets([t0], "read_uncommitted") == {t0: 1}
            with pytest.raises(ZeroDivisionError):
                async with producer.transaction():
                    await producer.send_batch(topic, [b"aborted"])
                    1 / 0  # noqa: B018
            async with producer.transaction():
                await producer.send_batch(topic, [b"second"])
                await producer.send_offsets({t0: 7}, group=topic)
        assert {tp: each.offset for tp, each in (await log.group_offsets(topic)).items()} == {t0: 7}
        async with log.consumer(topic) as consumer:
            assert [each.value for each in await records(consumer, 2)] == [b"first", b"second"]
            while await consumer.poll(10) or (await consumer.lag())[t0]:
                pass  # behind the last marker
            assert consumer.position() == await log.end_offsets([t0])

    on_log(url, body)


def test_the_second_producer_fences_the_first(url: str, topic: str) -> None:
    async def body(log: Log) -> None:
        await log.create_topic(topic)
        async with log.producer(transactional_id=topic) as first:
            await first.begin_transaction()
            await first.send(topic, b"zombie")
            async with log.producer(transactional_id=topic) as second:
                with pytest.raises(ProducerFencedError):
                    async with asyncio.timeout(20):
                        while True:
                            await first.send(topic, b"zombie")
                async with second.transaction():
                    await second.send(topic, b"second")
            with pytest.raises(ProducerFencedError):
                await first.commit_transaction()
            with pytest.raises(ProducerFencedError):
                await first.close()
        async with log.consumer(topic) as consumer:
            assert [each.value for each in await records(consumer, 1)] == [b"second"]

    on_log(url, body)


def test_calls_that_are_cancelled_leave_a_producer_usable(url: str, topic: str) -> None:
    """A begin has begun nothing, a commit goes on, and the next call waits for it."""

    async def cancelled(call: Awaitable[None]) -> None:
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0)  # it is handed to the producer's thread
        task.cancel()
        await asyncio.wait([task])

    async def body(log: Log) -> None:
        await log.create_topic(topic)
        async with log.producer(transactional_id=topic) as producer:
            await cancelled(producer.begin_transaction())
            await producer.begin_transaction()
            await producer.send(topic, b"first")
            await cancelled(producer.commit_transaction())
            async with producer.transaction():
                await producer.send(topic, b"second")
        async with log.consumer(topic) as consumer:
            assert [each.value for each in await records(consumer, 2)] == [b"first", b"second"]

    on_log(url, body)


def test_records_that_an_abort_gives_up_unsent(url: str, topic: str) -> None:
    """Who waits for one is told, and the next transaction counts."""

    async def body(log: Log) -> None:
        await log.create_topic(topic)
        config = {"linger.ms": 30_000}
        async with log.producer(transactional_id=topic, config=config) as producer:
            await producer.begin_transaction()
            waiting = asyncio.create_task(producer.send(topic, b"given up"))
            while not producer.buffered_records:
                await asyncio.sleep(0.01)  # it is handed over
            await producer.abort_transaction()
            with pytest.raises(RetriableError):
                await waiting
            async with producer.transaction():
                await producer.send_batch(topic, [b"second"])
        async with log.consumer(topic) as consumer:
            assert [each.value for each in await records(consumer, 1)] == [b"second"]

    on_log(url, body)


def test_sending_on_after_a_record_of_the_transaction_failed(url: str, topic: str) -> None:
    """Says that it failed: that is no misuse of the producer."""

    async def body(log: Log) -> None:
        await log.create_topic(topic, config={"max.message.bytes": 1000})
        async with log.producer(transactional_id=topic) as producer:
            await producer.begin_transaction()
            with pytest.raises(RecordTooLargeError):
                await producer.send(topic, bytes(5000))
            with pytest.raises(RetriableError, match="Abort it"):
                await producer.send_batch(topic, [b"next"])
            await producer.abort_transaction()

    on_log(url, body)
