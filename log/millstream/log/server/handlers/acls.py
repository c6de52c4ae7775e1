"""DescribeAcls, CreateAcls, DeleteAcls (KIP-11, KIP-140, KIP-290)."""

from __future__ import annotations

from typing import Any

from millstream.log.errors import InvalidRequestError, LogError
from millstream.log.security.acl import (
    CLUSTER_NAME,
    OPERATIONS,
    Acl,
    AclFilter,
    Operation,
    Pattern,
    Permission,
    Resource,
)
from millstream.log.server.handler import Context, Fields, Handler

__all__ = ["HANDLERS"]


class _SecurityDisabledError(LogError):
    kafka_code = 54


def _check_enabled(context: Context) -> None:
    if context.peer.authorizer is None:
        raise _SecurityDisabledError(
            "Nobody has to show who he is here, so nobody's access is controlled. Serve the log "
            "on a SASL or SSL listener."
        )


async def _describe_acls(request: Any, context: Context) -> Fields:
    _check_enabled(context)
    wanted = _filter(request)
    found: dict[tuple[Resource, str, Pattern], list[Fields]] = {}
    for each in sorted(context.broker.security().acls):
        if wanted.matches(each):
            found.setdefault((each.resource, each.name, each.pattern), []).append(
                {
                    "principal": each.principal,
                    "host": each.host,
                    "operation": each.operation,
                    "permission_type": each.permission,
                }
            )
    return {
        "resources": [
            {"resource_type": resource, "resource_name": name, "pattern_type": kind, "acls": acls}
            for (resource, name, kind), acls in found.items()
        ]
    }


def _filter(fields: Any) -> AclFilter:
    """Raises InvalidRequestError for numbers that mean nothing."""
    try:
        return AclFilter(
            Resource(fields.resource_type_filter),
            fields.resource_name_filter,
            Pattern(fields.pattern_type_filter),
            fields.principal_filter,
            fields.host_filter,
            Operation(fields.operation),
            Permission(fields.permission_type),
        )
    except ValueError as error:
        raise InvalidRequestError(f"A filter of access control lists: {error}.") from error


async def _create_acls(request: Any, context: Context) -> Fields:
    _check_enabled(context)
    results: list[Fields] = []
    added = []
    for each in request.creations:
        try:
            added.append(_checked(each))
            results.append({})
        except LogError as error:
            results.append({"error_code": error.kafka_code, "error_message": str(error)})
    await context.broker.security().add_acls(added)
    return {"results": results}


def _checked(fields: Any) -> Acl:
    """Raises InvalidRequestError for what can be no rule."""
    try:
        acl = Acl(
            Resource(fields.resource_type),
            fields.resource_name,
            Pattern(fields.resource_pattern_type),
            fields.principal,
            fields.host,
            Operation(fields.operation),
            Permission(fields.permission_type),
        )
    except ValueError as error:
        raise InvalidRequestError(f"An access control list: {error}.") from error
    if acl.resource not in OPERATIONS:
        raise InvalidRequestError("A rule is for a topic, a group, the cluster or an id.")
    if acl.operation not in (Operation.ALL, *OPERATIONS[acl.resource]):
        raise InvalidRequestError(
            f"{acl.operation.name} cannot be done to a {acl.resource.name.lower()}; these can: "
            f"ALL, {', '.join(each.name for each in OPERATIONS[acl.resource])}."
        )
    if acl.pattern not in (Pattern.LITERAL, Pattern.PREFIXED) or acl.permission is Permission.ANY:
        raise InvalidRequestError(
            "A rule has a pattern, LITERAL or PREFIXED, and a permission, ALLOW or DENY."
        )
    if acl.resource is Resource.CLUSTER and acl.name != CLUSTER_NAME:
        raise InvalidRequestError(f"The cluster's name is {CLUSTER_NAME}, not {acl.name!r}.")
    kind, colon, name = acl.principal.partition(":")
    if not (kind and colon and name and acl.name and acl.host):
        raise InvalidRequestError(
            f"A rule names a resource, a host, and a principal such as User:anna; this one has "
            f"{acl.name!r}, {acl.host!r} and {acl.principal!r}."
        )
    return acl


def _create_failed(request: Any, code: int) -> Fields:
    return {"results": [{"error_code": code} for _ in request.creations]}


async def _delete_acls(request: Any, context: Context) -> Fields:
    _check_enabled(context)
    store = context.broker.security()
    results: list[Fields] = []
    gone: set[Acl] = set()
    for each in request.filters:
        try:
            wanted = _filter(each)
        except LogError as error:
            results.append(
                {"error_code": error.kafka_code, "error_message": str(error), "matching_acls": []}
            )
            continue
        found = [acl for acl in sorted(store.acls) if wanted.matches(acl)]
        gone.update(found)
        results.append({"matching_acls": [_deleted(acl) for acl in found]})
    await store.delete_acls(gone)
    return {"filter_results": results}


def _deleted(acl: Acl) -> Fields:
    return {
        "resource_type": acl.resource,
        "resource_name": acl.name,
        "pattern_type": acl.pattern,
        "principal": acl.principal,
        "host": acl.host,
        "operation": acl.operation,
        "permission_type": acl.permission,
    }


def _delete_failed(request: Any, code: int) -> Fields:
    failed = [{"error_code": code, "matching_acls": []} for _ in request.filters]
    return {"filter_results": failed}


HANDLERS = {
    29: Handler(range(1, 4), _describe_acls),
    30: Handler(range(1, 4), _create_acls, failed=_create_failed),
    31: Handler(range(1, 4), _delete_acls, failed=_delete_failed),
}
