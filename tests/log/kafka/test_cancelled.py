"""Polls that are cancelled, and consumers and producers that are closed amid something."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection
from typing import Any

import pytest

from millstream.log import (
    Log,
    LogClosedError,
    LogTimeoutError,
    TopicPartition,
    UnknownTopicError,
    open_log,
)
from millstream.log.kafka import kafka_producer
from millstream.log.kafka.consumer_calls import ConsumerCalls
from millstream.log.kafka.kafka_producer import KafkaProducer
from millstream.log.kafka.own_thread import OwnThread
from millstream.log.kafka.reader import Fetched, Reader
from millstream.log.kafka.rebalance import Rebalance
from millstream.log.kafka.recent_topics import RecentTopics
from millstream.log.kafka.settings import KafkaProducerConfig
from shared.kafka_log import on_log, records


async def fill(log: Log, topic: str) -> None:
    await log.create_topic(topic)
    async with log.producer() as producer:
        await producer.send_batch(topic, [b"%d" % number for number in range(10)])


@pytest.mark.parametrize("group", [None, "g"])
def test_the_first_poll_is_cancelled(url: str, topic: str, group: str | None) -> None:
    """Whatever it was at: finding the topic's partitions, or having them read."""

    async def body(log: Log) -> None:
        await fill(log, topic)
        for turns in range(1, 6):
            named = None if group is None else f"{topic}-{turns}"
            async with log.consumer(topic, group=named) as consumer:
                polling = asyncio.create_task(consumer.poll(10_000))
                for _ in range(turns):
                    await asyncio.sleep(0)
                polling.cancel()
                await asyncio.wait([polling])
                assert polling.cancelled()
                found = await asyncio.wait_for(records(consumer, 10), 10)
                assert [each.offset for each in found] == list(range(10))

    on_log(url, body)


def test_a_topic_that_comes_after_the_first_poll(url: str, topic: str) -> None:
    async def body(log: Log) -> None:
        async with log.consumer(topic) as consumer:
            with pytest.raises(UnknownTopicError):
                await consumer.poll(100)
            await fill(log, topic)
            assert len(await asyncio.wait_for(records(consumer, 10), 10)) == 10

    on_log(url, body)


