"""Groups from outside: list, describe, take members out."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from millstream.log.errors import CorruptRecordError
from millstream.log.record import (
    GroupDescription,
    GroupListing,
    MemberDescription,
    TopicPartition,
)

from .consumer_protocol import decode_assignment
from .group_coordinator import GroupCoordinator
from .group_fencing import no_group, no_instance
from .group_values import CONSUMER, GroupState
from .groups import Group
from .modern_group import ModernGroup
from .modern_values import Place
from .offset_coordinator import OffsetCoordinator

if TYPE_CHECKING:
    from .broker import Broker

__all__ = ["describe_group", "list_groups", "remove_members"]

_SETTLED = (GroupState.STABLE, GroupState.COMPLETING_REBALANCE)


def list_groups(groups: GroupCoordinator, offsets: OffsetCoordinator) -> list[GroupListing]:
    """Every group that has members or committed offsets, by name."""
    found = {
        name: GroupListing(name, GroupState.EMPTY.value, "")
        for name in {key.group for key, _ in offsets.rows()}
    }
    for group in groups:
        found[group.name] = GroupListing(group.name, group.state.value, group.protocol_type)
    for modern in groups.modern:
        found[modern.name] = GroupListing(modern.name, modern.state, CONSUMER)
    return [found[name] for name in sorted(found)]


def describe_group(broker: Broker, name: str) -> GroupDescription:
    """One group, its members and what they were given.

    Raises:
        UnknownGroupError: nobody joined it, and it committed nothing.
    """
    modern = broker.groups.modern.get(name)
    if modern is not None:
        return _modern_description(broker, modern)
    group = broker.groups.get(name)
    if group is None:
        if not broker.offsets.of_group(name):
            raise no_group(name)
        return GroupDescription(name, GroupState.EMPTY.value, "", "", 0, "", ())
    return GroupDescription(
        name,
        group.state.value,
        group.protocol_type,
        (group.protocol or "") if group.state in _SETTLED else "",
        group.generation,
        group.leader or "",
        tuple(
            MemberDescription(
                each.member_id,
                each.request.group_instance_id,
                each.request.client_id,
                _partitions(group, each.assignment),
            )
            for each in group.members.values()
        ),
    )


def _modern_description(broker: Broker, group: ModernGroup) -> GroupDescription:
    members = tuple(
        MemberDescription(
            each.member_id, each.instance_id, each.client_id, _named(broker, each.assigned)
        )
        for each in group.members.values()
    )
    assignor = group.assignor if members else ""
    return GroupDescription(group.name, group.state, CONSUMER, assignor, group.epoch, "", members)


def _named(broker: Broker, places: Collection[Place]) -> tuple[TopicPartition, ...]:
    found = []
    for topic_id, number in places:
        topic = broker.partitions.topic_with_id(topic_id)
        if topic is not None:
            found.append(TopicPartition(topic.name, number))
    return tuple(sorted(found))


def remove_members(
    groups: GroupCoordinator,
    offsets: OffsetCoordinator,
    name: str,
    group_instance_ids: Collection[str] | None,
) -> None:
    """Take static members out by their instance ids, or all members.

    Raises:
        UnknownGroupError, UnknownMemberError: nobody was taken out.
    """
    if groups.modern.get(name) is not None:
        groups.modern.remove_members(name, group_instance_ids)
        return
    group = groups.get(name)
    if group is None:
        if not offsets.of_group(name) or group_instance_ids:
            raise no_group(name)
        return
    if group_instance_ids is None:
        gone = list(group.members)
    else:
        gone = [_member_of(group, each) for each in group_instance_ids]
    for member_id in gone:
        groups.leave_group(name, member_id)


def _member_of(group: Group, group_instance_id: str) -> str:
    member_id = group.member_of_instance(group_instance_id)
    if member_id is None:
        raise no_instance(group.name, group_instance_id)
    return member_id


def _partitions(group: Group, assignment: bytes) -> tuple[TopicPartition, ...]:
    if group.protocol_type != CONSUMER or group.state is not GroupState.STABLE:
        return ()
    try:
        return tuple(decode_assignment(assignment))
    except CorruptRecordError:  # of a member on the network; it is its own affair
        return ()
