"""Reading a log over the network: what is there comes, but not at the first poll."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from millstream.log import Consumer, Log, Record, open_log

__all__ = ["on_log", "records"]

T = TypeVar("T")


def on_log(url: str, body: Callable[[Log], Awaitable[T]], *, within_s: float = 60) -> T:
    """Run `body` with the log at this URL."""

    async def main() -> T:
        async with open_log(url) as log:
            return await asyncio.wait_for(body(log), within_s)

    return asyncio.run(main())


async def records(consumer: Consumer, count: int) -> list[Record]:
    """The next so many."""
    found: list[Record] = []
    while len(found) < count:
        found += await consumer.poll(1000, count - len(found))
    return found
