"""What generated code takes from the task it runs in."""

from __future__ import annotations

from typing import Any, NoReturn, Protocol

from millstream.log.record import Headers, Record
from millstream.streams.counters import TaskCounters
from millstream.streams.nodes import AsyncNode, CountPartsNode
from millstream.streams.stores import KeyValueState, WindowState

from .code import Program

__all__ = ["Buffer", "CountParts", "Environment", "OpenWindows", "PendingCall"]

PendingCall = tuple[Any, bytes | None, int, int, Headers, tuple[Any, ...]]
"""An async step to come: the call, key, timestamp, stream time, headers, the record as read."""


class Buffer(Protocol):
    """The records for one topic, in columns."""

    keys: list[bytes | None]
    values: list[bytes | None]
    timestamps: list[int]

    def with_headers(self) -> list[Headers]:
        """The column of headers, made even with the others."""
        ...


class CountParts(Protocol):
    """Counts since the last flush, by key object or key bytes."""

    counts: dict[Any, int]
    timestamp: int
    """The largest timestamp of what was counted."""


class OpenWindows(Protocol):
    """The open windows of one store of one task."""

    store: WindowState

    def refuse(self, timestamp: int) -> NoReturn:
        """Raise a SerdeError: a time before the epoch, that is none."""
        ...

    def open(self, start: int) -> dict[bytes, Any]:
        """The overlay of a window that is open or opens now."""
        ...

    def hops(
        self, timestamp: int, now: int
    ) -> tuple[int, int, list[tuple[int, int, dict[bytes, Any]]], bool]:
        """The hopping windows of a time: as long as `low <= timestamp < high` they are the same.

        Returns:
            low, high, the open ones as (start, end, overlay), whether some are over already.

        Raises:
            SerdeError: a time before the epoch.
        """
        ...


class Environment(Protocol):
    """One task, as its programs see it."""

    partition: int
    counters: TaskCounters

    @property
    def next_close(self) -> int:
        """Stream time at which the next window closes."""
        ...

    def failed(self, program: Program, error: Exception, record: Record) -> None:
        """Apply the error policy to a record; returns when the next one may follow.

        Raises:
            ProcessingError, SerdeError: the policy is "fail".
        """
        ...

    def close_due(self, now: int) -> int:
        """Close what is over by now; answers the new `next_close`."""
        ...

    def buffer(self, topic: str, windowed_keys: bool) -> Buffer: ...
    def pending(self, node: AsyncNode) -> list[PendingCall]: ...
    def parts(self, node: CountPartsNode, as_objects: bool) -> CountParts: ...
    def key_value_store(self, name: str) -> KeyValueState: ...
    def open_windows(self, name: str) -> OpenWindows: ...
