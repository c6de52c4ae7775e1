"""Consumer groups, classic protocol: join, sync, heartbeat, leave (KIP-62, KIP-345, KIP-394).

A connection that dies ends no membership; the member's session does. Subscriptions and assignments
are the members' own affair.
"""

from __future__ import annotations

from typing import Any

from millstream.log.broker.group_coordinator import GroupCoordinator
from millstream.log.broker.group_values import JoinRequest, JoinResult
from millstream.log.broker.groups import Group
from millstream.log.errors import LogError, MemberIdRequiredError
from millstream.log.server.handler import Context, Fields, Handler

__all__ = ["HANDLERS"]

_INCONSISTENT_GROUP_PROTOCOL = 23
_INVALID_GROUP_ID = 24
_UNKNOWN_MEMBER_ID = 25
_FENCED_INSTANCE_ID = 82
_MEMBER_ID_FIRST = 4
"""From this version of JoinGroup on a new member is told its id, and joins again with it."""
_BATCHED = 3
"""From this version of LeaveGroup on several members leave at once."""
_SKIPS = 9
"""From this version of JoinGroup on a leader can be told that there is nothing to assign."""


async def _join_group(request: Any, context: Context) -> Fields:
    if not request.group_id:
        return _join_failed(request, _INVALID_GROUP_ID)
    rebalance_timeout_ms = request.rebalance_timeout
    if rebalance_timeout_ms < 0:  # version 0 has none
        rebalance_timeout_ms = request.session_timeout
    member = JoinRequest(
        request.member_id,
        context.client_id or "",
        request.session_timeout,
        rebalance_timeout_ms,
        request.protocol_type,
        tuple((each.name, each.metadata) for each in request.protocols),
        request.group_instance_id,
        f"/{context.peer.address}",
    )
    try:
        joined = await context.broker.groups.join_group(
            request.group_id, member, require_known_member_id=context.version >= _MEMBER_ID_FIRST
        )
    except MemberIdRequiredError as error:
        return {"error_code": error.kafka_code, "member_id": error.member_id}
    return {
        "generation_id": joined.generation,
        "protocol_type": request.protocol_type,
        "protocol_name": joined.protocol,
        "member_id": joined.member_id,
        **_leadership(joined, context.broker.groups.get(request.group_id), context.version),
    }


def _leadership(joined: JoinResult, group: Group | None, version: int) -> Fields:
    """Who leads. A leader that comes back and has nothing to assign is told so; a client of a
    version that has no word for it must take itself for a follower."""
    members = joined.members
    skips = joined.leader == joined.member_id and not members
    if skips and version < _SKIPS:
        return {"leader": "", "members": []}
    if skips and group is not None:
        members = tuple(
            (each.member_id, each.request.group_instance_id, protocols[joined.protocol])
            for each in group.members.values()
            if joined.protocol in (protocols := dict(each.request.protocols))
        )
    return {
        "leader": joined.leader,
        "skip_assignment": skips,
        "members": [
            {"member_id": each, "group_instance_id": instance, "metadata": metadata}
            for each, instance, metadata in members
        ],
    }


def _join_failed(request: Any, code: int) -> Fields:
    return {"error_code": code, "member_id": request.member_id}


async def _sync_group(request: Any, context: Context) -> Fields:
    if not request.group_id:
        return {"error_code": _INVALID_GROUP_ID}
    groups = context.broker.groups
    group = groups.get(request.group_id)
    if group is not None and not _same_protocol(request, group):
        return {"error_code": _INCONSISTENT_GROUP_PROTOCOL}
    synced = await groups.sync_group(
        request.group_id,
        request.member_id,
        request.generation_id,
        {each.member_id: each.assignment for each in request.assignments},
        group_instance_id=request.group_instance_id,
    )
    group = groups.get(request.group_id)
    return {
        "protocol_type": group.protocol_type if group is not None else None,
        "protocol_name": group.protocol if group is not None else None,
        "assignment": synced.assignment,
    }


def _same_protocol(request: Any, group: Group) -> bool:
    """Whether the member means what the group agreed on (KIP-559); one that is none hears that."""
    if request.member_id not in group.members or request.generation_id != group.generation:
        return True
    if request.protocol_type not in (None, group.protocol_type):
        return False
    return request.protocol_name in (None, group.protocol)


async def _heartbeat(request: Any, context: Context) -> Fields:
    if not request.group_id:
        return {"error_code": _INVALID_GROUP_ID}
    context.broker.groups.heartbeat(
        request.group_id,
        request.member_id,
        request.generation_id,
        group_instance_id=request.group_instance_id,
    )
    return {}


async def _leave_group(request: Any, context: Context) -> Fields:
    if not request.group_id:
        return {"error_code": _INVALID_GROUP_ID}
    groups = context.broker.groups
    if context.version < _BATCHED:
        return {"error_code": _leave(groups, request.group_id, request.member_id, None)}
    return {
        "members": [
            {
                "member_id": each.member_id,
                "group_instance_id": each.group_instance_id,
                "error_code": _leave(
                    groups, request.group_id, each.member_id, each.group_instance_id
                ),
            }
            for each in request.members
        ]
    }


def _leave(
    groups: GroupCoordinator, name: str, member_id: str, group_instance_id: str | None
) -> int:
    """One member goes. Who takes out a static one need not know its member id."""
    group = groups.get(name)
    if group is None:
        return _UNKNOWN_MEMBER_ID
    if group_instance_id is not None:
        current = group.member_of_instance(group_instance_id)
        if current is None:
            return _UNKNOWN_MEMBER_ID
        if member_id not in ("", current):
            return _FENCED_INSTANCE_ID
        member_id = current
    elif member_id not in group.members and not group.is_expected(member_id):
        return _UNKNOWN_MEMBER_ID
    try:
        groups.leave_group(name, member_id)
    except LogError as error:
        return error.kafka_code
    return 0


HANDLERS = {
    11: Handler(range(10), _join_group, failed=_join_failed, waits=True),
    12: Handler(range(5), _heartbeat),
    13: Handler(range(6), _leave_group),
    14: Handler(range(6), _sync_group, waits=True),
}
