"""Guards of the APIs that are about transactions and idempotent producers."""

from __future__ import annotations

from typing import Any

from millstream.log.security.acl import CLUSTER_NAME, Operation, Resource
from millstream.log.server.handler import Context, Fields, Handler

from .groups import commit_refusals, committed
from .rights import (
    GROUP_REFUSED,
    TOPIC_REFUSED,
    TRANSACTIONAL_ID_REFUSED,
    ClusterRefusedError,
    Guard,
    check_cluster,
    check_group,
    check_transactional_id,
    is_named_allowed,
    joined,
    split,
)

__all__ = ["GUARDS"]

_OPERATION_NOT_ATTEMPTED = 55
_BY_CLIENTS_UNTIL = 3
"""AddPartitionsToTxn of later versions is what brokers send each other."""


def _may(context: Context, operation: Operation, name: str) -> bool:
    return context.allows(operation, Resource.TRANSACTIONAL_ID, name)


async def _init_producer_id(request: Any, context: Context, handler: Handler) -> Fields | None:
    """Without a transactional id: for who may write anything anywhere (KIP-679)."""
    name = request.transactional_id
    if name is not None:
        check_transactional_id(context, Operation.WRITE, name)
    elif not (
        context.allows(Operation.IDEMPOTENT_WRITE, Resource.CLUSTER, CLUSTER_NAME)
        or context.allows_any(Operation.WRITE, Resource.TOPIC)
    ):
        raise ClusterRefusedError(f"{context.principal} may not write to any topic.")
    return await handler.handle(request, context)


async def _add_partitions(request: Any, context: Context, handler: Handler) -> Fields | None:
    if context.version > _BY_CLIENTS_UNTIL:
        check_cluster(context, Operation.CLUSTER_ACTION)
        return await handler.handle(request, context)
    topics = request.v3_and_below_topics
    if not _may(context, Operation.WRITE, request.v3_and_below_transactional_id):
        return _added({id(each): TRANSACTIONAL_ID_REFUSED for each in topics}, topics)
    _, refused = split(topics, lambda each: is_named_allowed(each, context, Operation.WRITE))
    if not refused:
        return await handler.handle(request, context)
    return _added({id(each): TOPIC_REFUSED for each in refused}, topics)


def _added(codes: dict[int, int], topics: Any) -> Fields:
    """All or nothing: where one is refused, the others are not attempted."""
    return {
        "results_by_topic_v3_and_below": [
            {
                "name": topic.name,
                "results_by_partition": [
                    {
                        "partition_index": each,
                        "partition_error_code": codes.get(id(topic), _OPERATION_NOT_ATTEMPTED),
                    }
                    for each in topic.partitions
                ],
            }
            for topic in topics
        ]
    }


async def _add_offsets(request: Any, context: Context, handler: Handler) -> Fields | None:
    check_transactional_id(context, Operation.WRITE, request.transactional_id)
    check_group(context, Operation.READ, request.group_id)
    return await handler.handle(request, context)


async def _end(request: Any, context: Context, handler: Handler) -> Fields | None:
    check_transactional_id(context, Operation.WRITE, request.transactional_id)
    return await handler.handle(request, context)


async def _offset_commit(request: Any, context: Context, handler: Handler) -> Fields | None:
    if not _may(context, Operation.WRITE, request.transactional_id):
        return {"topics": commit_refusals(request.topics, TRANSACTIONAL_ID_REFUSED)}
    if not context.allows(Operation.READ, Resource.GROUP, request.group_id):
        return {"topics": commit_refusals(request.topics, GROUP_REFUSED)}
    return await committed(request, context, handler)


async def _describe(request: Any, context: Context, handler: Handler) -> Fields | None:
    """Of its partitions those of topics that may be seen are told."""
    kept, refused = split(
        request.transactional_ids, lambda each: _may(context, Operation.DESCRIBE, each)
    )
    answer = await handler.handle(request._replace(transactional_ids=tuple(kept)), context)
    assert answer is not None
    states = [
        {
            **state,
            "topics": [
                each
                for each in state.get("topics", ())
                if context.allows(Operation.DESCRIBE, Resource.TOPIC, each["topic"])
            ],
        }
        for state in answer["transaction_states"]
    ]
    refusals: list[Fields] = [
        {"transactional_id": each, "error_code": TRANSACTIONAL_ID_REFUSED} for each in refused
    ]
    return joined({**answer, "transaction_states": states}, "transaction_states", refusals)


async def _list(request: Any, context: Context, handler: Handler) -> Fields | None:
    answer = await handler.handle(request, context)
    assert answer is not None
    states = [
        each
        for each in answer["transaction_states"]
        if _may(context, Operation.DESCRIBE, each["transactional_id"])
    ]
    return {**answer, "transaction_states": states}


GUARDS: dict[int, Guard] = {
    22: _init_producer_id,
    24: _add_partitions,
    25: _add_offsets,
    26: _end,
    28: _offset_commit,
    65: _describe,
    66: _list,
}
