"""Topics, records and offsets of a cluster, by the log's interface."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import (
    ConfigError,
    InvalidTopicError,
    Log,
    LogClosedError,
    LogTimeoutError,
    LogUnavailableError,
    TopicExistsError,
    TopicPartition,
    UnknownTopicError,
    UnsupportedError,
    open_log,
)
from millstream.log.kafka import kafka_log
from shared.kafka_log import on_log


def test_a_topic_is_created_described_altered_and_deleted(url: str, topic: str) -> None:
    async def body(log: Log) -> None:
        made = await log.create_topic(topic, partitions=2, config={"retention.ms": 12_345_678})
        assert (made.name, made.partitions, made.internal) == (topic, 2, False)
        assert made.config["retention.ms"] == "12345678"
        assert made.config["cleanup.policy"] == "delete"
        assert made.overrides == {"retention.ms": "12345678"}
        with pytest.raises(TopicExistsError, match=topic):
            await log.create_topic(topic)
        assert (await log.create_topic(topic, exist_ok=True)).topic_id == made.topic_id

        altered = await log.alter_topic(
            topic, config={"retention.ms": None, "cleanup.policy": "compact"}, partitions=3
        )
        assert altered.partitions == 3
        assert altered.overrides == {"cleanup.policy": "compact"}
        assert topic in await log.topics()

        await log.delete_topic(topic)
        assert topic not in await log.topics()
        with pytest.raises(UnknownTopicError, match=topic):
            await log.describe_topic(topic)
        with pytest.raises(UnknownTopicError):
            await log.delete_topic(topic)

    on_log(url, body)


def test_what_cannot_be_created(url: str, topic: str) -> None:
    async def body(log: Log) -> None:
        with pytest.raises(InvalidTopicError):
            await log.create_topic("no/name")
        with pytest.raises(ConfigError):
            await log.create_topic(topic, config={"retention.ms": "soon"})
        assert topic not in await log.topics()

    on_log(url, body)


def test_offsets_by_name_and_by_time(url: str, topic: str) -> None:
    async def body(log: Log) -> None:
        await log.create_topic(topic, partitions=2)
        t0, t1 = TopicPartition(topic, 0), TopicPartition(topic, 1)
        async with log.producer() as producer:
            times = [1000, 1010, 1020, 1030]
            await producer.send_batch(topic, [b"x"] * 4, timestamps=times, partition=0)
            await producer.flush()
        assert await log.beginning_offsets([t0, t1]) == {t0: 0, t1: 0}
        assert await log.end_offsets([t0, t1]) == {t0: 4, t1: 0}
        assert await log.offsets_for_time({t0: 1011, t1: 0}) == {t0: 2, t1: None}
        newest = await log.max_timestamps([t0, t1])
        assert (newest[t0], newest[t1]) == ((3, 1030), None)
        await log.delete_records({t0: 3})
        assert await log.beginning_offsets([t0]) == {t0: 3}
        first, second = await log.describe_partitions(topic)
        assert (first.partition, first.log_start_offset, first.last_stable_offset) == (0, 3, 4)
        assert (second.high_watermark, second.size_bytes, second.segments) == (0, -1, -1)

    on_log(url, body)


def test_what_librdkafka_cannot_ask_says_what_to_use(url: str) -> None:
    async def body(log: Log) -> None:
        for asked in (
            log.transactions(),
            log.describe_transaction("x"),
            log.terminate_transaction("x"),
            log.describe_producers([]),
            log.hanging_transactions(),
        ):
            with pytest.raises(UnsupportedError, match=r"kafka-transactions\.sh"):
                await asked
        with pytest.raises(UnsupportedError, match=r"kafka-consumer-groups\.sh"):
            await log.delete_group_offsets("g", [TopicPartition("t", 0)])
        with pytest.raises(UnsupportedError, match=r"session\.timeout\.ms"):
            await log.remove_group_members("g")

    on_log(url, body)


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_log, "_REACHED_WITHIN_S", 0.5)

    async def main() -> None:
        async with open_log("kafka://127.0.0.1:1"):
            pass

    with pytest.raises((LogUnavailableError, LogTimeoutError), match=r"kafka://127\.0\.0\.1:1"):
        asyncio.run(main())


def test_a_log_that_is_not_open(url: str) -> None:
    with pytest.raises(LogClosedError, match="async with"):
        open_log(url).producer()
    log = on_log(url, lambda log: asyncio.sleep(0, log))
    with pytest.raises(LogClosedError):
        asyncio.run(log.topics())
