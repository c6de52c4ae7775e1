"""Guards of the APIs that are about the log as a whole, about settings, and about who may come."""

from __future__ import annotations

from typing import Any

from millstream.log.security.acl import CLUSTER_NAME, Operation, Resource
from millstream.log.server.handler import Context, Fields, Handler

from .rights import (
    CLUSTER_REFUSED,
    GROUP_REFUSED,
    TOPIC_REFUSED,
    TRANSACTIONAL_ID_REFUSED,
    Guard,
    check_cluster,
    joined,
    split,
)

__all__ = ["GUARDS"]

_CONFIG_TOPIC, _CONFIG_GROUP = 2, 32
_GROUPS, _TRANSACTIONAL_IDS = 0, 1
_MANY_KEYS_FROM = 4


async def _everybody(request: Any, context: Context, handler: Handler) -> Fields | None:
    return await handler.handle(request, context)


def _with(operation: Operation) -> Guard:
    """For who may do this to the cluster."""

    async def guard(request: Any, context: Context, handler: Handler) -> Fields | None:
        check_cluster(context, operation)
        return await handler.handle(request, context)

    return guard


async def _describe_log_dirs(request: Any, context: Context, handler: Handler) -> Fields | None:
    if not context.allows(Operation.DESCRIBE, Resource.CLUSTER, CLUSTER_NAME):
        return {"error_code": CLUSTER_REFUSED, "results": []}
    return await handler.handle(request, context)


async def _find_coordinator(request: Any, context: Context, handler: Handler) -> Fields | None:
    kinds = {
        _GROUPS: (Resource.GROUP, GROUP_REFUSED),
        _TRANSACTIONAL_IDS: (Resource.TRANSACTIONAL_ID, TRANSACTIONAL_ID_REFUSED),
    }
    if request.key_type not in kinds:
        return await handler.handle(request, context)
    resource, code = kinds[request.key_type]
    nowhere: Fields = {"node_id": -1, "host": "", "port": -1, "error_code": code}
    if context.version < _MANY_KEYS_FROM:
        if not context.allows(Operation.DESCRIBE, resource, request.key):
            return nowhere
        return await handler.handle(request, context)
    kept, refused = split(
        request.coordinator_keys, lambda key: context.allows(Operation.DESCRIBE, resource, key)
    )
    answer = await handler.handle(request._replace(coordinator_keys=tuple(kept)), context)
    assert answer is not None
    return joined(answer, "coordinators", [{**nowhere, "key": key} for key in refused])


def _configs(operation: Operation, answered: str) -> Guard:
    """Settings of topics and groups are theirs, all others the cluster's."""

    def code(entry: Any, context: Context) -> int:
        resource, name, refused = {
            _CONFIG_TOPIC: (Resource.TOPIC, entry.resource_name, TOPIC_REFUSED),
            _CONFIG_GROUP: (Resource.GROUP, entry.resource_name, GROUP_REFUSED),
        }.get(entry.resource_type, (Resource.CLUSTER, CLUSTER_NAME, CLUSTER_REFUSED))
        return 0 if context.allows(operation, resource, name) else refused

    async def guard(request: Any, context: Context, handler: Handler) -> Fields | None:
        codes = [code(each, context) for each in request.resources]
        if not any(codes):
            return await handler.handle(request, context)
        assert handler.failed is not None
        pairs = list(zip(request.resources, codes, strict=True))
        kept = tuple(each for each, refused in pairs if not refused)
        answer = await handler.handle(request._replace(resources=kept), context)
        assert answer is not None
        refusals: list[Fields] = []
        for each, refused in pairs:
            if refused:
                failed = handler.failed(request._replace(resources=(each,)), refused)
                refusals += failed[answered]
        return joined(answer, answered, refusals)

    return guard


GUARDS: dict[int, Guard] = {
    10: _find_coordinator,
    17: _everybody,
    18: _everybody,
    29: _with(Operation.DESCRIBE),
    30: _with(Operation.ALTER),
    31: _with(Operation.ALTER),
    32: _configs(Operation.DESCRIBE_CONFIGS, "results"),
    33: _configs(Operation.ALTER_CONFIGS, "responses"),
    35: _describe_log_dirs,
    36: _everybody,
    43: _with(Operation.ALTER),
    44: _configs(Operation.ALTER_CONFIGS, "responses"),
    46: _with(Operation.DESCRIBE),
    48: _with(Operation.DESCRIBE_CONFIGS),
    49: _with(Operation.ALTER_CONFIGS),
    50: _with(Operation.DESCRIBE),
    51: _with(Operation.ALTER),
    55: _with(Operation.DESCRIBE),
    57: _with(Operation.ALTER),
}
