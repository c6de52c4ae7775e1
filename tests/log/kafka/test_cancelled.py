"""Polls that are cancelled, and consumers and producers that are closed amid something."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from millstream.log import Log, TopicPartition, UnknownTopicError
from millstream.log.kafka.reader import Fetched, Reader
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
