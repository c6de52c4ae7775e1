"""What a group of KIP-848 and its members exchange, what is known of a member, and the errors."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import NamedTuple

from millstream.log.errors import ConfigError, LogError, UnknownGroupError

__all__ = [
    "JOIN",
    "LEAVE",
    "LEAVE_FOR_A_WHILE",
    "FencedMemberEpochError",
    "Heartbeat",
    "HeartbeatResult",
    "InvalidRegularExpressionError",
    "MemberState",
    "ModernMember",
    "Place",
    "StaleMemberEpochError",
    "TopicFacts",
    "UnreleasedInstanceIdError",
    "UnsupportedAssignorError",
    "fenced_epoch",
    "no_modern_group",
]

JOIN, LEAVE, LEAVE_FOR_A_WHILE = 0, -1, -2
"""Epochs in a heartbeat that are no epochs. A static member that leaves for a while comes back."""

Place = tuple[str, int]
"""A partition: the id of its topic, and its number."""

TopicFacts = Mapping[str, tuple[str, int]]
"""Name of a topic that exists -> its id, and how many partitions it has."""


class FencedMemberEpochError(LogError):
    """The member's epoch is not the group's: it gives its partitions up and joins again."""

    kafka_code = 110


class UnreleasedInstanceIdError(LogError):
    """A member with this group.instance.id is there and has not left."""

    kafka_code = 111


class UnsupportedAssignorError(ConfigError):
    """There is no such assignor."""

    kafka_code = 112


class StaleMemberEpochError(LogError):
    """The member has a newer epoch by now: it asks again with that."""

    kafka_code = 113


class InvalidRegularExpressionError(ConfigError):
    """A pattern for topics that is none."""

    kafka_code = 128


class MemberState(IntEnum):
    """Where a member is on its way to what it should have; numbers as Kafka stores them."""

    STABLE = 1
    UNREVOKED = 2
    UNRELEASED = 3


class Heartbeat(NamedTuple):
    """What a member says; None where nothing changed since it last said it. `regex_topics`: the
    topics its pattern is about, among those it may see."""

    member_id: str
    epoch: int
    client_id: str = ""
    client_host: str = ""
    instance_id: str | None = None
    rack_id: str | None = None
    rebalance_timeout_ms: int = -1
    topics: frozenset[str] | None = None
    regex: str | None = None
    regex_topics: frozenset[str] = frozenset()
    assignor: str | None = None
    owned: frozenset[Place] | None = None

    @property
    def is_full(self) -> bool:
        """Whether it says everything, and so wants to be told everything."""
        told = (self.topics is not None or self.regex is not None) and self.owned is not None
        return self.epoch == JOIN or (told and self.rebalance_timeout_ms != -1)


class HeartbeatResult(NamedTuple):
    """`assigned` is None where nothing changed."""

    member_id: str
    epoch: int
    assigned: frozenset[Place] | None


class ModernMember(NamedTuple):
    """One member. `assigned` it may use; `revoking` it was asked to give up."""

    member_id: str
    instance_id: str | None = None
    rack_id: str | None = None
    client_id: str = ""
    client_host: str = ""
    topics: frozenset[str] = frozenset()
    regex: str = ""
    regex_topics: frozenset[str] = frozenset()
    rebalance_timeout_ms: int = -1
    assignor: str | None = None
    epoch: int = JOIN
    previous_epoch: int = JOIN
    state: MemberState = MemberState.STABLE
    assigned: frozenset[Place] = frozenset()
    revoking: frozenset[Place] = frozenset()

    @property
    def subscribed(self) -> frozenset[str]:
        """The topics it wants, whether or not they exist."""
        return self.topics | self.regex_topics

    @property
    def held(self) -> frozenset[Place]:
        """What nobody else may have yet."""
        return self.assigned | self.revoking

    def moved_to(self, epoch: int) -> ModernMember:
        """The member in another epoch; an answer that says so may be lost on its way."""
        return self._replace(epoch=epoch, previous_epoch=self.epoch)


def fenced_epoch(group: str, member: ModernMember, epoch: int) -> FencedMemberEpochError:
    """The member speaks for an epoch that is not its own."""
    return FencedMemberEpochError(
        f"Group {group}: member {member.member_id} speaks for epoch {epoch}, its epoch is "
        f"{member.epoch}. It has to give up its partitions and join again."
    )


def no_modern_group(group: str) -> UnknownGroupError:
    """There is no group of this protocol."""
    return UnknownGroupError(
        f"Group {group} is not a consumer group. Use another group.id, or the group.protocol that "
        "its members use."
    )
