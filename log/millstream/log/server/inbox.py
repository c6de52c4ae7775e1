"""What a client has asked and is not answered: requests that have begun, wait or run.

Bounds: of one connection here, of all together in `memory.py`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from .frames import LENGTH_SIZE_BYTES, FrameReader
from .memory import RequestMemory, due

__all__ = ["BYTES_AHEAD_MAX", "REQUESTS_AHEAD_MAX", "Inbox"]

REQUESTS_AHEAD_MAX = 16
"""Of one connection, read or running. Kafka's clients send 5 (max.in.flight.requests)."""
BYTES_AHEAD_MAX = 16 << 20
"""Of requests of one connection that are read or running; one request may be larger."""


class Inbox:
    """Of one connection.

    Args:
        resume: called, soon, when there is memory for a request that had to wait for it.

    Attributes:
        frames: makes requests of bytes.
        waiting: requests that are whole and not begun.
    """

    def __init__(
        self, memory: RequestMemory, size_bytes_max: int, resume: Callable[[], None]
    ) -> None:
        self._memory = memory
        self._resume = resume
        self._loop = asyncio.get_running_loop()
        self.frames = FrameReader(size_bytes_max)
        self.waiting: deque[bytes] = deque()
        self._whole_bytes = 0  # waiting or running
        self._held_bytes = 0  # counted in the memory
        self._turn_due = 0.0

    @property
    def missing_bytes(self) -> int:
        """Of the request that is not whole."""
        return self.frames.missing_bytes

    @property
    def holds_up(self) -> bool:
        """Whether others wait for memory, and the client has its turn for longer than it may."""
        memory = self._memory
        return memory.waiting > 0 and memory.has_turn(self) and self._loop.time() >= self._turn_due

    def feed(self, data: bytes) -> bool:
        """Take bytes. Whether there is anything to do now.

        Raises:
            MalformedRequestError: these are no requests.
        """
        frames = self.frames.feed(data)
        self._held_bytes += len(data)
        self._memory.took(self, len(data))
        if not frames:
            return self._memory.is_tight
        self._memory.whole(self)
        self.waiting.extend(frames)
        self._whole_bytes += sum(map(len, frames))
        return True

    def may_read(self, ahead: int, ahead_max: int) -> bool:
        """Whether the client may send more.

        Args:
            ahead: its requests that wait or run.
            ahead_max: how many there may be.
        """
        if ahead >= ahead_max or self._whole_bytes >= BYTES_AHEAD_MAX:
            return False
        if self.missing_bytes:
            return self._memory.may_read(self)
        return not (ahead and self._memory.is_tight)

    def go_on(self) -> None:
        """There is memory for the rest of the request."""
        self._turn_due = due(self._loop.time(), self.missing_bytes)
        self._loop.call_soon(self._resume)

    def answered(self, size_bytes: int) -> None:
        """A request of this size needs no memory any more."""
        self._whole_bytes -= size_bytes
        self._give_back(size_bytes + LENGTH_SIZE_BYTES)

    def clear(self) -> None:
        """What was not begun will not be; nothing more is read."""
        self.waiting.clear()
        self._memory.forget(self)

    def close(self, running: int, running_bytes: int) -> None:
        """As `clear`, and all but so many requests that run is given back."""
        self.clear()
        self._give_back(self._held_bytes - running_bytes - running * LENGTH_SIZE_BYTES)

    def _give_back(self, size_bytes: int) -> None:
        self._held_bytes -= size_bytes
        self._memory.gave_back(self, size_bytes)
