"""The log on TCP, in Kafka's protocol.

    async with serve(broker, "127.0.0.1:9092") as server:
        print(server.address)

Everything runs on the event loop that owns the broker. A client can cost the others its share of
the work it asks for and nothing more: what it may make the server hold is bounded for each
connection, connections are bounded in number, and one that breaks the protocol, stalls or is idle
for long is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from millstream.log.broker.disk_threads import DiskThreads
from millstream.log.broker.to_the_end import stopped, to_the_end
from millstream.log.errors import ConfigError
from millstream.log.events import event
from millstream.log.security.authorizer import Authorizer
from millstream.log.security.quotas import Quotas
from millstream.log.security.tls import server_context

from .addresses import Address
from .connection import Connection
from .dispatch import apis
from .handler import Identity
from .listeners import ListenerAt, resolved_listeners
from .login import Logins
from .memory import RequestMemory, ResponseMemory

if TYPE_CHECKING:
    import ssl

    from millstream.log.broker.broker import Broker
    from millstream.log.config import BrokerConfig
    from millstream.log.security.store import SecurityTable

__all__ = ["GRACE_S", "LOGIN_S", "STUCK_S", "Listener", "Server", "ServerStats", "serve"]

GRACE_S = 10.0
"""How long requests may take to end when the server stops."""
STUCK_S = 30.0
"""How long a client may send nothing of a frame it began, or take nothing of its responses."""
LOGIN_S = 30.0
"""How long a client may take to log in."""
_BACKLOG = 512


class ServerStats(NamedTuple):
    """Where a server stands. `requests`: answers by API key. `request_bytes` and `response_bytes`
    are held for all connections; `waiting_requests` and `waiting_responses` wait for room.
    """

    connections: int
    accepted: int
    refused: int
    running: int
    requests: Mapping[int, int]
    request_bytes: int
    response_bytes: int
    waiting_requests: int
    waiting_responses: int


class Listener:
    """One address that clients connect to, and what those who come by it are told."""

    def __init__(self, at: ListenerAt, cluster_id: str, tls: ssl.SSLContext | None) -> None:
        self.at = at
        self.tls = tls
        self.identity = Identity(cluster_id, at.told.host, at.told.port)
        self.sockets: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """HOST:PORT that clients are told."""
        return str(Address(self.identity.host, self.identity.port))

    async def open(self, server: Server) -> None:
        """Begin. Raises ConfigError."""
        at = self.at.address
        try:
            self.sockets = await asyncio.get_running_loop().create_server(
                lambda: Connection(server, self), at.host, at.port, backlog=_BACKLOG
            )
        except OSError as error:
            raise ConfigError(
                f"The log cannot be served on {at}: {error}. Choose another HOST:PORT."
            ) from error
        port = int(self.sockets.sockets[0].getsockname()[1])
        self.identity = self.identity._replace(port=self.identity.port or port)
        event(
            "log served",
            listener=Address(at.host, port),
            protocol=self.at.protocol.name,
            advertised=self.address,
        )


class Server:
    """The connections of some listeners. From `serve`.

    Attributes:
        refused: connections that were cut off or not admitted.
    """

    def __init__(self, broker: Broker, listeners: Sequence[Listener]) -> None:
        config = broker.config
        self.broker = broker
        self.request_bytes_max = config.socket_request_max_bytes
        self.requests = RequestMemory(config.queued_max_request_bytes)
        self.responses = ResponseMemory(config.queued_max_response_bytes)
        self.refused = 0
        self.listeners = listeners
        self.logins: Logins | None = None
        self._security = broker.security()
        self.authorizer = _authorizer(broker, listeners)
        self.quotas = Quotas(self._security.quotas)
        self._security.on_change.add(self._security_changed)
        self._login_threads = DiskThreads(1)
        if any(each.at.protocol.sasl for each in listeners):
            threads = self._login_threads
            self.logins = Logins(broker.security(), config, broker.clock, threads.run)
        self._connections: set[Connection] = set()
        self._by_address: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[object]] = set()
        self._accepted = 0
        self._requests: Counter[int] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self._watch: asyncio.Task[None] | None = None
        self._is_closing = False

    @property
    def identity(self) -> Identity:
        """What clients of the first listener are told."""
        return self.listeners[0].identity

    @property
    def address(self) -> str:
        """HOST:PORT that clients of the first listener are told."""
        return self.listeners[0].address

    @property
    def addresses(self) -> list[str]:
        """Of every listener PROTOCOL://HOST:PORT that its clients are told."""
        return [f"{each.at.protocol.name}://{each.address}" for each in self.listeners]

    async def listen(self) -> None:
        """Begin. Raises ConfigError; then `close` is still to be called."""
        apis()  # imports the handlers now, not with the first request
        for each in self.listeners:
            await each.open(self)
        self._watch = asyncio.get_running_loop().create_task(self._watch_clients())
        self.broker.servers.add(self)

    async def close(self) -> None:
        """Take no more; answer what was begun; close every connection."""
        sockets = [each.sockets for each in self.listeners if each.sockets is not None]
        self._is_closing = True
        self.broker.servers.discard(self)
        for listener in sockets:
            listener.close()
        for each in list(self._connections):
            each.finish()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=GRACE_S)
        await stopped(self._watch, *self._tasks)
        try:
            async with asyncio.timeout(GRACE_S):
                await self._empty.wait()
        except TimeoutError:
            event("clients do not take their answers", connections=len(self._connections))
        finally:
            for each in list(self._connections):
                each.abort()
        for listener in sockets:
            await listener.wait_closed()
        self._security.on_change.discard(self._security_changed)
        self._login_threads.close()

    def stats(self) -> ServerStats:
        """Where it stands."""
        return ServerStats(
            len(self._connections),
            self._accepted,
            self.refused,
            len(self._tasks),
            dict(sorted(self._requests.items())),
            self.requests.used_bytes,
            self.responses.used_bytes,
            self.requests.waiting,
            self.responses.waiting,
        )

    # What connections tell

    def admit(self, connection: Connection) -> bool:
        """Whether one more client is taken."""
        config, address = self.broker.config, connection.peer.address
        if (
            len(self._connections) >= config.max_connections
            or self._by_address[address] >= config.max_connections_per_ip
            or self._is_closing
        ):
            self.refused += 1
            event("connection refused", logging.WARNING, client=address)
            return False
        self._accepted += 1
        self._connections.add(connection)
        self._by_address[address] += 1
        self._empty.clear()
        return True

    def forget(self, connection: Connection) -> None:
        """A client is gone."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        address = connection.peer.address
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]
        if not self._connections:
            self._empty.set()

    def began(self, task: asyncio.Task[object]) -> None:
        """A request runs."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answered(self, api_key: int) -> None:
        """A request was answered."""
        self._requests[api_key] += 1

    def _security_changed(self, table: SecurityTable) -> None:
        self.quotas.set_table(table.quotas)
        if self.authorizer is not None:
            self.authorizer.set_acls(table.acls)

    async def _watch_clients(self) -> None:
        loop = asyncio.get_running_loop()
        idle_s = self.broker.config.connections_max_idle_ms / 1000
        while True:
            await asyncio.sleep(min(idle_s, STUCK_S) / 10)
            now = loop.time()
            for each in list(self._connections):
                silent_s = now - each.since
                if (each.stuck and silent_s >= STUCK_S) or each.holds_up:
                    self.refused += 1
                    event("client is stuck", logging.WARNING, client=each.peer.address)
                    each.abort()
                elif not each.is_known and now - each.begun >= LOGIN_S:
                    self.refused += 1
                    event("client does not log in", logging.WARNING, client=each.peer.address)
                    each.abort()
                elif each.idle and silent_s >= idle_s:
                    each.abort()


