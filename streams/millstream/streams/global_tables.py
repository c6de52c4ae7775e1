"""Global tables: topics that every worker reads whole, all partitions, before it processes
anything.

They have no changelog: the topic is it. They are kept in memory, as bytes, and read anew at every
start; a value becomes an object when a function first looks it up. While the app runs they follow
their topics, in no fixed order with the records that look into them (Kafka Streams' GlobalKTable).
"""

from __future__ import annotations

import asyncio

from millstream.log.interface import Consumer
from millstream.log.reading_end import ReadingEnd
from millstream.log.record import RecordBatch, TopicPartition

from .restore import POLL_MS
from .run_context import RunContext
from .state import KeyValueStore, MemoryBacking

__all__ = ["GlobalTables"]

_CONSUMER_CONFIG = {"enable.auto.commit": "false"}


class GlobalTables:
    """The global tables of a topology, by the names of their stores."""

    def __init__(self, context: RunContext) -> None:
        self._log = context.log
        self._progress = context.progress
        self.stores: dict[str, KeyValueStore] = {}
        self._of_topic: dict[str, list[KeyValueStore]] = {}
        for table in context.topology.global_tables:
            name = table.store.name
            serde = table.store.value_serde
            self.stores[name] = KeyValueStore(
                name, MemoryBacking(), serde.serialize, serde.deserialize, logged=False
            )
            topic = context.names.in_log(table.topic.name)
            self._of_topic.setdefault(topic, []).append(self.stores[name])
        self._consumer: Consumer | None = None
        self._following: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Read every table from the beginning to the end its topic has now, then follow it."""
        if not self._of_topic:
            return
        partitions: list[TopicPartition] = []
        for topic in self._of_topic:
            count = (await self._log.describe_topic(topic)).partitions
            partitions += [TopicPartition(topic, number) for number in range(count)]
        positions = await self._log.beginning_offsets(partitions)
        end = await ReadingEnd.now(self._log, partitions)
        self._consumer = self._log.consumer(config=_CONSUMER_CONFIG)
        await self._consumer.assign(partitions)
        await self._consumer.seek_to_beginning(*partitions)
        done = 0
        while not await end.is_reached(positions):
            for batch in await self._consumer.poll_batches(POLL_MS):
                self._update(batch)
                done += len(batch)
            positions.update(self._consumer.position())
            self._progress("global tables", done, None)
        self._following = asyncio.create_task(self._follow(self._consumer))

    def check(self) -> None:
        """Raise what ended the following of the topics."""
        if self._following is not None and self._following.done():
            self._following.result()

    async def close(self) -> None:
        """Stop reading."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        if self._consumer is not None:
            await self._consumer.close()

    async def _follow(self, consumer: Consumer) -> None:
        while True:
            for batch in await consumer.poll_batches():
                self._update(batch)

    def _update(self, batch: RecordBatch) -> None:
        rows = [
            (key, value)
            for key, value in zip(batch.keys, batch.values, strict=True)
            if key is not None
        ]
        for store in self._of_topic[batch.topic]:
            store.restore([key for key, _ in rows], [value for _, value in rows], {})
            store.restored()
