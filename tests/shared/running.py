"""What tests of running apps share: writing input, running to the end, reading what came out."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import orjson

from millstream.log import Isolation, Log, Record, TopicPartition, UnknownTopicError
from millstream.streams import App, RunResult, run_app

Row = tuple[str | None, Any, int]
"""Key, value (bytes, or what becomes JSON), timestamp."""
KEPT = {"retention.ms": -1}
"""Events of tests may be as old as 1970."""


async def feed(log: Log, topic: str, rows: Iterable[Row], *, partitions: int = 1) -> None:
    """Write rows, partitioned by their keys; the topic is made if it is not there."""
    columns = list(rows)
    await log.create_topic(topic, partitions=partitions, config=KEPT, exist_ok=True)
    async with log.producer() as producer:
        await producer.send_batch(
            topic,
            [value if isinstance(value, bytes) else orjson.dumps(value) for _, value, _ in columns],
            keys=[None if key is None else key.encode() for key, _, _ in columns],
            timestamps=[timestamp for _, _, timestamp in columns],
        )
        await producer.flush()


async def records(log: Log, topic: str, isolation: Isolation = "read_committed") -> list[Record]:
    """All records of a topic, by partition and offset."""
    count = (await log.describe_topic(topic)).partitions
    partitions = [TopicPartition(topic, number) for number in range(count)]
    found: list[Record] = []
    async with log.consumer(isolation=isolation) as consumer:
        await consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any((await consumer.lag()).values()):
            for batch in await consumer.poll_batches(20):
                found += batch
    return sorted(found, key=lambda record: (record.partition, record.offset))


async def decided(log: Log, *topics: str) -> None:
    """Wait until no transaction holds back what these topics have, of those that are there: on a
    cluster what is committed can be read a moment later."""
    for topic in topics:
        try:
            count = (await log.describe_topic(topic)).partitions
        except UnknownTopicError:
            continue
        partitions = [TopicPartition(topic, number) for number in range(count)]
        ends = await log.end_offsets(partitions, "read_uncommitted")
        async with asyncio.timeout(60):
            while any(at < ends[tp] for tp, at in (await log.end_offsets(partitions)).items()):
                await asyncio.sleep(0.05)  # asked again


async def integers(log: Log, topic: str) -> list[tuple[str, int]]:
    """Key and value of a topic of integers."""
    return [
        ((record.key or b"").decode(), int.from_bytes(record.value or b"", "big", signed=True))
        for record in await records(log, topic)
    ]


async def last_integers(log: Log, topic: str) -> dict[str, int]:
    """The last value of each key of a topic of integers."""
    return dict(await integers(log, topic))


async def to_end(app: App, log: Log) -> RunResult:
    """Run an app to the end of its input."""
    async with asyncio.timeout(30):
        return await run_app(app, log=log, until_end=True)