@asynccontextmanager
async def serve(
    broker: Broker,
    listen: str,
    *,
    advertised: str | None = None,
    insecure: bool = False,
) -> AsyncIterator[Server]:
    """Serve a broker while the body runs.

    Args:
        listen: HOST:PORT; port 0 takes any that is free. PROTOCOL://HOST:PORT where that is another
            than PLAINTEXT: SSL, SASL_PLAINTEXT, SASL_SSL. Several with commas.
        advertised: the same, by which clients reach it, where that is another; port 0 stands for
            the one that was taken.
        insecure: listen where other machines can reach it, though nobody has to say who they are.

    Raises:
        ConfigError: no such address, one that is in use, or one that is not safe; or a certificate
            that cannot be used.
        StorageError: the disk refuses to say which log it is, or its users.
    """
    config = broker.config
    found = await resolved_listeners(listen, advertised, config, insecure=insecure)
    cluster_id = broker.cluster_id()
    server = Server(broker, [Listener(at, cluster_id, _tls(at, config)) for at in found])
    try:
        await server.listen()
        yield server
    finally:
        await to_the_end(server.close())


def _authorizer(broker: Broker, listeners: Sequence[Listener]) -> Authorizer | None:
    """Access is controlled where anybody may show who he is."""
    config = broker.config
    if not any(each.at.asks(config) for each in listeners):
        return None
    names = [each.strip() for each in config.super_users.split(";") if each.strip()]
    for each in names:
        kind, colon, name = each.partition(":")
        if not (kind and colon and name):
            raise ConfigError(
                f"super.users names {each!r}, which is no principal: write User:anna, several with "
                "semicolons."
            )
    authorizer = Authorizer(names, allow_if_no_acl=config.allow_everyone_if_no_acl_found)
    authorizer.set_acls(broker.security().acls)
    return authorizer


def _tls(at: ListenerAt, config: BrokerConfig) -> ssl.SSLContext | None:
    if not at.protocol.tls:
        return None
    return server_context(config, asks_clients=not at.protocol.sasl)
