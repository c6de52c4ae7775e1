"""One client: frames in, responses out in the order of their requests.

A state machine without a task of its own. `_advance` runs after anything that may let it go on: a
frame came, a handler ended, the client took what was written. Each request is a task, begun when
those before it are answered, or at once where both overlap (see `handler.py`).

Bounds: requests read ahead (then the socket is not read from), bytes of one frame, bytes written
that the client has not taken (then no request is begun). A client that breaks the protocol, stops
amid a frame or takes nothing is cut off; `Server` watches the clock.

On a listener with TLS the handshake comes first, on one with SASL the login (`login.py`): until it
is done, one request at a time is read, and few kinds are answered.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from millstream.log.events import event
from millstream.log.security.tls import principal_of

from .decoding import MalformedRequestError
from .dispatch import LOGIN_APIS, Call, call_of, failure, respond, token_call
from .encoding import Buffers
from .frames import HEADER_SIZE_BYTES, FrameReader, parse_header
from .handler import Context, HangUpError, Peer
from .login import Login

if TYPE_CHECKING:
    from .server import Listener, Server

__all__ = ["BYTES_AHEAD_MAX", "REQUESTS_AHEAD_MAX", "UNSENT_BYTES_MAX", "Connection"]

HANDSHAKE_S = 30.0
"""How long a TLS handshake may take, and the goodbye of TLS."""

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
        begun: on the loop's clock, when the client came.
        since: when it last sent or took something.
    """

    def __init__(self, server: Server, listener: Listener) -> None:
        self._server = server
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._handshake: asyncio.Task[None] | None = None
        self._early = b""  # what came before the end of the handshake was noticed
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
        self._muted: asyncio.TimerHandle | None = None
        self.begun = self.since = self._loop.time()

    # What asyncio tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client is there."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        name = transport.get_extra_info("peername")
        self.peer = Peer(str(name[0]) if name else "", self._server.authorizer, self._server.quotas)
        if self._server.logins is not None and self._listener.at.protocol.sasl:
            self.peer.login = Login(self._server.logins, self.peer)
            self._frames.size_bytes_max = self._server.logins.config.sasl_server_max_receive_size
        transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        if not self._server.admit(self):
            transport.abort()
        elif self._listener.tls is not None:
            transport.pause_reading()
            self._handshake = self._loop.create_task(self._secure(self._listener.tls))

    async def _secure(self, context: ssl.SSLContext) -> None:
        """The handshake of TLS. Its end is what this connection begins with."""
        try:
            secured = await self._loop.start_tls(
                self._transport,
                self,
                context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=HANDSHAKE_S,
            )
        except OSError as error:  # an SSLError is one
            self._cut_off(error)
            self.connection_lost(None)
            return
        finally:
            self._handshake = None
        if secured is None or self._lost:
            self.connection_lost(None)
            return
        self._transport = secured
        secured.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        principal = principal_of(secured.get_extra_info("peercert"))
        if principal is not None and self.peer.login is None:
            self.peer.principal = principal
        early, self._early = self._early, b""
        self.data_received(early)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._handshake is not None:
            self._early += data
            return
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
        if self._listener.tls is not None:
            return False  # TLS has no half of a connection
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
        if self._muted is not None:
            self._muted.cancel()
        self._waiting.clear()
        self._next = None
        self._cancel_reads()
        self._server.forget(self)

    # What the server asks

    @property
    def idle(self) -> bool:
        """Whether nothing is to do, and no frame has begun."""
        busy = self._running or self._waiting or self._next or self._muted
        return not (busy or self._frames.in_frame)

    @property
    def is_known(self) -> bool:
        """Whether the client has shown who it is, where it has to."""
        return self.peer.login is None or self.peer.login.principal is not None

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
        if self._muted is not None:
            return False
        if self._next is None:
            if not self._waiting or self._transport.is_closing() or self._logs_in():
                return False
            try:
                self._next = self._understood(self._waiting.popleft())
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
            self._listener.identity,
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

    def _logs_in(self) -> bool:
        """Whether what comes next has to wait for the end of a login's request."""
        login = self.peer.login
        if login is None or not self._running:
            return False
        return login.principal is None or self._running[-1].call.header.api_key in LOGIN_APIS

    def _understood(self, frame: bytes) -> Call:
        """Raises MalformedRequestError, also for what may not be asked yet, or not any more."""
        login = self.peer.login
        if login is not None:
            if login.raw:
                return token_call(frame)
            api_key = parse_header(frame).api_key
            if api_key not in LOGIN_APIS and not login.holds():
                raise MalformedRequestError(f"API {api_key} without a login that holds.")
        return call_of(frame)

    def _login_went_on(self, login: Login) -> None:
        """A request was answered: was it a login's, other limits may hold now."""
        self._frames.size_bytes_min = 0 if login.raw else HEADER_SIZE_BYTES
        if login.principal is not None:
            self._frames.size_bytes_max = self._server.request_bytes_max
        if login.failed:
            self._ends = True
            self._waiting.clear()
            self._next = None
            self._pause_reading()

    def _mute(self, throttle_s: float) -> None:
        """The client went too fast: for so long nothing more is begun or read (KIP-219)."""
        until = self._loop.time() + throttle_s
        if self._muted is not None:
            until = max(until, self._muted.when())
            self._muted.cancel()
        self._muted = self._loop.call_at(until, self._unmute)

    def _unmute(self) -> None:
        self._muted = None
        self.since = self._loop.time()
        self._advance()

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
        if self.peer.throttle_s:
            self._mute(self.peer.throttle_s)
            self.peer.throttle_s = 0.0
        if self.peer.login is not None and call.header.api_key in LOGIN_APIS:
            self._login_went_on(self.peer.login)

    def _is_full(self) -> bool:
        ahead = len(self._waiting) + len(self._running) + (self._next is not None)
        ahead_max = REQUESTS_AHEAD_MAX if self.is_known else 1
        return self._muted is not None or ahead >= ahead_max or self._ahead_bytes >= BYTES_AHEAD_MAX

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
