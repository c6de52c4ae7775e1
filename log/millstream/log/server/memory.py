"""What the requests and the responses of all connections together may take.

Requests: bytes are counted as they come and given back when a request is answered, or begins to
wait for other clients. When there is no more room, a connection amid a request is not read from: it
waits for its turn, in order. Whoever has it may read the rest of its request; one for which there
will never be room has its turn alone, so the bound may be exceeded by one request, and by what one
read brings of each connection (256 KiB). Small requests of others, which come in one read, are
answered meanwhile.

Responses: what is read to be sent is counted until a client has taken it. A fetch waits for its
turn before it reads, and then reads a part of what is free, so that one who takes slowly leaves
something for others; a batch comes whole, so the bound may be exceeded by one. It waits without
holding anything, and never longer than clients do. Nothing that gives room back waits here.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

__all__ = ["RequestMemory", "ResponseMemory", "due"]

TURN_WAIT_S = 10.0
"""How long a fetch waits for its turn. Then it is answered without records, and comes again:
clients wait 30 s for an answer."""
READ_BYTES_MIN = 1 << 20
"""What a fetch may read at its turn, where so much is free."""
SHARE = 4
"""A fetch may read this part of what is free."""
GRACE_S = 30.0
RATE_BYTES_MIN = 64 << 10


def due(now: float, size_bytes: int) -> float:
    """When somebody for whom others wait has to be done: 30 s, and as long as 64 KiB/s take."""
    return now + GRACE_S + size_bytes / RATE_BYTES_MIN


class Reader(Protocol):
    """A connection amid a request."""

    @property
    def missing_bytes(self) -> int:
        """Of the request."""
        ...

    def go_on(self) -> None:
        """It may read them."""
        ...


class RequestMemory:
    """Bytes of requests, those of which a part has come among them.

    Attributes:
        used_bytes: by all connections.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.used_bytes = 0
        self._waiting: dict[Reader, None] = {}
        self._turns: dict[Reader, int] = {}  # bytes that each may still read
        self._promised_bytes = 0
        self._alone: Reader | None = None  # has its turn though it does not fit

    @property
    def waiting(self) -> int:
        """Connections that wait for their turn."""
        return len(self._waiting)

    @property
    def is_tight(self) -> bool:
        """Whether connections have to ask before they read on."""
        return bool(self._waiting) or self.used_bytes >= self._bytes_max

    def has_turn(self, reader: Reader) -> bool:
        """Whether others may be waiting for this one."""
        return reader in self._turns

    def took(self, reader: Reader, size_bytes: int) -> None:
        """So many bytes came."""
        self.used_bytes += size_bytes
        left_bytes = self._turns.get(reader)
        if left_bytes is not None:
            read_bytes = min(size_bytes, left_bytes)
            self._turns[reader] = left_bytes - read_bytes
            self._promised_bytes -= read_bytes

    def may_read(self, reader: Reader) -> bool:
        """Whether one amid a request may read on. If not, it is told when."""
        if reader in self._turns:
            return True
        if reader not in self._waiting:
            if not self.is_tight:
                return True
            self._waiting[reader] = None
        self._next()
        return reader in self._turns

    def whole(self, reader: Reader) -> None:
        """The request of one that may have had its turn is there."""
        if reader in self._turns:
            self._promised_bytes -= self._turns.pop(reader)
            self._next()

    def gave_back(self, reader: Reader, size_bytes: int) -> None:
        """A request was answered."""
        self.used_bytes -= size_bytes
        if self._alone is reader and reader not in self._turns:
            self._alone = None
        self._next()

    def forget(self, reader: Reader) -> None:
        """It reads no more."""
        self._waiting.pop(reader, None)
        self._promised_bytes -= self._turns.pop(reader, 0)
        if self._alone is reader:
            self._alone = None
        self._next()

    def _next(self) -> None:
        while self._waiting:
            reader = next(iter(self._waiting))
            missing_bytes = reader.missing_bytes
            if self.used_bytes + self._promised_bytes + missing_bytes > self._bytes_max:
                if self._turns or self._alone is not None:
                    return
                self._alone = reader
            del self._waiting[reader]
            self._turns[reader] = missing_bytes
            self._promised_bytes += missing_bytes
            reader.go_on()


class ResponseMemory:
    """Bytes of responses that clients have not taken.

    Attributes:
        used_bytes: of all connections.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.used_bytes = 0
        self._waiting: dict[asyncio.Future[bool], None] = {}
        self._turn: asyncio.Future[bool] | None = None

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._waiting)

    def took(self, size_bytes: int) -> None:
        """So many bytes are to be sent."""
        self.used_bytes += size_bytes

    def gave_back(self, size_bytes: int) -> None:
        """So many bytes were sent, or never will be."""
        self.used_bytes -= size_bytes
        self._next()

    async def turn(self) -> int:
        """Wait until something may be read; how many bytes, 0 where there was no room in time. What
        is read has to be counted before the next await."""
        if (self._waiting or self._turn or self._free_bytes <= 0) and not await self._turn_came():
            return 0
        return min(self._free_bytes, max(self._free_bytes // SHARE, READ_BYTES_MIN))

    @property
    def _free_bytes(self) -> int:
        return self._bytes_max - self.used_bytes

    async def _turn_came(self) -> bool:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        self._waiting[future] = None
        self._next()
        timer = loop.call_later(TURN_WAIT_S, _end, future)
        try:
            return await future and self._free_bytes > 0
        finally:
            timer.cancel()
            self._waiting.pop(future, None)
            if self._turn is future:
                self._turn = None
                loop.call_soon(self._next)  # when this one has read

    def _next(self) -> None:
        if self._turn is None and self._free_bytes > 0 and self._waiting:
            self._turn = next(iter(self._waiting))
            del self._waiting[self._turn]
            _end(self._turn, came=True)


def _end(future: asyncio.Future[bool], *, came: bool = False) -> None:
    if not future.done():
        future.set_result(came)
