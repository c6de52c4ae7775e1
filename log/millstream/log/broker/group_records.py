"""A group as its record in `__consumer_offsets` holds it, there and back."""

from __future__ import annotations

from .group_values import GroupState, JoinRequest, Member
from .groups import Group
from .offset_records import GroupRecord, MemberRecord

__all__ = ["group_record", "restored_group"]


def group_record(group: Group) -> GroupRecord:
    """The group as it is written down. `stateTimestamp` says since when it is in its state: from
    there the offsets of an empty group grow old."""
    members = [
        MemberRecord(
            each.member_id,
            each.request.group_instance_id,
            each.request.client_id,
            each.request.client_host,
            each.request.rebalance_timeout_ms,
            each.request.session_timeout_ms,
            dict(each.request.protocols).get(group.protocol or "", b""),
            each.assignment,
        )
        for each in group.members.values()
    ]
    return GroupRecord(
        group.protocol_type,
        group.generation,
        group.protocol,
        group.leader,
        group.state_since_ms,
        members,
    )


def restored_group(group: Group, record: GroupRecord, now_ms: int, wall_ms: int) -> None:
    """Put into `group` what was written. Members that are neither static nor on the network went
    with their process; where there were some, the rest has to share out anew."""
    group.protocol_type = record.protocol_type
    group.state_since_ms = wall_ms if record.members else record.state_timestamp_ms
    members: dict[str, Member] = {}
    for each in record.members:
        request = JoinRequest(
            each.member_id,
            each.client_id,
            each.session_timeout_ms,
            each.rebalance_timeout_ms,
            record.protocol_type,
            ((record.protocol or "", each.subscription),),
            each.group_instance_id,
            each.client_host,
        )
        members[each.member_id] = Member(request, now_ms + each.session_timeout_ms, each.assignment)
    if not any(each.outlives_process for each in members.values()):
        return
    group.protocol, group.leader = record.protocol, record.leader
    group.members = members
    group.state = GroupState.STABLE
    for member_id, member in list(members.items()):
        if not member.outlives_process:
            group.leave(member_id, now_ms)
