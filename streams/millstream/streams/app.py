"""The app: what its functions read and write. Registers only; running it is the worker's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

from millstream.log.interface import Log

from .errors import OnError
from .task import TaskSettings
from .topology import Topology
from .windows import Duration, duration_ms

__all__ = ["App", "Companion"]

Guarantee = Literal["exactly_once", "at_least_once"]


class Companion(Protocol):
    """A connector that runs inside an app's process.

    A source with `until_end` returns when its input is exhausted; a sink when it has delivered what
    was in its topics when `run` was called. Without it both run until cancelled.
    """

    name: str

    async def run(
        self,
        log: Log,
        *,
        until_end: bool,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> None: ...


class App:
    """A stream app."""

    def __init__(
        self,
        id: str,  # noqa: A002 - Kafka's application.id
        *,
        log: str | None = None,
        guarantee: Guarantee = "exactly_once",
        commit_interval_ms: int = 100,
        idle_timeout: Duration | None = "30s",
        on_error: OnError = "fail",
        on_deserialization_error: OnError = "dead_letter",
        concurrency: int = 64,
        state_dir: str | Path | None = None,
    ) -> None:
        self.id = id
        self.log = log
        self.guarantee: Guarantee = guarantee
        self.commit_interval_ms = commit_interval_ms
        self.idle_timeout_ms = None if idle_timeout is None else duration_ms(idle_timeout)
        self.settings = TaskSettings(id, on_error, on_deserialization_error, concurrency)
        self.state_dir = None if state_dir is None else Path(state_dir)
        """None: `<folder of a file: log>/state`, chosen by the worker."""
        self.sources: list[Companion] = []
        self.sinks: list[Companion] = []

    @property
    def log_url(self) -> str:
        """`log`, else $MILLSTREAM_LOG, else file:./millstream-data."""
        return self.log or os.environ.get("MILLSTREAM_LOG") or "file:./millstream-data"

    def topology(self) -> Topology:
        """The topology as registered so far.

        Raises:
            TopologyError: it cannot run; the message says why.
        """
        raise AssertionError
