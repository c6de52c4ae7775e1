"""Runs an app: its worker, and the sources and sinks attached to it, as one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from millstream.log.interface import Log

from .app import App, Companion
from .internal_topics import prepare_topics
from .progress import Progress
from .run_context import RunContext
from .worker import Worker, WorkerStats

if TYPE_CHECKING:
    from .metrics import AppMetrics

__all__ = ["RunResult", "run_app", "run_attached", "run_worker_to_end"]


class RunResult(NamedTuple):
    """What a run has done."""

    stats: WorkerStats
    seconds: float
    reached_end: bool
    """Whether everything there was is processed and every window closed (`until_end` only)."""


async def run_app(
    app: App,
    *,
    log: Log | None = None,
    until_end: bool = False,
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
    metrics: AppMetrics | None = None,
) -> RunResult:
    """Run an app with its attached sources and sinks until `stop` is set, or to the end.

    With `until_end` the sources run to their end first, then the app processes what is there and
    closes its windows, then the sinks deliver it. Without, all run at once, and the first that
    fails stops the others and is raised. Stopped either way, everything processed is committed.

    Args:
        log: the log to run on; opened from `app.log_url`, and served on `app.listen`, when there is
            none.
        metrics: told which worker to ask.

    Raises:
        TopologyError: the app cannot run; nothing was touched.
        ProcessingError, SerdeError: a record failed; it is not committed, a restart reads it again.
        MillstreamError: the log, a store or a connector failed.
    """
    if log is None:
        from .app_log import open_app_log

        async with open_app_log(app) as opened:
            return await run_app(
                app, log=opened, until_end=until_end, progress=progress, stop=stop, metrics=metrics
            )
    context = RunContext.of(app, log, progress=progress)
    started = time.perf_counter()
    stop = stop or asyncio.Event()
    await prepare_topics(context)
    if until_end:
        await _together(_runs(context, app.sources, "source", until_end=True), stop)
    with context.directory.claimed() as (directory, name):
        worker = Worker(context._replace(directory=directory), name=name)
        app.attach(worker)
        if metrics is not None:
            metrics.worker = worker
        try:
            if until_end:
                reached_end = await worker.run(stop=stop, until_end=True)
                await _together(_runs(context, app.sinks, "sink", until_end=True), stop)
            else:
                reached_end = False
                await run_attached(context, worker.run(stop=stop), stop)
        finally:
            app.attach(None)
    return RunResult(worker.stats(), time.perf_counter() - started, reached_end)


async def run_worker_to_end(context: RunContext, stop: asyncio.Event) -> RunResult:
    """Run an app alone, without what is attached to it, to the end of its input."""
    started = time.perf_counter()
    with context.directory.claimed() as (directory, name):
        worker = Worker(context._replace(directory=directory), name=name)
        reached_end = await worker.run(stop=stop, until_end=True)
    return RunResult(worker.stats(), time.perf_counter() - started, reached_end)


async def run_attached(
    context: RunContext, work: Coroutine[Any, Any, object], stop: asyncio.Event
) -> None:
    """An app's work and what is attached to it, until `stop`; a companion's failure lets the work
    be committed first."""
    app = context.app
    runs = _runs(context, app.sources, "source", until_end=False)
    runs += _runs(context, app.sinks, "sink", until_end=False)
    companions = asyncio.create_task(_together(runs, stop))
    working = asyncio.create_task(work)
    try:
        await asyncio.wait([companions, working], return_when=asyncio.FIRST_COMPLETED)
        if not working.done() and companions.done() and companions.exception() is None:
            await asyncio.wait([working])  # nothing attached, or all of it has come to its end
        stop.set()
        await asyncio.wait([companions, working])
        for task in (working, companions):
            task.result()
    finally:
        for task in (working, companions):
            task.cancel()
        await asyncio.wait([working, companions])


Run = Callable[[], Coroutine[Any, Any, None]]


def _runs(
    context: RunContext, companions: Sequence[Companion], kind: str, *, until_end: bool
) -> list[Run]:
    def run(companion: Companion) -> Coroutine[Any, Any, None]:
        stage = f"{kind} {companion.name}"
        return companion.run(
            context.log, until_end=until_end, progress=partial(context.progress, stage)
        )

    return [partial(run, companion) for companion in companions]


async def _together(runs: Sequence[Run], stop: asyncio.Event) -> None:
    """All to their end, or until one fails or `stop` is set; then the others are cancelled."""
    if not runs:
        return
    tasks = [asyncio.create_task(run()) for run in runs]
    stopping = asyncio.create_task(stop.wait())
    try:
        waiting = set(tasks)
        while waiting and not stopping.done():
            done, _ = await asyncio.wait({*waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in done & waiting:
                task.result()
            waiting -= done
    finally:
        everything = [*tasks, stopping]
        for task in everything:
            task.cancel()
        await asyncio.wait(everything)
