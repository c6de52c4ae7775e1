"""The calls of a consumer that listeners of rebalances may interrupt: fetches, leaving, the end.

While the event loop waits for one, the thread may tell of a rebalance. Its listeners are awaited
then and there, so that they run inside the owner's poll.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any

from millstream.log.record import TopicPartition

from .own_thread import OwnThread, call_soon
from .reader import Fetched, Reader
from .rebalance import Rebalance

__all__ = ["ConsumerCalls"]


class ConsumerCalls:
    """One consumer's. `reader` is to be set before anything is called.

    Args:
        on_rebalance: awaited with each rebalance; the thread waits for its end.
    """

    reader: Reader

    def __init__(
        self, thread: OwnThread, on_rebalance: Callable[[Rebalance], Awaitable[None]]
    ) -> None:
        self._thread = thread
        self._on_rebalance = on_rebalance
        self._events: asyncio.Queue[Rebalance | None] = asyncio.Queue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._fetching: asyncio.Future[Fetched] | None = None
        self._waiting = 0

    async def fetch(
        self, timeout_s: float, paused: Collection[TopicPartition], limit: int
    ) -> Fetched:
        """What a fetch brings; one that a cancelled poll began comes first."""
        if self._fetching is None:
            self.reader.hurry(is_hurried=False)
            work = partial(self.reader.fetch, timeout_s, frozenset(paused), limit)
            self._fetching = self._submitted(work)
        try:
            await self._done(self._fetching)
        except asyncio.CancelledError:
            self.reader.hurry()
            raise
        done, self._fetching = self._fetching, None
        return done.result()

    async def run(self, work: Callable[[], None]) -> None:
        """Make a call after the fetch that may be on its way, though a listener fails meanwhile."""
        self.reader.hurry()
        try:
            if self._fetching is not None:
                await self._done(self._fetching)
        finally:
            call = self._submitted(work)
            await self._done(call)
        call.result()

    def tell(self, change: Rebalance) -> None:
        """In the thread."""
        if self._loop is None or self._loop.is_closed():
            change.end()
        else:
            call_soon(self._loop, self._events.put_nowait, change)

    def _submitted(self, work: Callable[[], Any]) -> asyncio.Future[Any]:
        self._loop = asyncio.get_running_loop()
        call = self._thread.submit(work)
        call.add_done_callback(lambda _: self._events.put_nowait(None))
        return call

    async def _done(self, call: asyncio.Future[Any]) -> None:
        """Wait for a call, and have listeners hear meanwhile. One event wakes one who waits: the
        owner may close the consumer while a task of it polls."""
        self._waiting += 1
        try:
            while not call.done() or not self._events.empty():
                await self._hear(await self._events.get())
        finally:
            self._waiting -= 1
            if self._waiting:
                self._events.put_nowait(None)

    async def _hear(self, change: Rebalance | None) -> None:
        if change is not None:
            try:
                await self._on_rebalance(change)
            finally:
                self._thread.post(change.end)
