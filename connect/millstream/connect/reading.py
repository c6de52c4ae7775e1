"""Reading a whole topic, up to where it ends now."""

from __future__ import annotations

from collections.abc import AsyncIterator

from millstream.log import Log, RecordBatch, TopicPartition
from millstream.log.reading_end import ReadingEnd

__all__ = ["partitions_of", "read_to_end"]

_POLL_TIMEOUT_MS = 20
"""Short: the last offsets may hold only transaction markers, which no poll returns."""


async def partitions_of(log: Log, topic: str) -> list[TopicPartition]:
    """The partitions of a topic. Raises UnknownTopicError when there is none of this name."""
    description = await log.describe_topic(topic)
    return [TopicPartition(topic, number) for number in range(description.partitions)]


async def read_to_end(log: Log, topic: str) -> AsyncIterator[RecordBatch]:
    """All committed records of a topic up to where it ends at this moment."""
    partitions = await partitions_of(log, topic)
    end = await ReadingEnd.now(log, partitions)
    async with log.consumer(config={"enable.auto.commit": "false"}) as consumer:
        await consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while not await end.is_reached(consumer.position()):
            for batch in await consumer.poll_batches(_POLL_TIMEOUT_MS):
                yield batch
