"""The one thread in which state stores write to the disk.

One thread, so that writes to a database never overlap with its closing. A cancelled caller waits
for what it started: a database must not be closed under a write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["StateThread"]

T = TypeVar("T")


class StateThread:
    """Runs blocking work of the stores of one worker, one piece after the other."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="millstream-state")

    async def run(self, work: Callable[[], T]) -> T:
        """Do `work` in the thread; also when cancelled, return only after it is done."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    def close(self) -> None:
        """End the thread after the work it has."""
        self._executor.shutdown()
