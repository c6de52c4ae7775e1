"""Guards of the APIs that tell what there is. What a client may not describe is not there for it:
it is left out of what it did not name."""

from __future__ import annotations

from typing import Any, NamedTuple

from millstream.log.config import INTERNAL_TOPICS
from millstream.log.security.acl import CLUSTER_NAME, Operation, Resource
from millstream.log.server.handler import Context, Fields, Handler

from .rights import TOPIC_REFUSED, Guard, is_named_allowed, joined, split

__all__ = ["GUARDS"]

_UNKNOWN_TOPIC_ID = 100
_NULL_NAME_FROM = 12


class _Named(NamedTuple):
    name: str


async def _metadata(request: Any, context: Context, handler: Handler) -> Fields | None:
    wanted = request.topics
    refusals: list[Fields] = []
    if wanted is None or (context.version == 0 and not wanted):
        answer = await handler.handle(request, context)
        assert answer is not None
        topics = [each for each in answer["topics"] if _may_see(context, each["name"])]
    else:
        kept, refused = split(wanted, lambda each: _may_ask(each, request, context))
        refusals = [_refusal(each, context) for each in refused]
        answer = await handler.handle(request._replace(topics=tuple(kept)), context)
        assert answer is not None
        topics = answer["topics"] if kept else []
    if request.include_topic_authorized_operations:
        topics = [_with_operations(each, context) for each in topics]
    answer = {**answer, "topics": [*topics, *refusals]}
    if getattr(request, "include_cluster_authorized_operations", False):
        answer = _with_cluster_operations(answer, context)
    return answer


def _may_see(context: Context, name: str) -> bool:
    return context.allows(Operation.DESCRIBE, Resource.TOPIC, name)


def _may_ask(topic: Any, request: Any, context: Context) -> bool:
    """Whether it may be told of, and made where asking for it makes it."""
    if not is_named_allowed(topic, context, Operation.DESCRIBE):
        return False
    creates = request.allow_auto_topic_creation and context.broker.config.auto_create_topics_enable
    if not creates or not topic.name or context.broker.partitions.has_topic(topic.name):
        return True
    return context.allows(Operation.CREATE, Resource.CLUSTER, CLUSTER_NAME) or context.allows(
        Operation.CREATE, Resource.TOPIC, topic.name
    )


def _refusal(topic: Any, context: Context) -> Fields:
    if topic.name:
        return {
            "error_code": TOPIC_REFUSED,
            "name": topic.name,
            "is_internal": topic.name in INTERNAL_TOPICS,
        }
    return {
        "error_code": _UNKNOWN_TOPIC_ID,
        "topic_id": topic.topic_id,
        "name": None if context.version >= _NULL_NAME_FROM else "",
    }


def _with_operations(topic: Fields, context: Context) -> Fields:
    if topic.get("error_code", 0):
        return topic
    found = context.operations(Resource.TOPIC, topic["name"])
    return {**topic, "topic_authorized_operations": found}


def _with_cluster_operations(answer: Fields, context: Context) -> Fields:
    found = context.operations(Resource.CLUSTER, CLUSTER_NAME)
    return {**answer, "cluster_authorized_operations": found}


async def _describe_cluster(request: Any, context: Context, handler: Handler) -> Fields | None:
    """Everybody may ask where the cluster is."""
    answer = await handler.handle(request, context)
    if answer is None or not request.include_cluster_authorized_operations:
        return answer
    return _with_cluster_operations(answer, context)


async def _describe_topic_partitions(
    request: Any, context: Context, handler: Handler
) -> Fields | None:
    if request.topics:
        kept, refused = split(request.topics, lambda each: _may_see(context, each.name))
    else:
        names = context.broker.partitions.topics()
        kept, refused = [_Named(each) for each in names if _may_see(context, each)], []
    answer: Fields | None = {"topics": []}
    if kept:  # none would mean all
        answer = await handler.handle(request._replace(topics=tuple(kept)), context)
    assert answer is not None
    topics = answer["topics"]
    return joined(
        {**answer, "topics": [_with_operations(each, context) for each in topics]},
        "topics",
        [{"name": each.name, "error_code": TOPIC_REFUSED} for each in refused],
    )


GUARDS: dict[int, Guard] = {
    3: _metadata,
    60: _describe_cluster,
    75: _describe_topic_partitions,
}
