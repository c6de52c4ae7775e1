"""What connector tests share: reading a topic whole, and looking into dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from millstream.log import Log, Record, TopicPartition, UnknownTopicError

ERRORS = "__connect.errors."


async def records_of(log: Log, topic: str) -> list[Record]:
    """Every committed record of a topic, by partition and offset; none when there is no topic."""
    try:
        description = await log.describe_topic(topic)
    except UnknownTopicError:
        return []
    partitions = [TopicPartition(topic, number) for number in range(description.partitions)]
    found: list[Record] = []
    async with log.consumer() as consumer:
        await consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any((await consumer.lag()).values()):
            for batch in await consumer.poll_batches(20):
                found += batch
    return sorted(found, key=lambda record: (record.partition, record.offset))


async def values_of(log: Log, topic: str) -> list[Any]:
    """The values of a topic as JSON, by partition and offset."""
    return [orjson.loads(record.value or b"null") for record in await records_of(log, topic)]


async def fill(
    log: Log,
    topic: str,
    values: Sequence[bytes | None],
    *,
    keys: Sequence[bytes | None] | None = None,
    partitions: int = 1,
) -> None:
    """Create a topic and write these records."""
    await log.create_topic(topic, partitions=partitions, exist_ok=True)
    async with log.producer() as producer:
        await producer.send_batch(topic, values, keys=keys)
        await producer.flush()


def errors_in(record: Record) -> dict[str, str]:
    """The `__connect.errors.*` headers of a dead letter, by their last part."""
    return {
        name.removeprefix(ERRORS): (data or b"").decode()
        for name, data in record.headers
        if name.startswith(ERRORS)
    }
