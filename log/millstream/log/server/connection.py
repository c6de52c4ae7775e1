"""One client: frames in, responses out in the order of their requests.

A state machine without a task of its own. `_advance` runs after anything that may let it go on: a
frame came, a handler ended, the client took what was written. Each request is a task, begun when
those before it are answered, or at once where both overlap (see `handler.py`).

Bounds: requests read ahead (then the socket is not read from), bytes of one frame, bytes written
that the client has not taken (then no request is begun). A client that breaks the protocol, stops
amid a frame or takes nothing is cut off; `Server` watches the clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from millstream.log.events import event

from .decoding import MalformedRequestError
from .dispatch import Call, call_of, failure, respond
from .encoding import Buffers
from .frames import FrameReader
from .handler import Context, HangUpError, Peer

if TYPE_CHECKING:
    from .server import Server

__all__ = ["BYTES_AHEAD_MAX", "REQUESTS_AHEAD_MAX", "UNSENT_BYTES_MAX", "Connection"]

REQUESTS_AHEAD_MAX = 16
"""Of one connection, read or running. Kafka's clients send 5 (max.in.flight.requests)."""
BYTES_AHEAD_MAX = 16 << 20
"""Of requests of one connection that are read or running; one request may be larger."""
UNSENT_BYTES_MAX = 1 << 20
"""Of one connection. Beyond it nothing more is begun; one response may be larger."""


class _Running(NamedTuple):
    call: Call
    task: asyncio.Task[Buffers | None]


class Connection(asyncio.Protocol):
    """The server's end of one connection.

    Attributes:
        since: on the loop's clock, when the client last sent or took something.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._frames = FrameReader(server.request_bytes_max)
        self._waiting: deque[bytes] = deque()
        self._next: Call | None = None  # understood, and not begun
        self._running: deque[_Running] = deque()
        self._ahead_bytes = 0
        self._reads = True
        self._writable = True
        self._ends = False  # the client sends no more
        self._lost = False
        self._unsent_bytes = 0
        self.since = self._loop.time()

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        name = transport.get_extra_info("peername")
        self.peer = Peer(str(name[0]) if name else "")
        transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        if not self._server.admit(self):
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self.since = self._loop.time()
        try:
            frames = self._frames.feed(data)
        except MalformedRequestError as error:
            self._cut_off(error)
            return
        if frames:
            self._waiting.extend(frames)
            self._ahead_bytes += sum(map(len, frames))
            self._advance()

    def eof_received(self) -> bool:
        """The client sends no more; it is answered what it asked."""
        self._ends = True
        self._advance()
        return True

    def pause_writing(self) -> None:
        """The client takes less than it is sent."""
        self._writable = False
        self._unsent_bytes = self._transport.get_write_buffer_size()

    def resume_writing(self) -> None:
        """The client has taken what was sent."""
        self._writable = True
        self.since = self._loop.time()
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone. What it asked for is done all the same, unless it only reads."""
        self._lost = True
        self._waiting.clear()
        self._next = None
        self._cancel_reads()
        self._server.forget(self)

    # What the server asks

    @property
    def idle(self) -> bool:
        """Whether nothing is to do, and no frame has begun."""
        return not (self._running or self._waiting or self._next or self._frames.in_frame)

    @property
    def stuck(self) -> bool:
        """Whether the client owes something: the rest of a frame, or room for its responses."""
        if not self._writable:
            unsent_bytes = self._transport.get_write_buffer_size()
            if unsent_bytes < self._unsent_bytes:
                self._unsent_bytes, self.since = unsent_bytes, self._loop.time()
            return True
        return self._frames.in_frame and self._reads

    def abort(self) -> None:
        """Cut the connection at once."""
        self._transport.abort()

    def finish(self) -> None:
        """Take no more requests; end when those that were begun are answered."""
        self._ends = True
        self._waiting.clear()
        self._next = None
        self._pause_reading()
        self._cancel_reads()
        self._advance()

    def tasks(self) -> list[asyncio.Task[Buffers | None]]:
        """Requests that run."""
        return [each.task for each in self._running]

    # Going on

    def _advance(self) -> None:
        while self._running and self._running[0].task.done() and (self._writable or self._lost):
            self._answer(self._running.popleft())
        while self._writable and not self._lost and self._begin_next():
            pass
        if self._lost or self._transport.is_closing():
            return
        if self._ends and not self._running and not self._waiting and self._next is None:
            self._transport.close()
        elif self._is_full():
            self._pause_reading()
        elif not self._reads and not self._ends:
            self._reads = True
            self._transport.resume_reading()

    def _begin_next(self) -> bool:
        if self._next is None:
            if not self._waiting or self._transport.is_closing():
                return False
            try:
                self._next = call_of(self._waiting.popleft())
            except MalformedRequestError as error:
                self._cut_off(error)
                return False
        call = self._next
        if self._running and not (
            call.handler.overlaps and self._running[-1].call.handler.overlaps
        ):
            return False
        self._next = None
        header = call.header
        context = Context(
            self._server.broker,
            self._server.identity,
            self.peer,
            header.client_id,
            header.api_key,
            call.version,
        )
        task = self._loop.create_task(respond(call, context))
        self._running.append(_Running(call, task))
        self._server.began(task)
        task.add_done_callback(self._ended)
        return True

    def _ended(self, _task: asyncio.Task[Buffers | None]) -> None:
        self._advance()

    def _answer(self, done: _Running) -> None:
        call, task = done
        self._ahead_bytes -= call.size_bytes
        if task.cancelled():
            self._transport.close()
            return
        try:
            error = task.exception()
            if isinstance(error, HangUpError):
                raise error
            response = task.result() if error is None else failure(call, error)
        except HangUpError as error:
            self._cut_off(error)
            return
        if response is not None and not self._transport.is_closing():
            self._server.answered(call.header.api_key)
            self._transport.writelines(response)
            self.since = self._loop.time()

    def _is_full(self) -> bool:
        ahead = len(self._waiting) + len(self._running) + (self._next is not None)
        return ahead >= REQUESTS_AHEAD_MAX or self._ahead_bytes >= BYTES_AHEAD_MAX

    def _pause_reading(self) -> None:
        if self._reads and not self._transport.is_closing():
            self._reads = False
            self._transport.pause_reading()

    def _cancel_reads(self) -> None:
        for call, task in self._running:
            if call.handler.ends_with_client:
                task.cancel()

    def _cut_off(self, error: Exception) -> None:
        self._server.refused += 1
        event("connection cut off", logging.WARNING, client=self.peer.address, error=error)
        self._transport.abort()
