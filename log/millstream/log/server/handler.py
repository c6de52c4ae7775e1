"""What a handler of one API is, and what it is told.

How one is added, in `handlers/<group>.py`:

    async def _describe_cluster(request: Any, context: Context) -> Fields:
        return {"cluster_id": context.identity.cluster_id, "brokers": [...]}

    HANDLERS = {60: Handler(range(3), _describe_cluster)}

and the module's name added to `dispatch.HANDLER_MODULES`. What is in HANDLERS is advertised.

A handler knows no versions. It reads the fields of the newest version, where older ones lack some
it gets Kafka's defaults, and it answers a mapping of all fields it can fill, structs as mappings,
arrays as lists; what the client's version lacks is left out, what it does not give is Kafka's
default. Names are kio's (Kafka's in snake case, without "_ms"); durations and times milliseconds,
errors numbers, topic ids text as `Topic.topic_id` has it, None for none. The schema of a version is
`kio.schema.<api>.v<version>.request`.

Errors belong to what they are about: catch LogError around one topic, partition or group and answer
its `kafka_code` there. A LogError that escapes answers the whole request: by `failed`, else in the
response's `error_code`. Any other exception is a mistake of ours; it is logged where requests are
run and answered as UNKNOWN_SERVER_ERROR (-1) in the same way. Where a response has no such field
and there is no `failed`, the connection is closed.

Where access is controlled, a guard stands before the handler (`guards/rights.py`): an API without
one is refused there.

Requests of one connection are handled one after the other, in order. One that `overlaps` is begun
before the one before it, of the same kind, has ended: what has to happen in order it does before
its first await. A handler whose client has gone runs to its end, except one that
`ends_with_client`: it only reads, and is cancelled. The event loop is everybody's: nothing may
block it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from millstream.log.errors import MillstreamError
from millstream.log.security.acl import operation_bits

from .encoding import Fields

if TYPE_CHECKING:
    from millstream.log.broker.broker import Broker
    from millstream.log.security.acl import Operation, Resource
    from millstream.log.security.authorizer import Authorizer
    from millstream.log.security.quotas import Quotas

    from .login import Login

__all__ = ["NODE_ID", "Context", "Fields", "HangUpError", "Handler", "Identity", "Peer"]


class HangUpError(MillstreamError):
    """The only answer is to close the connection."""


NODE_ID = 0
"""Of the only node there is."""


class Identity(NamedTuple):
    """How the server presents itself: what clients are told to connect to."""

    cluster_id: str
    host: str
    port: int


class Peer:
    """Who is at the other end of a connection; lives as long as the connection.

    `principal` is Kafka's spelling of who it is, such as "User:ANONYMOUS". `login` is there where
    clients log in, `authorizer` where access is controlled. `throttle_s` is how long it is to
    be kept waiting because of `quotas`.
    """

    __slots__ = (
        *("address", "authorizer", "client_software", "login", "principal", "quotas"),
        "throttle_s",
    )

    def __init__(
        self, address: str, authorizer: Authorizer | None = None, quotas: Quotas | None = None
    ) -> None:
        self.address = address
        self.authorizer = authorizer
        self.quotas = quotas
        self.throttle_s = 0.0
        self.login: Login | None = None
        self.principal = "User:ANONYMOUS"
        self.client_software = ""


class Context(NamedTuple):
    """What a handler is told besides its request. `room` waits for memory, see `memory.py`."""

    broker: Broker
    identity: Identity
    peer: Peer
    client_id: str | None
    api_key: int
    version: int
    room: Callable[[], Awaitable[int]] | None = None

    @property
    def principal(self) -> str:
        """Who asks."""
        return self.peer.principal

    def allows(self, operation: Operation, resource: Resource, name: str) -> bool:
        """Whether who asks may do this; see `guards/rights.py`."""
        peer = self.peer
        return peer.authorizer is None or peer.authorizer.allows(
            peer.principal, peer.address, operation, resource, name
        )

    def allows_any(self, operation: Operation, resource: Resource) -> bool:
        """Whether he may do this to some resource of this type."""
        peer = self.peer
        return peer.authorizer is None or peer.authorizer.allows_any(
            peer.principal, peer.address, operation, resource
        )

    def operations(self, resource: Resource, name: str) -> int:
        """What he may do to it: a bit for each of Kafka's numbers."""
        peer = self.peer
        if peer.authorizer is None:
            return operation_bits(resource)
        return peer.authorizer.operations(peer.principal, peer.address, resource, name)


class Handler(NamedTuple):
    """One API.

    `versions` are those that are answered. `advertised_from` is told to clients instead of their
    beginning. `handle` answers None where the protocol has no response. `failed` makes the fields
    of an answer from the request and Kafka's number of an error. One that `waits` does so for other
    clients, as long as its own likes: nobody has to wait for the memory of its request meanwhile.
    """

    versions: range
    handle: Callable[[Any, Context], Awaitable[Fields | None]]
    failed: Callable[[Any, int], Fields] | None = None
    advertised_from: int | None = None
    overlaps: bool = False
    ends_with_client: bool = False
    waits: bool = False
