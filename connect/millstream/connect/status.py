"""What a worker knows about its connectors, in the words and the shape of Kafka Connect's REST
API.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = ["ConnectorStatus", "State", "TaskRun", "TaskStatus"]


class State(StrEnum):
    """Kafka Connect's states, and FINISHED: a run to the end (`until_end`) that has reached it."""

    UNASSIGNED = "UNASSIGNED"
    RUNNING = "RUNNING"
    RESTARTING = "RESTARTING"
    FAILED = "FAILED"
    STOPPED = "STOPPED"
    FINISHED = "FINISHED"


@dataclass(slots=True)
class TaskRun:
    """The live record of one running task; its worker alone changes it.

    `records` counts what was delivered and committed in this run, `total` what there is to deliver
    where that is known, `skipped` records that mean nothing to the connector (tombstones, say).
    """

    id: int
    state: State = State.UNASSIGNED
    trace: str = ""
    records: int = 0
    total: int | None = None
    dead_letters: int = 0
    skipped: int = 0
    retries: int = 0

    def snapshot(self) -> TaskStatus:
        """The state of this moment."""
        return TaskStatus(
            self.id,
            self.state,
            self.trace,
            self.records,
            self.dead_letters,
            self.skipped,
            self.retries,
        )


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One task at one moment. `trace` says why it failed or is being restarted."""

    id: int
    state: State
    trace: str = ""
    records: int = 0
    dead_letters: int = 0
    skipped: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """One connector at one moment, with its tasks."""

    name: str
    kind: str
    state: State
    trace: str = ""
    tasks: Sequence[TaskStatus] = field(default_factory=tuple)

    @property
    def records(self) -> int:
        """Records delivered by all tasks in this run."""
        return sum(task.records for task in self.tasks)

    @property
    def dead_letters(self) -> int:
        """Dead letters written by all tasks in this run."""
        return sum(task.dead_letters for task in self.tasks)

    def as_dict(self, worker_id: str = "") -> dict[str, Any]:
        """The shape `GET /connectors/NAME/status` answers, and the counts beside it."""
        return {
            "name": self.name,
            "type": self.kind,
            "connector": _entry(self.state, worker_id, self.trace),
            "tasks": [
                {
                    "id": task.id,
                    **_entry(task.state, worker_id, task.trace),
                    "records": task.records,
                    "dead_letters": task.dead_letters,
                    "skipped": task.skipped,
                    "retries": task.retries,
                }
                for task in self.tasks
            ],
        }


def _entry(state: State, worker_id: str, trace: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"state": str(state)}
    if worker_id:
        entry["worker_id"] = worker_id
    if trace:
        entry["trace"] = trace
    return entry
