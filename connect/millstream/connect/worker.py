"""Runs connectors in this process: each task of each connector is an asyncio task owned here.

A failed task fails its connector: the connector's other tasks are stopped, the failure is kept in
the status with its trace, and the other connectors go on. As in Kafka Connect, a failed connector
is not started again by itself.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Sequence
from typing import Any, Protocol

from millstream.log import InvalidProducerEpochError, Log, MillstreamError, ProducerFencedError

from .api import Connector, SinkConnector, SourceConnector, TaskConfig
from .config import ConnectorConfig
from .errors import (
    ConfigFault,
    ConnectConfigError,
    ConnectorFailedError,
    ConnectorFencedError,
    FatalConnectError,
)
from .records import Progress
from .sink_worker import SinkTaskWorker
from .source_worker import SourceTaskWorker
from .status import ConnectorStatus, State, TaskRun

__all__ = ["ConnectorRun", "Worker", "run_connector"]

logger = logging.getLogger("millstream.connect")


class _TaskWorker(Protocol):
    async def run(self) -> None: ...


async def run_connector(
    connector: Connector[ConnectorConfig],
    log: Log,
    *,
    until_end: bool,
    progress: Progress | None = None,
) -> None:
    """Run one connector; see `Connector.run`."""
    await ConnectorRun(connector, log, until_end=until_end, progress=progress).run()


class ConnectorRun:
    """One run of one connector: its tasks and their state."""

    def __init__(
        self,
        connector: Connector[ConnectorConfig],
        log: Log,
        *,
        until_end: bool,
        progress: Progress | None = None,
    ) -> None:
        self.connector = connector
        self._log = log
        self._until_end = until_end
        self._progress = progress
        self._configs = connector.task_configs(connector.config.tasks_max)
        self._runs = [TaskRun(number) for number in range(len(self._configs))]

    async def run(self) -> None:
        """Run all tasks until they end; the first failure stops the others and is raised."""
        jobs = [
            asyncio.create_task(
                self._run_task(task_config, run), name=f"connect-{self.connector.name}-{run.id}"
            )
            for task_config, run in zip(self._configs, self._runs, strict=True)
        ]
        try:
            await asyncio.wait(jobs, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for job in jobs:
                job.cancel()
            results = await asyncio.gather(*jobs, return_exceptions=True)
        for error in results:
            if isinstance(error, BaseException) and not isinstance(error, asyncio.CancelledError):
                raise error

    async def _run_task(self, task_config: TaskConfig, run: TaskRun) -> None:
        try:
            await self._task_worker(task_config, run).run()
        except asyncio.CancelledError:
            run.state = State.STOPPED
            raise
        except (ProducerFencedError, InvalidProducerEpochError) as error:
            fenced = ConnectorFencedError(
                f"connector {self.connector.name!r} task {run.id} was taken over by another worker "
                f"that runs a connector of this name ({error}); stop one of them, or rename it"
            )
            self._failed(run, fenced)
            raise fenced from error
        except MillstreamError as error:
            self._failed(run, error)
            raise
        except Exception as error:  # the one place that stands around connectors' own code
            self._failed(run, error)
            raise FatalConnectError(
                f"connector {self.connector.name!r} task {run.id} failed: "
                f"{type(error).__name__}: {error}. What it had delivered is committed; a restart "
                "goes on behind it."
            ) from error
        run.state = State.FINISHED
        run.trace = ""

    def _failed(self, run: TaskRun, error: Exception) -> None:
        run.state = State.FAILED
        run.trace = "".join(traceback.format_exception(error))

    def _task_worker(self, task_config: TaskConfig, run: TaskRun) -> _TaskWorker:
        connector: Any = self.connector
        if isinstance(connector, SourceConnector):
            return SourceTaskWorker(
                connector,
                task_config,
                self._log,
                run,
                until_end=self._until_end,
                progress=self._report,
            )
        assert isinstance(connector, SinkConnector)
        return SinkTaskWorker(
            connector,
            task_config,
            self._log,
            run,
            tasks_count=len(self._configs),
            until_end=self._until_end,
            progress=self._report,
        )

    def _report(self, _records: int, _total: int | None) -> None:
        """Tasks tell their own counts; the connector's are their sums."""
        if self._progress is not None:
            totals = [run.total for run in self._runs]
            known = [total for total in totals if total is not None]
            total = sum(known) if len(known) == len(totals) else None
            self._progress(sum(run.records for run in self._runs), total)

    def status(self) -> ConnectorStatus:
        """State and counts of this moment."""
        tasks = tuple(run.snapshot() for run in self._runs)
        failed = [task for task in tasks if task.state is State.FAILED]
        states = {task.state for task in tasks}
        if failed:
            state, trace = State.FAILED, failed[0].trace
        elif len(states) == 1:
            state, trace = states.pop(), ""
        else:
            state, trace = State.RUNNING, ""
        return ConnectorStatus(self.connector.name, self.connector.kind, state, trace, tasks)


class Worker:
    """Runs several connectors on one log.

    Raises (when made):
        ConnectConfigError: two connectors have one name; each would fence the other.
    """

    def __init__(
        self, log: Log, connectors: Sequence[Connector[ConnectorConfig]], *, until_end: bool
    ) -> None:
        names = [connector.name for connector in connectors]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            reason = "is the name of more than one connector of this worker; rename one"
            raise ConnectConfigError([ConfigFault(name, "name", reason) for name in twice])
        self._runs = [ConnectorRun(connector, log, until_end=until_end) for connector in connectors]
        self._until_end = until_end
        self._errors: dict[str, MillstreamError] = {}

    async def run(self) -> None:
        """Run until every connector has ended or failed, or until cancelled.

        With `until_end` sources run to their end before sinks begin, so that what came in also
        goes out.

        Raises:
            ConnectorFailedError: connectors failed; the others were run to their end.
        """
        if self._until_end:
            await self._run_all([run for run in self._runs if run.connector.kind == "source"])
            await self._run_all([run for run in self._runs if run.connector.kind == "sink"])
        else:
            await self._run_all(self._runs)
        if self._errors:
            message = "\n".join(str(error) for error in self._errors.values())
            raise ConnectorFailedError(message, names=tuple(self._errors))

    async def _run_all(self, runs: Sequence[ConnectorRun]) -> None:
        jobs = [asyncio.create_task(self._run_one(run)) for run in runs]
        try:
            await asyncio.gather(*jobs)
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)

    async def _run_one(self, run: ConnectorRun) -> None:
        try:
            await run.run()
        except MillstreamError as error:
            logger.error("connector %s failed: %s", run.connector.name, error)
            self._errors[run.connector.name] = error

    def status(self) -> list[ConnectorStatus]:
        """State and counts of every connector at this moment."""
        return [run.status() for run in self._runs]
