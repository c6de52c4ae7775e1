"""Where blocking disk work runs: in threads off the event loop, or inline if none are wanted.

Threads of our own, not a ThreadPoolExecutor: its futures, locks and callbacks cost 50 us for each
piece of work, as much as a fast disk takes for an fsync, and a commit waits for three one after the
other.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

from millstream.log.errors import LogClosedError, StorageError

from .to_the_end import ended

__all__ = ["DiskThreads"]

T = TypeVar("T")
Ended = Callable[[BaseException | None], None]


class DiskThreads:
    """A bounded set of threads for fsync and for opening a log.

    Args:
        count: threads at most; 0 runs everything on the caller, which is deterministic and right
            for a log in memory. They are started when there is work for them.
    """

    def __init__(self, count: int) -> None:
        self._count_max = count
        self._loop = asyncio.get_running_loop()
        self._threads: list[Thread] = []
        self._work: SimpleQueue[tuple[Callable[[], None], Ended] | None] = SimpleQueue()
        self._unreported = 0
        self._ended: deque[tuple[Ended, BaseException | None]] = deque()
        self._loop_is_told = False
        self._closed = False

    @property
    def inline(self) -> bool:
        """Whether work runs on the caller."""
        return self._count_max == 0

    def start(self, work: Callable[[], None], ended: Ended) -> None:
        """Run `work` in a thread, then `ended` on the event loop, with what `work` raised.

        Those that end together wake the loop once. Not for `inline`.

        Raises:
            LogClosedError: the threads were stopped.
            StorageError: there is none, and the system gives none.
        """
        if self._closed:
            raise LogClosedError("The log is closed; open it again with open_log.")
        if len(self._threads) < min(self._unreported + 1, self._count_max):
            self._start_thread()
        self._unreported += 1
        self._work.put((work, ended))

    def _start_thread(self) -> None:
        # A daemon: a process that ends without closing its log waits for nobody.
        thread = Thread(target=self._run_work, name="millstream-disk", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            if self._threads:
                return  # those that run do all the work
            raise StorageError(
                f"No thread can be started for the disk ({error}). Raise the limit of the process "
                "(ulimit -u, pids.max), or set flush.threads=0: fsync then holds the event loop."
            ) from error
        self._threads.append(thread)

    def _run_work(self) -> None:
        """In a thread. The flag is read after the entry is there, and taken back before the entries
        are taken: none is left behind."""
        while (taken := self._work.get()) is not None:
            work, ended = taken
            error: BaseException | None = None
            try:
                work()
            except BaseException as raised:  # noqa: BLE001 - whoever waits for the work gets it
                error = raised
            self._ended.append((ended, error))
            if not self._loop_is_told:
                self._loop_is_told = True
                with suppress(RuntimeError):  # the loop was closed, and with it all who wait
                    self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        self._loop_is_told = False
        try:
            while self._ended:
                ended, error = self._ended.popleft()
                self._unreported -= 1
                ended(error)
        finally:
            if self._ended:  # one of them raised: the others are told all the same
                self._loop.call_soon(self._tell)

    async def run(self, work: Callable[[], T]) -> T:
        """Run `work` and wait for it. A cancelled wait waits all the same, however often it is
        cancelled: the work cannot be stopped, and its result must not be lost."""
        if self.inline:
            return work()
        done: asyncio.Future[T] = self._loop.create_future()
        results: list[T] = []

        def tell(error: BaseException | None) -> None:
            if error is None:
                done.set_result(results[0])
            else:
                done.set_exception(error)

        self.start(lambda: results.append(work()), tell)
        return await ended(done)

    def close(self) -> None:
        """Let running work end and stop the threads."""
        self._closed = True
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
