"""One client: frames in, responses out in the order of their requests.

A state machine without a task of its own. `_advance` runs after anything that may let it go on: a
frame came, a handler ended, the client took what was written. Each request is a task, begun when
those before it are answered, or at once where both overlap (see `handler.py`).

Bounds: requests read ahead (then the socket is not read from), bytes of one frame, bytes written
that the client has not taken (then no request is begun); and, for all connections together, the
memory (`memory.py`). A client that breaks the protocol, stops amid a frame or takes nothing is cut
off; `Server` watches the clock.

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
from .dispatch import LARGE_ANSWERS, LOGIN_APIS, Call, failure, respond, understood
from .encoding import Buffers
from .frames import HEADER_SIZE_BYTES
from .handler import Context, HangUpError, Peer
from .inbox import REQUESTS_AHEAD_MAX, Inbox
from .login import Login
from .outbox import SENT_AT_ONCE_BYTES, Outbox

if TYPE_CHECKING:
    from .server import Listener, Server

__all__ = ["Connection"]

HANDSHAKE_S = 30.0
"""How long a TLS handshake may take, and the goodbye of TLS."""

SENT_IN_A_TURN = 16
"""Pieces of a response handed to the network before others have their turn."""


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
        self._inbox = Inbox(server.requests, server.request_bytes_max, self._advance)
        self._next: Call | None = None  # understood, and not begun
        self._running: deque[_Running] = deque()
        self._outbox = Outbox(server.responses)
        self._reads = True
        self._takes = True  # what it is sent
        self._ends = False  # nothing more is begun
        self._discards = False
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
            config = self._server.logins.config
            self._inbox.frames.size_bytes_max = config.sasl_server_max_receive_size
        transport.set_write_buffer_limits(high=SENT_AT_ONCE_BYTES)
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
        secured.set_write_buffer_limits(high=SENT_AT_ONCE_BYTES)
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
        if self._discards:
            return
        self.since = self._loop.time()
        try:
            is_to_do = self._inbox.feed(data)
        except MalformedRequestError as error:
            self._cut_off(error)
            return
        if is_to_do:
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
        self._takes = False

    def resume_writing(self) -> None:
        """The client has taken what was sent."""
        self._takes = True
        self.since = self._loop.time()
        self._send()
        self._advance()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone. What it asked for is done all the same, unless it only reads."""
        self._lost = True
        if self._muted is not None:
            self._muted.cancel()
        self._next = None
        self._outbox.clear()
        held = [each.call.size_bytes for each in self._running if not each.call.handler.waits]
        self._inbox.close(len(held), sum(held))
        self._cancel_reads()
        self._server.forget(self)
        self._advance()  # what has ended and could not be sent is given back

    # What the server asks

    @property
    def idle(self) -> bool:
        """Whether nothing is to do, and no frame has begun."""
        busy = self._running or self._next or self._muted or self._outbox.size_bytes
        return not (busy or self._inbox.waiting or self._inbox.frames.in_frame)

    @property
    def is_known(self) -> bool:
        """Whether the client has shown who it is, where it has to."""
        return self.peer.login is None or self.peer.login.principal is not None

    @property
    def stuck(self) -> bool:
        """Whether the client owes something: the rest of a frame, or room for its responses."""
        if not self._writable:
            unsent_bytes = self._outbox.size_bytes + self._transport.get_write_buffer_size()
            if unsent_bytes < self._unsent_bytes:
                self.since = self._loop.time()
            self._unsent_bytes = unsent_bytes
            return True
        return self._inbox.frames.in_frame and self._reads

    @property
    def holds_up(self) -> bool:
        """Whether others wait for memory that the client keeps for longer than it may."""
        box = self._outbox
        if self._server.responses.waiting and box.size_bytes and self._loop.time() >= box.due:
            return True
        return self._inbox.holds_up

    def abort(self) -> None:
        """Cut the connection at once."""
        self._transport.abort()

    def finish(self) -> None:
        """Take no more requests; end when those that were begun are answered."""
        self._take_no_more()
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
        busy = self._running or self._inbox.waiting or self._next or not self._writable
        if self._ends and not busy:
            self._transport.close()
        elif self._is_full():
            self._pause_reading()
        elif not self._reads and not self._ends:
            self._resume_reading()

    def _begin_next(self) -> bool:
        if self._muted is not None:
            return False
        if self._next is None:
            if not self._inbox.waiting or self._transport.is_closing() or self._logs_in():
                return False
            try:
                self._next = understood(self._inbox.waiting.popleft(), self.peer.login)
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
            self._server.responses.turn,
        )
        task = self._loop.create_task(self._responded(call, context))
        self._running.append(_Running(call, task))
        self._server.began(task)
        task.add_done_callback(lambda _task: self._advance())
        if call.handler.waits:
            self._inbox.answered(call.size_bytes)  # others would wait as long as it likes
        return True

    async def _responded(self, call: Call, context: Context) -> Buffers | None:
        """The response, counted in the same step that made it."""
        if call.header.api_key in LARGE_ANSWERS:
            await self._server.responses.turn()
        response = await respond(call, context)
        if response is not None:
            self._server.responses.took(sum(map(len, response)))
        return response

    def _logs_in(self) -> bool:
        """Whether what comes next has to wait for the end of a login's request."""
        login = self.peer.login
        if login is None or not self._running:
            return False
        return login.principal is None or self._running[-1].call.header.api_key in LOGIN_APIS

    def _login_went_on(self, login: Login) -> None:
        """A request was answered: was it a login's, other limits may hold now."""
        self._inbox.frames.size_bytes_min = 0 if login.raw else HEADER_SIZE_BYTES
        if login.principal is not None:
            self._inbox.frames.size_bytes_max = self._server.request_bytes_max
        if login.failed:
            self._take_no_more()

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

    def _answer(self, done: _Running) -> None:
        call, task = done
        if not call.handler.waits:
            self._inbox.answered(call.size_bytes)
        if task.cancelled():
            self._transport.close()
            return
        try:
            response = self._response(call, task)
        except HangUpError as error:
            self._cut_off(error)
            return
        if response is not None:
            self._outbox.put(response, self._loop.time())
            if self._lost or self._transport.is_closing():
                self._outbox.clear()
            else:
                self._server.answered(call.header.api_key)
                self.since = self._loop.time()
                self._send()
        if self.peer.throttle_s:
            self._mute(self.peer.throttle_s)
            self.peer.throttle_s = 0.0
        if self.peer.login is not None and call.header.api_key in LOGIN_APIS:
            self._login_went_on(self.peer.login)

    def _response(self, call: Call, task: asyncio.Task[Buffers | None]) -> Buffers | None:
        """Raises HangUpError."""
        error = task.exception()
        if error is None:
            return task.result()
        if isinstance(error, HangUpError):
            raise error
        response = failure(call, error)
        self._server.responses.took(sum(map(len, response)))
        return response

    def _send(self) -> None:
        """Hand on what the client takes, for a while."""
        for _ in range(SENT_IN_A_TURN):
            if not self._takes or not self._outbox.size_bytes or self._transport.is_closing():
                return
            self._outbox.send(self._transport)
        if self._takes and self._outbox.size_bytes:
            self._loop.call_soon(self._send_on)

    def _send_on(self) -> None:
        self._send()
        self._advance()

    @property
    def _writable(self) -> bool:
        return self._takes and not self._outbox.size_bytes

    def _is_full(self) -> bool:
        ahead = len(self._inbox.waiting) + len(self._running) + (self._next is not None)
        ahead_max = REQUESTS_AHEAD_MAX if self.is_known else 1
        return self._muted is not None or not self._inbox.may_read(ahead, ahead_max)

    def _pause_reading(self) -> None:
        if self._reads and not self._transport.is_closing():
            self._reads = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reads and not self._transport.is_closing():
            self._reads = True
            self.since = self._loop.time()  # it could send nothing until now
            self._transport.resume_reading()

    def _take_no_more(self) -> None:
        """What still comes is thrown away: not read, it would make the end of the connection a
        reset, and answers on their way would be lost."""
        self._ends = self._discards = True
        self._inbox.clear()
        self._next = None
        if self._handshake is None:
            self._resume_reading()

    def _cancel_reads(self) -> None:
        for call, task in self._running:
            if call.handler.ends_with_client:
                task.cancel()

    def _cut_off(self, error: Exception) -> None:
        self._server.refused += 1
        event("connection cut off", logging.WARNING, client=self.peer.address, error=error)
        self._transport.abort()
