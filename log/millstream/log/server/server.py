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
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from millstream.log.broker.to_the_end import stopped, to_the_end
from millstream.log.errors import ConfigError
from millstream.log.events import event

from .addresses import Address, parse_address, resolve
from .connection import Connection
from .dispatch import apis
from .handler import Identity

if TYPE_CHECKING:
    from millstream.log.broker.broker import Broker

__all__ = ["GRACE_S", "STUCK_S", "Server", "ServerStats", "serve"]

GRACE_S = 10.0
"""How long requests may take to end when the server stops."""
STUCK_S = 30.0
"""How long a client may send nothing of a frame it began, or take nothing of its responses."""
_BACKLOG = 512
_EXAMPLE = "127.0.0.1:9092"


class ServerStats(NamedTuple):
    """Where a server stands. `requests`: answers by API key."""

    connections: int
    accepted: int
    refused: int
    running: int
    requests: Mapping[int, int]


class Server:
    """The connections of one listener. From `serve`.

    Attributes:
        refused: connections that were cut off or not admitted.
    """

    def __init__(self, broker: Broker, cluster_id: str) -> None:
        config = broker.config
        self.broker = broker
        self.identity = Identity(cluster_id, "", 0)
        self.request_bytes_max = config.socket_request_max_bytes
        self.refused = 0
        self._cluster_id = cluster_id
        self._connections: set[Connection] = set()
        self._by_address: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[object]] = set()
        self._accepted = 0
        self._requests: Counter[int] = Counter()
        self._empty = asyncio.Event()
        self._empty.set()
        self._listener: asyncio.Server | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """HOST:PORT that clients are told."""
        return str(Address(self.identity.host, self.identity.port))

    async def listen(self, at: Address, advertised: Address | None) -> None:
        """Begin. Raises ConfigError."""
        loop = asyncio.get_running_loop()
        apis()  # imports the handlers now, not with the first request
        try:
            self._listener = await loop.create_server(
                lambda: Connection(self), at.host, at.port, backlog=_BACKLOG
            )
        except OSError as error:
            raise ConfigError(
                f"The log cannot be served on {at}: {error}. Choose another HOST:PORT."
            ) from error
        port = int(self._listener.sockets[0].getsockname()[1])
        told = advertised or Address(at.host, 0)
        self.identity = Identity(self._cluster_id, told.host, told.port or port)
        self._watch = loop.create_task(self._watch_clients())
        event("log served", listener=Address(at.host, port), advertised=self.address)

    async def close(self) -> None:
        """Take no more; answer what was begun; close every connection."""
        if self._listener is not None:
            self._listener.close()
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
        if self._listener is not None:
            await self._listener.wait_closed()

    def stats(self) -> ServerStats:
        """Where it stands."""
        return ServerStats(
            len(self._connections),
            self._accepted,
            self.refused,
            len(self._tasks),
            dict(sorted(self._requests.items())),
        )

    # What connections tell

    def admit(self, connection: Connection) -> bool:
        """Whether one more client is taken."""
        config, address = self.broker.config, connection.peer.address
        if (
            len(self._connections) >= config.max_connections
            or self._by_address[address] >= config.max_connections_per_ip
            or self._listener is None
            or not self._listener.is_serving()
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

    async def _watch_clients(self) -> None:
        loop = asyncio.get_running_loop()
        idle_s = self.broker.config.connections_max_idle_ms / 1000
        while True:
            await asyncio.sleep(min(idle_s, STUCK_S) / 10)
            now = loop.time()
            for each in list(self._connections):
                silent_s = now - each.since
                if each.stuck and silent_s >= STUCK_S:
                    self.refused += 1
                    event("client is stuck", logging.WARNING, client=each.peer.address)
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
        listen: HOST:PORT; port 0 takes any that is free.
        advertised: HOST:PORT by which clients reach it, where that is another; port 0 stands for
            the one that was taken.
        insecure: listen where other machines can reach it, though nobody has to say who they are.

    Raises:
        ConfigError: no such address, one that is in use, or one that is not safe.
        StorageError: the disk refuses to say which log it is.
    """
    at = await resolve(parse_address(listen, _EXAMPLE))
    told = None if advertised is None else parse_address(advertised, _EXAMPLE)
    if not at.is_loopback and not insecure:
        raise ConfigError(
            f"{at} can be reached from other machines, and the server asks nobody who they are: "
            "whoever connects reads, writes and deletes everything. Listen on 127.0.0.1, or allow "
            "it (--insecure-no-auth, insecure=True) where the network keeps others out."
        )
    if at.is_wildcard and told is None:
        raise ConfigError(
            f"{at} is every address of this machine, and clients must be told one: say which "
            "(--advertised-listener HOST:PORT, advertised=...)."
        )
    server = Server(broker, broker.cluster_id())
    await server.listen(at, told)
    try:
        yield server
    finally:
        await to_the_end(server.close())
