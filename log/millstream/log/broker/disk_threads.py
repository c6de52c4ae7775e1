"""Where blocking disk work runs: in threads off the event loop, or inline if none are wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["DiskThreads"]

T = TypeVar("T")


class DiskThreads:
    """A bounded set of threads for fsync and for opening a log.

    Args:
        count: threads at most; 0 runs everything on the caller, which is deterministic and right
        for
            a log in memory.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "millstream-disk") if count else None

    @property
    def inline(self) -> bool:
        """Whether work runs on the caller."""
        return self._pool is None

    def start(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Run `work` in a thread; the future ends on the running loop. Not for `inline`."""
        return asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` and wait for it. A cancelled wait waits all the same: the work cannot be
        stopped, and its result must not be lost."""
        if self._pool is None:
            return work()
        future = self.start(work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def close(self) -> None:
        """Let running work end and stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
