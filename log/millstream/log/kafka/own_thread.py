"""A thread that makes the blocking calls of one client, one after the other.

Its owner waits for each in the event loop. A call whose waiter is cancelled is made all the same,
and calls after it are made after it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from millstream.log.errors import LogClosedError, LogTimeoutError

__all__ = ["OwnThread"]

T = TypeVar("T")

_Job = Callable[[], None]


class OwnThread:
    """One thread, started by the first call and ended by `stop`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._is_given_up = False

    @property
    def is_given_up(self) -> bool:
        """Whether a call was waited for no longer; those after it are not made."""
        return self._is_given_up

    @property
    def has_jobs(self) -> bool:
        """Whether calls wait for the one that is being made to end."""
        return not self._jobs.empty()

    def submit(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have a call made; the future is the event loop's."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def job() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - it is raised where the call was made
                call_soon(loop, _settle_error, answer, error)
            else:
                call_soon(loop, _settle, answer, result)

        self.post(job)
        return answer

    async def run(self, work: Callable[[], T]) -> T:
        """Have a call made, and wait for what it answers."""
        return await self.submit(work)

    async def run_within(self, timeout_s: float, work: Callable[[], T]) -> T:
        """The same of a call that may never end.

        Raises:
            LogTimeoutError: it has not ended; nor does the thread, which is given up.
        """
        deadline = asyncio.timeout(timeout_s)
        try:
            async with deadline:
                return await self.submit(work)
        except TimeoutError as error:
            if not deadline.expired():
                raise
            self._is_given_up = self._stopped = True
            self._jobs.put(None)
            raise LogTimeoutError(f"No answer for {timeout_s:g} s.") from error

    def post(self, job: _Job) -> None:
        """Have a call made whose end nobody waits for. It must not raise."""
        if self._stopped:
            raise LogClosedError(f"The {self._name} is closed; make another.")
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def serve_until(self, is_over: Callable[[], bool]) -> None:
        """In this thread, amid a call: make others until it is so. The last one makes it so."""
        while not is_over():
            job = self._jobs.get()
            if job is None:
                self._jobs.put(None)
                return
            job()

    async def stop(self) -> None:
        """End the thread when all calls are made, and wait for that, unless it is given up."""
        self._stopped = True
        thread, self._thread = self._thread, None
        if thread is None or self._is_given_up:
            return
        ended = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        self._jobs.put(lambda: call_soon(loop, _settle, ended, None))
        self._jobs.put(None)
        await ended
        thread.join()

    def _serve(self) -> None:
        self.serve_until(lambda: False)


def call_soon(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any) -> None:
    """From another thread; nothing when the loop is gone, for then nobody waits."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, *arguments)


def _settle(answer: asyncio.Future[Any], result: Any) -> None:
    if not answer.done():
        answer.set_result(result)


def _settle_error(answer: asyncio.Future[Any], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)
