"""Logs for tests: opened in memory, on a directory, with a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from millstream.log import Log, Record, TopicPartition
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.clock import Clock
from millstream.log.open import open_log_on
from millstream.log.storage.memory_files import MemoryFiles

T = TypeVar("T")


def with_log(
    body: Callable[[EmbeddedLog], Awaitable[T]],
    *,
    config: Mapping[str, str | int] | None = None,
    clock: Clock | None = None,
) -> T:
    """Run `body` with a log in memory."""

    async def main() -> T:
        settings = {"flush.threads": 0, **(config or {})}
        async with open_log_on(MemoryFiles(), "log", config=settings, clock=clock) as log:
            return await asyncio.wait_for(body(log), 30)

    return asyncio.run(main())


async def read_all(log: Log, *partitions: TopicPartition, isolation: str = "read_committed"):
    """Every readable record of these partitions, in the order a consumer returns them."""
    found: list[Record] = []
    async with log.consumer(isolation=isolation) as consumer:
        await consumer.assign(partitions)
        ends = await log.end_offsets(partitions, isolation)
        # A poll may find nothing but markers, or batches that compaction has emptied.
        while True:
            records = await consumer.poll(0, 10_000)
            found += records
            position = consumer.position()
            if not records and all(position[each] >= end for each, end in ends.items()):
                return found


async def values(log: Log, *partitions: TopicPartition, isolation: str = "read_committed"):
    """Their values."""
    return [record.value for record in await read_all(log, *partitions, isolation=isolation)]


async def settled() -> None:
    """Let everything that is ready to run do so."""
    for _ in range(50):
        await asyncio.sleep(0)