def test_what_a_cancelled_poll_fetched_of_what_was_given_up(
    url: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assigned anew it is read from where it begins, once."""
    fetched, goes_on = threading.Event(), threading.Event()
    original = Reader.fetch

    def fetch(self: Reader, *arguments: Any) -> Fetched:
        found = original(self, *arguments)
        fetched.set()
        goes_on.wait(60)
        return found

    async def body(log: Log) -> None:
        await fill(log, topic)
        t0 = TopicPartition(topic, 0)
        monkeypatch.setattr(Reader, "fetch", fetch)
        async with log.consumer() as consumer:
            await consumer.assign([t0])
            polling = asyncio.create_task(consumer.poll(10_000))
            await asyncio.to_thread(fetched.wait, 60)
            polling.cancel()
            await asyncio.wait([polling])
            goes_on.set()
            await consumer.assign([])
            await consumer.assign([t0])
            found = await records(consumer, 10)
            assert [each.offset for each in found] == list(range(10))
            assert await consumer.poll(200) == []

    on_log(url, body)


def test_a_consumer_whose_last_commit_fails_is_closed(
    url: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[Reader] = []
    original = Reader.close

    def close(self: Reader) -> None:
        closed.append(self)
        original(self)

    def refused(_self: Reader, _offsets: Any) -> None:
        raise LogTimeoutError("nobody answers")

    async def body(log: Log) -> None:
        await fill(log, topic)
        consumer = log.consumer(group=topic)
        await consumer.assign([TopicPartition(topic, 0)])
        await records(consumer, 10)
        monkeypatch.setattr(Reader, "close", close)
        monkeypatch.setattr(Reader, "commit", refused)
        with pytest.raises(LogTimeoutError, match="nobody answers"):
            await consumer.close()
        assert len(closed) == 1

    on_log(url, body)


def test_what_comes_last_is_done_though_a_listener_fails() -> None:
    """A poll was cancelled; its fetch met a rebalance, of which the end is the first to hear."""
    done: list[str] = []

    class Rebalancing:
        def hurry(self, *, is_hurried: bool = True) -> None:
            pass

        def fetch(self, _s: float, _paused: Collection[TopicPartition], _limit: int) -> Fetched:
            change = Rebalance("revoked", [], None)
            hears.wait(60)
            calls.tell(change)
            thread.serve_until(change.is_over)
            done.append("fetched")
            return Fetched([], {}, [], 0, None)

    async def fails(_change: Rebalance) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        reader: Any = Rebalancing()
        calls.reader = reader
        polling = asyncio.create_task(calls.fetch(60, (), 1))
        await asyncio.sleep(0)
        polling.cancel()
        await asyncio.wait([polling])
        hears.set()
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(calls.run(lambda: done.append("closed")), 60)
        await thread.stop()

    hears, thread = threading.Event(), OwnThread("consumer")
    calls = ConsumerCalls(thread, fails)
    asyncio.run(main())
    assert done == ["fetched", "closed"]


def test_a_producer_that_is_closed_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()

    class Slow:
        def __init__(self, _settings: Any) -> None:
            pass

        def __len__(self) -> int:
            return 0

        def poll(self, _timeout_s: float) -> None:
            pass

        def flush(self, _timeout_s: float) -> int:
            return 0

        def init_transactions(self, _timeout_s: float) -> None:
            answers.wait(60)

    async def main() -> None:
        producer = KafkaProducer(
            *({"socket.timeout.ms": 1_000}, "kafka://x"),
            transactional_id="orders",
            config=KafkaProducerConfig.parse(None),
            recent=RecentTopics(),
            on_close=lambda _: None,
        )
        entering = asyncio.create_task(producer.__aenter__())
        await asyncio.sleep(0)
        entering.cancel()
        await asyncio.wait([entering])
        closing = asyncio.create_task(producer.close())
        await asyncio.sleep(0)
        answers.set()
        await closing

    monkeypatch.setattr(kafka_producer, "LibrdkafkaProducer", Slow)
    threads = set(threading.enumerate())
    asyncio.run(asyncio.wait_for(main(), 60))
    assert set(threading.enumerate()) <= threads


@pytest.mark.parametrize("where", ["in this process", "over the network"])
def test_a_listener_commits_while_its_consumer_closes(
    request: pytest.FixtureRequest, topic: str, where: str
) -> None:
    """What it was given since the last commit is not read again."""

    async def body(log: Log) -> None:
        await fill(log, topic)
        consumer = log.consumer(group=topic, config={"enable.auto.commit": "false"})

        async def revoked(_partitions: Collection[TopicPartition]) -> None:
            await consumer.commit()

        await consumer.subscribe([topic], on_revoked=revoked)
        await records(consumer, 7)
        await consumer.close()
        assert (await log.group_offsets(topic))[TopicPartition(topic, 0)].offset == 7
        with pytest.raises(LogClosedError):
            await consumer.commit()
        with pytest.raises(LogClosedError):
            await consumer.commit({TopicPartition(topic, 0): 1})

    on_log("memory:" if where == "in this process" else request.getfixturevalue("url"), body)


def test_a_log_is_closed_whole_though_a_listener_fails(url: str, topic: str) -> None:
    async def fails(_partitions: Collection[TopicPartition]) -> None:
        raise ZeroDivisionError

    async def body(other: Log) -> None:
        await fill(other, topic)
        log = open_log(url)
        await log.__aenter__()
        consumer = log.consumer(group=topic)
        await consumer.subscribe([topic], on_revoked=fails)
        await records(consumer, 10)
        producer = log.producer(config={"linger.ms": 60_000})
        await producer.send_batch(topic, [b"handed over"])
        with pytest.raises(ZeroDivisionError):
            await log.__aexit__(None, None, None)
        t0 = TopicPartition(topic, 0)
        assert await other.end_offsets([t0]) == {t0: 11}

    on_log(url, body)


@pytest.mark.parametrize("where", ["in this process", "over the network"])
@pytest.mark.parametrize("group", [None, "g"])
def test_a_consumer_that_is_closed_while_another_task_polls(
    request: pytest.FixtureRequest, topic: str, where: str, group: str | None
) -> None:
    async def body(log: Log) -> None:
        await fill(log, topic)
        async with log.consumer(topic, group=group and topic) as consumer:
            await records(consumer, 10)
            polling = asyncio.create_task(consumer.poll(50_000))
            await asyncio.sleep(0)
            await consumer.close()
            with pytest.raises(LogClosedError):
                await polling

    url = "memory:" if where == "in this process" else request.getfixturevalue("url")
    on_log(url, body, within_s=20)


@pytest.mark.parametrize("buffer_bytes", [1 << 16, 1 << 25])
def test_a_producer_that_is_closed_while_another_task_sends(
    url: str, topic: str, buffer_bytes: int
) -> None:
    """Who sends hears that not all was handed over."""

    async def body(log: Log) -> None:
        await fill(log, topic)
        producer = log.producer(config={"buffer.memory": buffer_bytes})
        await producer.send(topic, b"first")
        sending = asyncio.create_task(producer.send_batch(topic, [bytes(50)] * 20_000))
        while not producer.buffered_records:
            await asyncio.sleep(0)
        await producer.close()
        with pytest.raises(LogClosedError):
            await sending

    on_log(url, body, within_s=20)
