"""Windows of event time: what a record falls into, when a window is over.

Times are milliseconds. A window is [start, end): its start belongs to it, its end does not. Windows
are aligned to the epoch, whatever record came first (Kafka Streams, TimeWindows), and never start
before it.

A window takes records until stream time reaches `end + grace`; then it is closed, its final result
is sent, and what comes later for it is late.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, NamedTuple, TypeVar

from .errors import TopologyError

__all__ = ["Duration", "Window", "WindowSpec", "Windowed", "duration_ms", "hopping", "tumbling"]

K = TypeVar("K")

Duration = int | str | timedelta
"""Milliseconds, a text such as "250ms", "30s", "5m", "1h", "1d", "1h30m", or a timedelta."""

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PARTS = re.compile(r"(\d+)(ms|[smhdw])")


def duration_ms(duration: Duration) -> int:
    """Milliseconds of a duration.

    Raises:
        TopologyError: not a duration, or negative.
    """
    if isinstance(duration, timedelta):
        value = duration // timedelta(milliseconds=1)
    elif isinstance(duration, str):
        text = duration.replace(" ", "")
        if not re.fullmatch(f"({_PARTS.pattern})+", text):
            raise TopologyError(
                f'{duration!r} is not a duration: write "250ms", "30s", "5m", "1h", "1d" or "1h30m"'
            )
        value = sum(int(count) * _UNIT_MS[unit] for count, unit in _PARTS.findall(text))
    else:
        value = duration
    if value < 0:
        raise TopologyError(f"a duration cannot be negative: {duration!r}")
    return value


def _utc(time_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)


class Window(NamedTuple):
    """One window: [start, end) in milliseconds since the Unix epoch."""

    start: int
    end: int

    @property
    def start_time(self) -> datetime:
        """The start as a UTC datetime."""
        return _utc(self.start)

    @property
    def end_time(self) -> datetime:
        """The end, exclusive, as a UTC datetime."""
        return _utc(self.end)


@dataclass(frozen=True, slots=True)
class Windowed(Generic[K]):
    """The key of a windowed result: a key in one window.

    On a topic it is Kafka's layout: the bytes of the key, then the start as a big-endian int64.
    """

    key: K
    start: int
    end: int

    @property
    def window(self) -> Window:
        """The window alone."""
        return Window(self.start, self.end)


@dataclass(frozen=True, slots=True)
class WindowSpec:
    """Windows of `size_ms`, a new one every `advance_ms`, open `grace_ms` past their end."""

    size_ms: int
    advance_ms: int
    grace_ms: int = 0

    def starts_of(self, timestamp: int) -> range:
        """Starts of all windows a record of this time falls into, in order.

        Source: TimeWindows.windowsFor of Kafka Streams; reference 4.2.
        """
        first = max(0, timestamp - self.size_ms + self.advance_ms)
        first -= first % self.advance_ms
        return range(first, timestamp + 1, self.advance_ms)


def tumbling(size: Duration, *, grace: Duration = 0) -> WindowSpec:
    """Windows that follow each other without gap: every record falls into exactly one."""
    return hopping(size, advance=size, grace=grace)


def hopping(size: Duration, *, advance: Duration, grace: Duration = 0) -> WindowSpec:
    """Windows of one size that start every `advance`: a record falls into size / advance of them.

    Raises:
        TopologyError: the size is not positive, or the advance is not within (0, size].
    """
    size_ms, advance_ms = duration_ms(size), duration_ms(advance)
    if size_ms <= 0:
        raise TopologyError(f"the size of a window must be positive, not {size!r}")
    if not 0 < advance_ms <= size_ms:
        raise TopologyError(
            f"a hopping window advances by more than 0 and at most its size ({size!r}), "
            f"not by {advance!r}"
        )
    return WindowSpec(size_ms, advance_ms, duration_ms(grace))
