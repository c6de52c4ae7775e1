"""The open windows of one store: which there are, and when the next one closes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NoReturn

from .errors import SerdeError
from .nodes import FoldNode
from .stores import WindowState
from .windows import WindowSpec

__all__ = ["NEVER", "OpenWindows"]

NEVER: Final = (1 << 63) - 1
"""A stream time that is not reached."""


class OpenWindows:
    """Follows what opens and closes in one window store of one task."""

    def __init__(self, fold: FoldNode, store: WindowState) -> None:
        assert fold.window is not None
        assert fold.store.retention_ms is not None
        self.store = store
        self._spec: WindowSpec = fold.window
        self._name = fold.name
        self._retention_ms: int = fold.store.retention_ms
        self._starts = set(store.starts())

    @property
    def next_close(self) -> int:
        """Stream time at which the first of them closes; `NEVER` without any."""
        return min(self._starts, default=NEVER - self._retention_ms) + self._retention_ms

    @property
    def last_close(self) -> int:
        """Stream time at which all are closed; -1 without any."""
        return max(self._starts, default=-1 - self._retention_ms) + self._retention_ms

    def open(self, start: int) -> dict[bytes, Any]:
        """The overlay of a window that is open or opens now."""
        self._starts.add(start)
        return self.store.open(start)

    def hops(
        self, timestamp: int, now: int
    ) -> tuple[int, int, list[tuple[int, int, dict[bytes, Any]]], bool]:
        """See `fuse.environment.OpenWindows.hops`."""
        if timestamp < 0:
            self.refuse(timestamp)
        size, advance = self._spec.size_ms, self._spec.advance_ms
        starts = self._spec.starts_of(timestamp)
        # The set changes where the next window starts, or the first of these ends.
        low = max(starts[-1], starts[0] - advance + size if starts[0] else 0)
        high = min(starts[-1] + advance, starts[0] + size)
        live = [start for start in starts if start + self._retention_ms > now]
        found = [(start, start + size, self.open(start)) for start in live]
        return low, high, found, len(live) < len(starts)

    def due(self, now: int) -> Iterable[int]:
        """Starts of the windows that are over, in order."""
        return sorted(start for start in self._starts if start + self._retention_ms <= now)

    def close(self, start: int) -> None:
        """Forget a window."""
        self._starts.discard(start)
        self.store.drop(start)

    def refuse(self, timestamp: int) -> NoReturn:
        """Raise for a record without a time."""
        raise SerdeError(
            f"timestamp {timestamp} belongs to no window of {self._name!r}: produce with a "
            "timestamp, or give app.topic(..., timestamp=...)"
        )
