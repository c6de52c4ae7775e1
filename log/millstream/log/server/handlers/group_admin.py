"""Consumer groups from outside: list, describe, delete; forget single offsets (KIP-496)."""

from __future__ import annotations

from typing import Any

from millstream.log.broker.broker import Broker
from millstream.log.broker.group_admin import list_groups
from millstream.log.broker.group_values import GroupState, Member
from millstream.log.broker.groups import Group
from millstream.log.errors import LogError
from millstream.log.record import TopicPartition
from millstream.log.security.acl import Resource, operation_bits
from millstream.log.server.handler import Context, Fields, Handler

__all__ = ["HANDLERS"]

_INVALID_GROUP_ID = 24
_GROUP_ID_NOT_FOUND = 69
_CLASSIC, _CONSUMER = "classic", "consumer"
_TELLS_UNKNOWN = 6
"""From this version of DescribeGroups on an unknown group is an error (KIP-1043); before, it is a
dead one."""


async def _list_groups(request: Any, context: Context) -> Fields:
    states = {each.lower() for each in request.states_filter or ()}
    types = {each.lower() for each in request.types_filter or ()}
    groups = [
        {
            "group_id": each.group,
            "protocol_type": each.protocol_type,
            "group_state": each.state,
            "group_type": _CLASSIC
            if context.broker.groups.modern.get(each.group) is None
            else _CONSUMER,
        }
        for each in list_groups(context.broker.groups, context.broker.offsets)
        if not states or each.state.lower() in states
    ]
    return {"groups": [each for each in groups if not types or each["group_type"] in types]}


async def _describe_groups(request: Any, context: Context) -> Fields:
    operations = operation_bits(Resource.GROUP)
    told = {"authorized_operations": operations} if request.include_authorized_operations else {}
    once = dict.fromkeys(request.groups)  # a description may be long
    return {"groups": [{**_described(context, each), **told} for each in once]}


def _described(context: Context, name: str) -> Fields:
    group = context.broker.groups.get(name)
    if group is not None:
        return _description(group)
    is_modern = context.broker.groups.modern.get(name) is not None
    if context.broker.offsets.of_group(name) and not is_modern:
        return {"group_id": name, "group_state": GroupState.EMPTY.value}
    unknown: Fields = {"group_id": name, "group_state": GroupState.DEAD.value}
    if context.version < _TELLS_UNKNOWN:
        return unknown
    message = f"Group {name} is not a classic group." if is_modern else _missing(name)
    return {**unknown, "error_code": _GROUP_ID_NOT_FOUND, "error_message": message}


def _missing(name: str) -> str:
    return f"Group {name} does not exist."


def _description(group: Group) -> Fields:
    stable = group.state is GroupState.STABLE
    protocol = (group.protocol or "") if stable else ""
    return {
        "group_id": group.name,
        "group_state": group.state.value,
        "protocol_type": group.protocol_type,
        "protocol_data": protocol,
        "members": [_member(each, protocol) for each in group.members.values()],
    }


def _member(member: Member, protocol: str) -> Fields:
    request = member.request
    return {
        "member_id": request.member_id,
        "group_instance_id": request.group_instance_id,
        "client_id": request.client_id,
        "client_host": request.client_host,
        "member_metadata": dict(request.protocols).get(protocol, b""),
        "member_assignment": member.assignment if protocol else b"",
    }


async def _delete_groups(request: Any, context: Context) -> Fields:
    results = [
        {"group_id": each, "error_code": await _delete(context.broker, each)}
        for each in request.groups_names
    ]
    return {"results": results}


async def _delete(broker: Broker, name: str) -> int:
    if not name:
        return _INVALID_GROUP_ID
    if not _is_known(broker, name):
        return _GROUP_ID_NOT_FOUND
    try:
        await broker.offsets.delete_group(name)
    except LogError as error:
        return error.kafka_code
    return 0


def _is_known(broker: Broker, name: str) -> bool:
    groups = (broker.groups.get(name), broker.groups.modern.get(name))
    return any(each is not None for each in groups) or bool(broker.offsets.of_group(name))


async def _offset_delete(request: Any, context: Context) -> Fields:
    if not _is_known(context.broker, request.group_id):
        return {"error_code": _GROUP_ID_NOT_FOUND}
    topics = []
    for topic in request.topics:
        partitions = [each.partition_index for each in topic.partitions]
        code = await _delete_offsets(context.broker, request.group_id, topic.name, partitions)
        if code == _GROUP_IS_SUBSCRIBED or not code:
            entries = [{"partition_index": each, "error_code": code} for each in partitions]
            topics.append({"name": topic.name, "partitions": entries})
        else:
            return {"error_code": code}
    return {"topics": topics}


_GROUP_IS_SUBSCRIBED = 86


async def _delete_offsets(broker: Broker, group: str, topic: str, partitions: list[int]) -> int:
    try:
        await broker.offsets.delete_offsets(
            group, [TopicPartition(topic, each) for each in partitions]
        )
    except LogError as error:
        return error.kafka_code
    return 0


HANDLERS = {
    15: Handler(range(7), _describe_groups),
    16: Handler(range(6), _list_groups),
    42: Handler(range(3), _delete_groups),
    47: Handler(range(1), _offset_delete),
}
