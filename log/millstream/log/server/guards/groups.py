"""Guards of the APIs that are about groups and their offsets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from millstream.log.errors import LogError
from millstream.log.security.acl import CLUSTER_NAME, Operation, Resource
from millstream.log.server.handler import Context, Fields, Handler

from .rights import (
    GROUP_REFUSED,
    TOPIC_REFUSED,
    Guard,
    check_group,
    is_named_allowed,
    joined,
    split,
)

__all__ = ["GUARDS", "commit_refusals", "committed"]

_MANY_GROUPS = 8
"""From this version of OffsetFetch on it is about several groups."""
_NO_OFFSET = -1


class _TopicRefusedError(LogError):
    kafka_code = TOPIC_REFUSED


def _may(context: Context, operation: Operation, group: str) -> bool:
    return context.allows(operation, Resource.GROUP, group)


async def _take_part(request: Any, context: Context, handler: Handler) -> Fields | None:
    check_group(context, Operation.READ, request.group_id)
    return await handler.handle(request, context)


async def _heartbeat_of_consumer(request: Any, context: Context, handler: Handler) -> Fields | None:
    check_group(context, Operation.READ, request.group_id)
    for name in request.subscribed_topic_names or ():
        if not context.allows(Operation.DESCRIBE, Resource.TOPIC, name):
            raise _TopicRefusedError(f"{context.principal} may not do DESCRIBE to {name}.")
    return await handler.handle(request, context)


# Groups from outside


async def _list_groups(request: Any, context: Context, handler: Handler) -> Fields | None:
    answer = await handler.handle(request, context)
    if answer is None or context.allows(Operation.DESCRIBE, Resource.CLUSTER, CLUSTER_NAME):
        return answer
    groups = answer["groups"]
    seen = [each for each in groups if _may(context, Operation.DESCRIBE, each["group_id"])]
    return {**answer, "groups": seen}


async def _describe_groups(request: Any, context: Context, handler: Handler) -> Fields | None:
    field = "groups" if "groups" in request._fields else "group_ids"
    kept, refused = split(
        getattr(request, field), lambda each: _may(context, Operation.DESCRIBE, each)
    )
    answer = await handler.handle(request._replace(**{field: tuple(kept)}), context)
    assert answer is not None
    groups = answer["groups"]
    if request.include_authorized_operations:
        groups = [
            {**each, "authorized_operations": context.operations(Resource.GROUP, each["group_id"])}
            for each in groups
        ]
    refusals: list[Fields] = [{"group_id": each, "error_code": GROUP_REFUSED} for each in refused]
    return joined({**answer, "groups": groups}, "groups", refusals)


async def _describe_consumer_groups(
    request: Any, context: Context, handler: Handler
) -> Fields | None:
    """Members are not shown to who may not see everything they read."""
    answer = await _describe_groups(request, context, handler)
    assert answer is not None
    return {**answer, "groups": [_shown(each, context) for each in answer["groups"]]}


def _shown(group: Fields, context: Context) -> Fields:
    read = {
        topic["topic_name"]
        for member in group.get("members", ())
        for given in ("assignment", "target_assignment")
        for topic in member[given]["topic_partitions"]
    }
    if all(context.allows(Operation.DESCRIBE, Resource.TOPIC, each) for each in read):
        return group
    return {
        "group_id": group["group_id"],
        "error_code": TOPIC_REFUSED,
        "error_message": "The group reads topics that you may not describe.",
    }


async def _delete_groups(request: Any, context: Context, handler: Handler) -> Fields | None:
    kept, refused = split(request.groups_names, lambda each: _may(context, Operation.DELETE, each))
    answer = await handler.handle(request._replace(groups_names=tuple(kept)), context)
    assert answer is not None
    refusals: list[Fields] = [{"group_id": each, "error_code": GROUP_REFUSED} for each in refused]
    return joined(answer, "results", refusals)


# Offsets


def _named(topic: Any) -> dict[str, Any]:
    topic_id = getattr(topic, "topic_id", None)
    return {"topic_id": topic_id} if topic_id is not None else {"name": topic.name}


def commit_refusals(topics: Iterable[Any], code: int) -> list[Fields]:
    """As the answers to commits have them."""
    return [
        {
            **_named(topic),
            "partitions": [
                {"partition_index": each.partition_index, "error_code": code}
                for each in topic.partitions
            ],
        }
        for topic in topics
    ]


async def committed(request: Any, context: Context, handler: Handler) -> Fields | None:
    """A commit, for the topics that may be read."""
    kept, refused = split(
        request.topics, lambda each: is_named_allowed(each, context, Operation.READ)
    )
    if not kept:
        return {"topics": commit_refusals(refused, TOPIC_REFUSED)}
    answer = await handler.handle(request._replace(topics=tuple(kept)), context)
    assert answer is not None
    return joined(answer, "topics", commit_refusals(refused, TOPIC_REFUSED))


async def _offset_commit(request: Any, context: Context, handler: Handler) -> Fields | None:
    if not _may(context, Operation.READ, request.group_id):
        return {"topics": commit_refusals(request.topics, GROUP_REFUSED)}
    return await committed(request, context, handler)


async def _offset_fetch(request: Any, context: Context, handler: Handler) -> Fields | None:
    if context.version < _MANY_GROUPS:
        if not _may(context, Operation.DESCRIBE, request.group_id):
            topics = _fetch_refusals(request.topics or (), GROUP_REFUSED)
            return {"error_code": GROUP_REFUSED, "topics": topics}
        asked, refused = _of_group(request, context)
        answer = await handler.handle(asked, context)
        assert answer is not None
        return _seen(answer, request, refused, context)
    kept, closed = split(
        request.groups, lambda each: _may(context, Operation.DESCRIBE, each.group_id)
    )
    pairs = [_of_group(each, context) for each in kept]
    whole = await handler.handle(
        request._replace(groups=tuple(asked for asked, _ in pairs)), context
    )
    assert whole is not None
    groups = [
        _seen(answer, wanted, refused, context)
        for answer, wanted, (_, refused) in zip(whole["groups"], kept, pairs, strict=True)
    ]
    refusals = [
        {
            "group_id": each.group_id,
            "error_code": GROUP_REFUSED,
            "topics": _fetch_refusals(each.topics or (), GROUP_REFUSED),
        }
        for each in closed
    ]
    return {**whole, "groups": [*groups, *refusals]}


def _of_group(wanted: Any, context: Context) -> tuple[Any, list[Any]]:
    """What may be asked about a group, and the topics that may not."""
    if wanted.topics is None:
        return wanted, []
    kept, refused = split(
        wanted.topics, lambda each: is_named_allowed(each, context, Operation.DESCRIBE)
    )
    return wanted._replace(topics=tuple(kept)), refused


def _seen(answer: Fields, wanted: Any, refused: list[Any], context: Context) -> Fields:
    """The answer without the topics that were not asked for by name and may not be seen."""
    if wanted.topics is None:
        topics = [
            each
            for each in answer.get("topics", ())
            if context.allows(Operation.DESCRIBE, Resource.TOPIC, each["name"])
        ]
        return {**answer, "topics": topics}
    return joined(answer, "topics", _fetch_refusals(refused, TOPIC_REFUSED))


def _fetch_refusals(topics: Iterable[Any], code: int) -> list[Fields]:
    return [
        {
            **_named(topic),
            "partitions": [
                {
                    "partition_index": each,
                    "committed_offset": _NO_OFFSET,
                    "metadata": "",
                    "error_code": code,
                }
                for each in topic.partition_indexes
            ],
        }
        for topic in topics
    ]


async def _offset_delete(request: Any, context: Context, handler: Handler) -> Fields | None:
    check_group(context, Operation.DELETE, request.group_id)
    kept, refused = split(
        request.topics, lambda each: is_named_allowed(each, context, Operation.READ)
    )
    answer = await handler.handle(request._replace(topics=tuple(kept)), context)
    assert answer is not None
    if answer.get("error_code", 0):
        return answer
    return joined(answer, "topics", commit_refusals(refused, TOPIC_REFUSED))


GUARDS: dict[int, Guard] = {
    8: _offset_commit,
    9: _offset_fetch,
    11: _take_part,
    12: _take_part,
    13: _take_part,
    14: _take_part,
    15: _describe_groups,
    16: _list_groups,
    42: _delete_groups,
    47: _offset_delete,
    68: _heartbeat_of_consumer,
    69: _describe_consumer_groups,
}
