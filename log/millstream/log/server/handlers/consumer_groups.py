"""Consumer groups of KIP-848: the one heartbeat in which a member joins, learns what it has, and
leaves; and what such groups look like from outside."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from itertools import groupby
from typing import Any

from millstream.log.broker.modern_assignors import MODERN_ASSIGNORS
from millstream.log.broker.modern_group import ModernGroup
from millstream.log.broker.modern_values import (
    JOIN,
    LEAVE,
    LEAVE_FOR_A_WHILE,
    Heartbeat,
    ModernMember,
    Place,
    UnsupportedAssignorError,
    no_modern_group,
)
from millstream.log.errors import InvalidRequestError, LogError
from millstream.log.security.acl import Operation, Resource, operation_bits
from millstream.log.server.handler import Context, Fields, Handler

__all__ = ["HANDLERS"]

_CONSUMER_MEMBER = 1
_MEMBERS_NAME_THEMSELVES = 1
"""From this version of ConsumerGroupHeartbeat on (KIP-1082)."""


async def _heartbeat(request: Any, context: Context) -> Fields:
    try:
        _check(request, context.version)
        groups = context.broker.groups.modern
        if request.member_epoch in (LEAVE, LEAVE_FOR_A_WHILE):
            await groups.leave(
                request.group_id,
                request.member_id,
                request.instance_id,
                for_a_while=request.member_epoch == LEAVE_FOR_A_WHILE,
            )
            return {"member_id": request.member_id, "member_epoch": request.member_epoch}
        told = await groups.heartbeat(
            request.group_id,
            _as_heartbeat(request, context),
            context.broker.partitions,
            may_see=partial(context.allows, Operation.DESCRIBE, Resource.TOPIC),
        )
    except LogError as error:
        return {"error_code": error.kafka_code, "error_message": str(error)}
    return {
        "member_id": told.member_id,
        "member_epoch": told.epoch,
        "heartbeat_interval": context.broker.config.group_consumer_heartbeat_interval_ms,
        "assignment": None
        if told.assigned is None
        else {"topic_partitions": _by_topic(told.assigned)},
    }


def _check(request: Any, version: int) -> None:
    """Raises InvalidRequestError, UnsupportedAssignorError."""
    if not request.group_id:
        raise InvalidRequestError("The group has no name: set group.id.")
    if request.instance_id == "" or request.rack_id == "":
        raise InvalidRequestError("group.instance.id and client.rack cannot be empty.")
    if request.member_epoch == JOIN:
        _check_who_joins(request, version)
    elif not request.member_id:
        raise InvalidRequestError("A member has to say its id.")
    elif request.member_epoch < LEAVE_FOR_A_WHILE:
        raise InvalidRequestError(f"There is no member epoch {request.member_epoch}.")
    elif request.member_epoch == LEAVE_FOR_A_WHILE and request.instance_id is None:
        raise InvalidRequestError("Only a member with a group.instance.id leaves for a while.")
    if request.server_assignor is not None and request.server_assignor not in MODERN_ASSIGNORS:
        raise UnsupportedAssignorError(
            f"There is no assignor {request.server_assignor!r}; set group.remote.assignor to "
            f"one of {', '.join(MODERN_ASSIGNORS)}."
        )


def _check_who_joins(request: Any, version: int) -> None:
    if version >= _MEMBERS_NAME_THEMSELVES and not request.member_id:
        raise InvalidRequestError("A member has to say its id.")
    if request.rebalance_timeout == -1:
        raise InvalidRequestError("A member that joins has to say its rebalance time-out.")
    if request.topic_partitions is None or request.topic_partitions:
        raise InvalidRequestError("A member that joins has no partitions yet.")
    if request.subscribed_topic_names is None and request.subscribed_topic_regex is None:
        raise InvalidRequestError("A member that joins has to say what it subscribes to.")


def _as_heartbeat(request: Any, context: Context) -> Heartbeat:
    names, owned = request.subscribed_topic_names, request.topic_partitions
    return Heartbeat(
        request.member_id,
        request.member_epoch,
        context.client_id or "",
        f"/{context.peer.address}",
        instance_id=request.instance_id,
        rack_id=request.rack_id,
        rebalance_timeout_ms=request.rebalance_timeout,
        topics=None if names is None else frozenset(names),
        regex=request.subscribed_topic_regex,
        assignor=request.server_assignor,
        owned=None
        if owned is None
        else frozenset(
            (topic.topic_id or "", each) for topic in owned for each in topic.partitions
        ),
    )


def _by_topic(places: Collection[Place]) -> list[Fields]:
    return [
        {"topic_id": topic_id, "partitions": [number for _, number in each]}
        for topic_id, each in groupby(sorted(places), lambda place: place[0])
    ]


# From outside


async def _describe(request: Any, context: Context) -> Fields:
    operations = operation_bits(Resource.GROUP)
    told = {"authorized_operations": operations} if request.include_authorized_operations else {}
    once = dict.fromkeys(request.group_ids)  # a description may be long
    return {"groups": [{**_described(context, each), **told} for each in once]}


def _described(context: Context, name: str) -> Fields:
    group = context.broker.groups.modern.get(name)
    if group is None:
        error = no_modern_group(name)
        return {"group_id": name, "error_code": error.kafka_code, "error_message": str(error)}
    return {
        "group_id": name,
        "group_state": group.state,
        "group_epoch": group.epoch,
        "assignment_epoch": group.assignment_epoch,
        "assignor_name": group.assignor,
        "members": [_member(context, group, each) for each in group.members.values()],
    }


def _member(context: Context, group: ModernGroup, member: ModernMember) -> Fields:
    return {
        "member_id": member.member_id,
        "instance_id": member.instance_id,
        "rack_id": member.rack_id,
        "member_epoch": member.epoch,
        "client_id": member.client_id,
        "client_host": member.client_host,
        "subscribed_topic_names": sorted(member.topics),
        "subscribed_topic_regex": member.regex or None,
        "assignment": {"topic_partitions": _named(context, member.assigned)},
        "target_assignment": {
            "topic_partitions": _named(context, group.target.get(member.member_id, ()))
        },
        "member_type": _CONSUMER_MEMBER,
    }


def _named(context: Context, places: Collection[Place]) -> list[Fields]:
    """With the names of the topics; those that are gone have none."""
    found: list[Fields] = []
    for each in _by_topic(places):
        topic = context.broker.partitions.topic_with_id(each["topic_id"])
        if topic is not None:
            found.append({**each, "topic_name": topic.name})
    return found


HANDLERS = {68: Handler(range(2), _heartbeat), 69: Handler(range(2), _describe)}
