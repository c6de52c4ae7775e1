"""Guards of the APIs that are about topics and their partitions."""

from __future__ import annotations

from typing import Any

from millstream.log.security.acl import CLUSTER_NAME, Operation, Resource
from millstream.log.server.handler import Context, Fields, Handler

from .rights import (
    TOPIC_REFUSED,
    TRANSACTIONAL_ID_REFUSED,
    Guard,
    by_topic,
    is_named_allowed,
    joined,
    split,
)

__all__ = ["GUARDS"]


async def _produce(request: Any, context: Context, handler: Handler) -> Fields | None:
    name = request.transactional_id
    if name is not None and not context.allows(Operation.WRITE, Resource.TRANSACTIONAL_ID, name):
        assert handler.failed is not None
        return handler.failed(request, TRANSACTIONAL_ID_REFUSED)
    return await by_topic(
        request, context, handler, Operation.WRITE, asked="topic_data", answered="responses"
    )


async def _fetch(request: Any, context: Context, handler: Handler) -> Fields | None:
    return await by_topic(request, context, handler, Operation.READ, answered="responses")


async def _describe(request: Any, context: Context, handler: Handler) -> Fields | None:
    return await by_topic(request, context, handler, Operation.DESCRIBE)


async def _delete_records(request: Any, context: Context, handler: Handler) -> Fields | None:
    return await by_topic(request, context, handler, Operation.DELETE)


async def _create_partitions(request: Any, context: Context, handler: Handler) -> Fields | None:
    return await by_topic(request, context, handler, Operation.ALTER, answered="results")


async def _create_topics(request: Any, context: Context, handler: Handler) -> Fields | None:
    """To create any topic is a right to the cluster, to create one a right to its name. Settings
    are told to those who may see them."""
    if context.allows(Operation.CREATE, Resource.CLUSTER, CLUSTER_NAME):
        answer = await handler.handle(request, context)
    else:
        answer = await by_topic(request, context, handler, Operation.CREATE)
    assert answer is not None
    return {**answer, "topics": [_without_settings(each, context) for each in answer["topics"]]}


def _without_settings(answer: Fields, context: Context) -> Fields:
    if answer.get("error_code", 0) or context.allows(
        Operation.DESCRIBE_CONFIGS, Resource.TOPIC, answer["name"]
    ):
        return answer
    return {
        **answer,
        "topic_config_error_code": TOPIC_REFUSED,
        "num_partitions": -1,
        "replication_factor": -1,
        "configs": None,
    }


async def _delete_topics(request: Any, context: Context, handler: Handler) -> Fields | None:
    """Up to version 5 topics are texts. One that is named by id is not named to those who may not
    see it."""

    def allowed(each: Any, operation: Operation = Operation.DELETE) -> bool:
        if isinstance(each, str):
            return context.allows(operation, Resource.TOPIC, each)
        return is_named_allowed(each, context, operation)

    field = "topic_names" if "topic_names" in request._fields else "topics"
    kept, refused = split(getattr(request, field), allowed)
    answer = await handler.handle(request._replace(**{field: tuple(kept)}), context)
    assert answer is not None
    refusals: list[Fields] = [
        {
            "name": each if isinstance(each, str) else each.name,
            "topic_id": None if isinstance(each, str) else each.topic_id,
            "error_code": TOPIC_REFUSED,
        }
        for each in refused
    ]
    return joined(answer, "responses", refusals)


async def _describe_producers(request: Any, context: Context, handler: Handler) -> Fields | None:
    kept, refused = split(
        request.topics, lambda each: is_named_allowed(each, context, Operation.READ)
    )
    answer = await handler.handle(request._replace(topics=tuple(kept)), context)
    assert answer is not None
    refusals: list[Fields] = [
        {
            "name": topic.name,
            "partitions": [
                {"partition_index": each, "error_code": TOPIC_REFUSED}
                for each in topic.partition_indexes
            ],
        }
        for topic in refused
    ]
    return joined(answer, "topics", refusals)


GUARDS: dict[int, Guard] = {
    0: _produce,
    1: _fetch,
    2: _describe,
    19: _create_topics,
    20: _delete_topics,
    21: _delete_records,
    23: _describe,
    37: _create_partitions,
    61: _describe_producers,
}
