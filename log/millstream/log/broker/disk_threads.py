"""Where blocking disk work runs: in threads off the event loop, or inline if none are wanted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["DiskThreads"]

T = TypeVar("T")
Ended = Callable[[BaseException | None], None]


class DiskThreads:
    """A bounded set of threads for fsync and for opening a log.

    Args:
        count: threads at most; 0 runs everything on the caller, which is deterministic and right
            for a log in memory.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "millstream-disk") if count else None
        self._loop = asyncio.get_running_loop()
        self._ended: deque[tuple[Ended, BaseException | None]] = deque()
        self._loop_is_told = False

    @property
    def inline(self) -> bool:
        """Whether work runs on the caller."""
        return self._pool is None

    def start(self, work: Callable[[], None], ended: Ended) -> None:
        """Run `work` in a thread, then `ended` on the event loop, with what `work` raised.

        A commit starts a dozen fsyncs: a future of asyncio for each would cost more than the calls.
        Those that end together wake the loop once. Not for `inline`.
        """
        assert self._pool is not None
        future = self._pool.submit(work)
        future.add_done_callback(lambda future: self._work_ended(future, ended))

    def _work_ended(self, future: Future[None], ended: Ended) -> None:
        """In the thread. The flag is read after the entry is there, and taken back before the
        entries are taken: none is left behind."""
        self._ended.append((ended, future.exception()))
        if not self._loop_is_told:
            self._loop_is_told = True
            self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._loop_is_told = False
        while self._ended:
            ended, error = self._ended.popleft()
            ended(error)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` and wait for it. A cancelled wait waits all the same, however often it is
        cancelled: the work cannot be stopped, and its result must not be lost."""
        if self._pool is None:
            return work()
        future = self._loop.run_in_executor(self._pool, work)
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled from future.exception()
        return future.result()

    def close(self) -> None:
        """Let running work end and stop the threads."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)
