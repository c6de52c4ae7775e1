"""The values a group and its members exchange: requests, answers, and what is known of a member."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from millstream.log.errors import CorruptRecordError, LogError

from .consumer_protocol import decode_assignment, decode_subscription

__all__ = [
    "CONSUMER",
    "GroupState",
    "JoinRequest",
    "JoinResult",
    "Member",
    "Reply",
    "SyncResult",
    "topics_of",
]

CONSUMER = "consumer"
"""The protocol type of groups whose subscriptions and assignments are those of consumers."""


class GroupState(Enum):
    """Where a group is between two rebalances."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


class JoinRequest(NamedTuple):
    """A member wants to be part of the next generation. `protocols`: assignor and subscription, in
    order of preference. A new member has no id yet (""). `client_host`: where on the network it is;
    "" in this process."""

    member_id: str
    client_id: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: tuple[tuple[str, bytes], ...]
    group_instance_id: str | None = None
    client_host: str = ""


class JoinResult(NamedTuple):
    """A member of a new generation. `members` (member id, instance id, subscription) is for the
    leader only; empty, there is nothing to assign."""

    member_id: str
    generation: int
    protocol: str
    leader: str
    members: tuple[tuple[str, str | None, bytes], ...]


class SyncResult(NamedTuple):
    """What the leader assigned to this member."""

    assignment: bytes


class Reply(NamedTuple):
    """An answer to a join or a sync that had to wait."""

    member_id: str
    result: JoinResult | SyncResult | LogError


class Member:
    """One member. `deadline_ms`: when its session is over, unless it is heard of or waits.

    It is `joining` while it waits for the next generation, `owes_sync` until it asked for its
    assignment in this one, `syncing` while it waits for that.
    """

    __slots__ = ("assignment", "deadline_ms", "joining", "owes_sync", "request", "syncing")

    def __init__(self, request: JoinRequest, deadline_ms: int, assignment: bytes = b"") -> None:
        self.request = request
        self.deadline_ms = deadline_ms
        self.joining = False
        self.owes_sync = False
        self.syncing = False
        self.assignment = assignment

    @property
    def member_id(self) -> str:
        return self.request.member_id

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for an answer; as in Kafka its session does not end meanwhile."""
        return self.joining or self.syncing

    @property
    def outlives_process(self) -> bool:
        """Whether it may still be there when the log is opened again."""
        return self.is_static or bool(self.request.client_host)

    @property
    def is_static(self) -> bool:
        """Whether it keeps its place over a restart (KIP-345)."""
        return self.request.group_instance_id is not None

    def suits(self, successor: JoinRequest) -> bool:
        """Whether who takes over its place can have its assignment as it is."""
        return topics_of(successor) == topics_of(self.request) and not _has_to_give_up(self)


def topics_of(request: JoinRequest) -> frozenset[str] | None:
    """The topics a consumer subscribed to; None for members of another kind."""
    if request.protocol_type != CONSUMER:
        return None
    try:
        return frozenset(
            topic for _, data in request.protocols for topic in decode_subscription(data).topics
        )
    except CorruptRecordError:
        return None


def _has_to_give_up(member: Member) -> bool:
    """Whether a consumer had partitions that it was not given again: it joins once more when it has
    given them up, for another to have them (KIP-429)."""
    if member.request.protocol_type != CONSUMER:
        return False
    try:
        given = frozenset(decode_assignment(member.assignment))
        return any(
            not given.issuperset(decode_subscription(data).owned)
            for _, data in member.request.protocols
        )
    except CorruptRecordError:
        return False
