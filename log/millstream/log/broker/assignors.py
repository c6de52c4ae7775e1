"""How a group's leader shares partitions out: range and roundrobin, exactly as Kafka does it; and
the table of all assignors.

Kafka's rack-aware variants come into play when partitions have replicas in several racks. Here they
have one copy, so racks decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from millstream.log.record import TopicPartition

from .consumer_protocol import Subscription

__all__ = [
    "ASSIGNORS",
    "Assignments",
    "Assignor",
    "GroupMember",
    "assign_range",
    "assign_roundrobin",
]


class GroupMember(NamedTuple):
    """A member as assignors see it."""

    member_id: str
    subscription: Subscription
    group_instance_id: str | None = None


Assignments = dict[str, list[TopicPartition]]
"""Member id -> its partitions."""

Assignor = Callable[[Sequence[GroupMember], Mapping[str, int]], Assignments]
"""(members, topic -> partition count of every topic that exists and somebody wants) -> who gets
what. Every member has an entry."""


def in_order(members: Sequence[GroupMember]) -> list[GroupMember]:
    """Static members by their instance ids, then the others by their member ids: so a restart does
    not move partitions (KIP-345)."""
    return sorted(
        members,
        key=lambda each: (
            each.group_instance_id is None,
            each.group_instance_id or each.member_id,
        ),
    )


def assign_range(members: Sequence[GroupMember], partitions: Mapping[str, int]) -> Assignments:
    """Topic by topic, members in order get neighbouring partitions; the first ones get one more
    where it does not come out even. So topics with equally many partitions line up: a member has
    the same numbers of each."""
    assigned: Assignments = {each.member_id: [] for each in members}
    ordered = in_order(members)
    for topic in sorted(partitions):
        wanting = [each.member_id for each in ordered if topic in each.subscription.topics]
        if not wanting:
            continue
        share, extra = divmod(partitions[topic], len(wanting))
        start = 0
        for index, member in enumerate(wanting):
            stop = start + share + (index < extra)
            assigned[member] += [TopicPartition(topic, number) for number in range(start, stop)]
            start = stop
    return assigned


def assign_roundrobin(members: Sequence[GroupMember], partitions: Mapping[str, int]) -> Assignments:
    """All partitions in order are dealt out in a circle over the members that want their topic."""
    assigned: Assignments = {each.member_id: [] for each in members}
    circle = in_order(members)
    turn = 0
    for topic in sorted(partitions):
        if not any(topic in each.subscription.topics for each in members):
            continue
        for number in range(partitions[topic]):
            while topic not in circle[turn % len(circle)].subscription.topics:
                turn += 1
            assigned[circle[turn % len(circle)].member_id].append(TopicPartition(topic, number))
            turn += 1
    return assigned


def _assign_sticky(members: Sequence[GroupMember], partitions: Mapping[str, int]) -> Assignments:
    from .sticky_assignor import assign_sticky  # few groups ask for it

    return assign_sticky(members, partitions)


def _assign_cooperative(
    members: Sequence[GroupMember], partitions: Mapping[str, int]
) -> Assignments:
    from .sticky_assignor import assign_cooperative_sticky

    return assign_cooperative_sticky(members, partitions)


ASSIGNORS: dict[str, Assignor] = {
    "range": assign_range,
    "roundrobin": assign_roundrobin,
    "sticky": _assign_sticky,
    "cooperative-sticky": _assign_cooperative,
}
"""By the name members agree on."""
