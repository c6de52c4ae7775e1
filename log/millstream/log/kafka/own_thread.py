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

from millstream.log.errors import LogClosedError

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
        """End the thread when all calls are made, and wait for that."""
        self._stopped = True
        thread, self._thread = self._thread, None
        if thread is None:
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
