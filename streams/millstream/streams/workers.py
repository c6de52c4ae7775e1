"""Several worker processes for one app, started and watched by this one.

    this process   the log, served to the workers where it has one owner; sources and sinks
    each worker    `worker_process.py`: a member of the group, with state of its own

A worker that is killed is started again, and takes over what it left. One that ends with an error
would do so again, and so would the others: they are stopped, and the run fails. A worker that
somebody asks to stop (SIGTERM) is not replaced: the others share its tasks.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

from millstream.log.clock import Clock, SystemClock
from millstream.log.errors import MillstreamError
from millstream.log.events import event
from millstream.log.interface import Log

from .app import App
from .internal_topics import prepare_topics
from .run import run_attached
from .run_context import RunContext

__all__ = ["RESTARTS_MAX", "WORKER_LOG", "WorkersError", "run_workers"]

WORKER_LOG: Final = "MILLSTREAM_WORKER_LOG"
"""In the environment of a worker: the URL of its log, which may hold a password."""
RESTARTS_MAX: Final = 5
"""So many workers may be killed within a minute; more is no accident."""
_MINUTE_MS: Final = 60_000
_GRACE_S: Final = 60.0
"""How long a worker may take to commit and end; then it is killed, which loses nothing."""


class WorkersError(MillstreamError):
    """A worker process failed, or workers are killed again and again."""


async def run_workers(app: App, log: Log, reference: str, count: int, stop: asyncio.Event) -> None:
    """Run an app in `count` processes until `stop` is set; then all commit and end.

    Args:
        log: `app.log_url`, open; one of this process only is served to the workers on loopback.
        reference: where the workers find the app: path/app.py or package.module, with :name.

    Raises:
        WorkersError: a worker failed, or too many were killed; all have ended.
        MillstreamError: a source or a sink failed; all workers have ended.
    """
    context = RunContext.of(app, log)
    await prepare_topics(context)
    async with AsyncExitStack() as stack:
        command = [sys.executable, "-m", "millstream.streams.worker_process", reference]
        if context.directory.path is not None:
            command += ["--state-dir", str(context.directory.path.parent)]
        # Not on the command line, which all users of the machine can read.
        environment = {**os.environ, WORKER_LOG: await _reachable(app, log, stack)}
        watch = _Watch(command, environment, SystemClock())
        await run_attached(context, watch.run(count, stop), stop)


async def _reachable(app: App, log: Log, stack: AsyncExitStack) -> str:
    """The URL by which other processes reach a log, with its options, such as who they are."""
    if not log.url.startswith(("file:", "memory:")):
        return app.log_url
    from millstream.log.client.embedded_log import EmbeddedLog

    assert isinstance(log, EmbeddedLog)
    server = await stack.enter_async_context(log.serve("127.0.0.1:0"))
    return f"kafka://{server.address}"


class _Watch:
    """The processes, and when the last of them had to be started again. They are told the log by
    their environment: a URL may hold a password, and commands are for everybody to see."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], clock: Clock
    ) -> None:
        self._command = command
        self._environment = environment
        self._clock = clock
        self._killed_ms: deque[int] = deque(maxlen=RESTARTS_MAX + 1)

    async def run(self, count: int, stop: asyncio.Event) -> None:
        """Until `stop` is set, one fails, or all have been asked to stop."""
        stopping = asyncio.create_task(stop.wait())
        workers = [asyncio.create_task(self._keep(number + 1)) for number in range(count)]
        try:
            left = set(workers)
            while left and not stopping.done():
                done, _ = await asyncio.wait({*left, stopping}, return_when=asyncio.FIRST_COMPLETED)
                for task in done & left:
                    task.result()
                left -= done
        finally:
            for task in (stopping, *workers):
                task.cancel()
            await asyncio.wait([stopping, *workers])

    async def _keep(self, number: int) -> None:
        """Run a worker, and another when it is killed; cancelled, end it."""
        while True:
            process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.PIPE, env=self._environment
            )
            event("worker started", worker=number, pid=process.pid)
            try:
                code = await process.wait()
            finally:
                if process.returncode is None:
                    await _end(process)
            if code == 0:
                event("worker stopped", worker=number, pid=process.pid)
                return
            if code > 0:
                raise WorkersError(
                    f"Worker {number} (process {process.pid}) ended with exit code {code}; it has "
                    "said why. The others are stopped. What is committed stays: start again to go "
                    "on."
                )
            name = signal.Signals(-code).name
            event("worker killed", logging.WARNING, worker=number, pid=process.pid, signal=name)
            self._check_killed()

    def _check_killed(self) -> None:
        now_ms = self._clock.monotonic_ms()
        self._killed_ms.append(now_ms)
        if len(self._killed_ms) > RESTARTS_MAX and now_ms - self._killed_ms[0] < _MINUTE_MS:
            raise WorkersError(
                f"{len(self._killed_ms)} workers were killed within a minute, as happens when "
                "memory runs out: see the system's log. The others are stopped. What is committed "
                "stays."
            )


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask it to stop; it commits first."""
    process.terminate()
    try:
        async with asyncio.timeout(_GRACE_S):
            await process.wait()
    except TimeoutError:
        event("worker does not stop", logging.WARNING, pid=process.pid)
        process.kill()
        await process.wait()
