"""A task: one sub-topology for one partition number. Synchronous but for `drain`; told the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from millstream.log.record import Headers, RecordBatch

from .errors import OnError
from .stores import KeyValueState, Store
from .topology import SubTopology, Topology

__all__ = ["OutputColumns", "Task", "TaskCounters", "TaskSettings"]


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """What an app says about the running of its tasks."""

    app_id: str
    on_error: OnError = "fail"
    on_deserialization_error: OnError = "dead_letter"
    concurrency: int = 64


@dataclass(slots=True)
class OutputColumns:
    """Records for one topic, in order, in columns."""

    topic: str
    keys: list[bytes | None]
    values: list[bytes | None]
    timestamps: list[int]
    headers: list[Headers] | None = None
    windowed_keys: bool = False
    """Keys end with an int64 window start: partition by what stands before it (`key[:-8]`)."""


@dataclass(slots=True)
class TaskCounters:
    """Counted since the task was made."""

    records: int = 0
    late: int = 0
    """Records that came after a window they fall into was closed."""
    dropped: int = 0
    """Records with a null key or value where one is needed."""
    skipped: int = 0
    """Records that failed under the policy "skip"."""
    dead_letters: int = 0


class Task:
    """One sub-topology for one partition.

    Order of use: make it when its stores are restored; `process` each batch, then `drain` if
    `has_async`; before a commit `flush`, then `take_outputs`. After a rollback make a new one.
    """

    def __init__(
        self,
        topology: Topology,
        subtopology: SubTopology,
        partition: int,
        stores: Mapping[str, Store],
        global_stores: Mapping[str, KeyValueState],
        settings: TaskSettings,
        *,
        stream_time: int = -1,
    ) -> None:
        self.id = f"{subtopology.id}_{partition}"
        self.stream_time = stream_time
        """Largest timestamp seen or advanced to, ms; -1 for none. Commit it with the offsets."""
        self.has_async = False
        self.counters = TaskCounters()

    def process(self, batch: RecordBatch) -> None:
        """Run the steps over a batch of one of the source topics.

        Raises:
            ProcessingError, SerdeError: a record failed under the policy "fail". The task's state
            is undefined: abort the transaction and make a new task.
        """
        raise AssertionError

    async def drain(self) -> None:
        """Run pending async steps, bounded and in order, and the steps behind them."""
        raise AssertionError

    def advance(self, stream_time_ms: int) -> None:
        """Move stream time forward without a record; close windows that are over. Never back."""
        raise AssertionError

    def close_windows(self) -> None:
        """Advance stream time just far enough to close every open window (the end of the input)."""
        raise AssertionError

    def flush(self) -> None:
        """Turn what is gathered between commits (partial counts) into outputs."""
        raise AssertionError

    def take_outputs(self) -> list[OutputColumns]:
        """What was sent to topics since the last call; only topics that got something."""
        raise AssertionError
