"""What a client is still to be sent: pieces of responses, handed on a little at a time.

A transport is given copies, and no more than the client takes; the rest stays here, counted, as it
was read from the log. Copies, since from Python 3.12 on it keeps what it is given: the end of a
piece would keep all of it, counted no more.
"""

from __future__ import annotations

import asyncio
from collections import deque

from .encoding import Buffers
from .memory import ResponseMemory, due

__all__ = ["SENT_AT_ONCE_BYTES", "Outbox"]

SENT_AT_ONCE_BYTES = 64 << 10
"""What a transport is given, and may hold before it is given no more."""


class Outbox:
    """Of one connection. What is put in was counted in the memory; it is given back when sent.

    Attributes:
        size_bytes: what is in it.
        due: when it has to be empty if others wait for the room, on the loop's clock.
    """

    def __init__(self, memory: ResponseMemory) -> None:
        self._memory = memory
        self._pieces: deque[bytes] = deque()
        self._sent_bytes = 0  # of the first piece
        self.size_bytes = 0
        self.due = 0.0

    def put(self, response: Buffers, now: float) -> None:
        """Add a response."""
        size_bytes = sum(map(len, response))
        self._pieces.extend(response)
        self.size_bytes += size_bytes
        self.due = due(now, self.size_bytes)

    def send(self, transport: asyncio.WriteTransport) -> None:
        """Hand some on."""
        batch: list[bytes | memoryview] = []
        room_bytes = SENT_AT_ONCE_BYTES
        done_bytes = 0
        while self._pieces and room_bytes:
            piece = self._pieces[0]
            left_bytes = len(piece) - self._sent_bytes
            if left_bytes > room_bytes:
                batch.append(memoryview(piece)[self._sent_bytes : self._sent_bytes + room_bytes])
                self._sent_bytes += room_bytes
                self.size_bytes -= room_bytes
                break
            batch.append(memoryview(piece)[self._sent_bytes :] if self._sent_bytes else piece)
            room_bytes -= left_bytes
            self.size_bytes -= left_bytes
            done_bytes += len(piece)
            self._sent_bytes = 0
            self._pieces.popleft()
        # Not `writelines`: from Python 3.12 on an empty piece at the end is never done with there,
        # and some releases never say that it is too much (CVE-2024-12254).
        transport.write(b"".join(batch))
        if done_bytes:
            self._memory.gave_back(done_bytes)

    def clear(self) -> None:
        """Nothing of it will be sent."""
        if self._pieces:
            size_bytes = sum(map(len, self._pieces))
            self._pieces.clear()
            self.size_bytes = self._sent_bytes = 0
            self._memory.gave_back(size_bytes)
