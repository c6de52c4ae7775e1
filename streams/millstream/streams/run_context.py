"""What every part of a running app needs to know about the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from millstream.log.clock import Clock, SystemClock
from millstream.log.interface import Log
from millstream.log.record import TopicPartition

from .app import App
from .progress import Progress, no_progress
from .state_dir import StateDirectory
from .topic_names import TopicNames
from .topology import Topology

__all__ = ["RunContext"]


class RunContext(NamedTuple):
    """One app on one log. The topology is built before anything else happens."""

    app: App
    app_id: str
    """Names group, transactions, changelogs and state: the app's own id, or that of a replay."""
    log: Log
    topology: Topology
    directory: StateDirectory
    names: TopicNames = TopicNames()
    limits: Mapping[TopicPartition, int] = {}
    """Offsets of input partitions (in the log's names) before which to stop, for a run to an
    end."""
    progress: Progress = no_progress
    clock: Clock = SystemClock()

    @classmethod
    def of(cls, app: App, log: Log, *, progress: Progress | None = None) -> RunContext:
        """The run of `app` on `log` under its own name, with its state where the app says.

        Raises:
            TopologyError: the app cannot run.
        """
        directory = StateDirectory.of(app.id, log.url, app.state_dir)
        return cls(app, app.id, log, app.topology(), directory, progress=progress or no_progress)
