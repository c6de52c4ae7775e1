"""DescribeClientQuotas, AlterClientQuotas (KIP-546): how fast clients may go."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from millstream.log.errors import InvalidRequestError, LogError
from millstream.log.security.quotas import DEFAULT, QUOTAS, Entity
from millstream.log.server.handler import Context, Fields, Handler

__all__ = ["HANDLERS"]

_TYPES = ("user", "client-id")
_EXACT, _DEFAULT, _ANY = range(3)


def _by_type(entity: Entity) -> dict[str, str]:
    values = zip(_TYPES, entity, strict=True)
    return {kind: value for kind, value in values if value is not None}


def _check_type(kind: str, there: Mapping[str, Any]) -> None:
    if kind not in _TYPES:
        raise InvalidRequestError(f"Quotas are for {' and '.join(_TYPES)}, not for {kind!r}.")
    if kind in there:
        raise InvalidRequestError(f"{kind} is named twice.")


async def _describe(request: Any, context: Context) -> Fields:
    wanted: dict[str, Any] = {}
    try:
        for each in request.components:
            _check_type(each.entity_type, wanted)
            if each.match_type not in (_EXACT, _DEFAULT, _ANY):
                raise InvalidRequestError(f"There is no match of type {each.match_type}.")
            wanted[each.entity_type] = each
    except InvalidRequestError as error:
        return {"error_code": error.kafka_code, "error_message": str(error), "entries": None}
    return {
        "entries": [
            {
                "entity": _entity_fields(entity),
                "values": [{"key": key, "value": value} for key, value in sorted(values.items())],
            }
            for entity, values in context.broker.security().quotas.items()
            if _matches(_by_type(entity), wanted, strict=request.strict)
        ]
    }


def _matches(entity: Mapping[str, str], wanted: Mapping[str, Any], *, strict: bool) -> bool:
    if strict and entity.keys() != wanted.keys():
        return False
    for kind, filter_ in wanted.items():
        value = entity.get(kind)
        if value is None:
            return False
        if filter_.match_type == _EXACT and (not value or value != filter_.match):
            return False
        if filter_.match_type == _DEFAULT and value != DEFAULT:
            return False
    return True


def _entity_fields(entity: Entity) -> list[Fields]:
    return [
        {"entity_type": kind, "entity_name": value or None}
        for kind, value in _by_type(entity).items()
    ]


async def _alter(request: Any, context: Context) -> Fields:
    results: list[Fields] = []
    changes: dict[Entity, dict[str, float | None]] = {}
    for each in request.entries:
        named = [
            {"entity_type": part.entity_type, "entity_name": part.entity_name}
            for part in each.entity
        ]
        try:
            entity = _entity(each.entity)
            if entity in changes:
                raise InvalidRequestError("It is named twice.")
            changes[entity] = {operation.key: _value(operation) for operation in each.ops}
            results.append({"entity": named})
        except LogError as error:
            results.append(
                {"entity": named, "error_code": error.kafka_code, "error_message": str(error)}
            )
    if not request.validate_only:
        await context.broker.security().set_quotas(changes)
    return {"entries": results}


def _entity(parts: Any) -> Entity:
    found: dict[str, str] = {}
    for each in parts:
        _check_type(each.entity_type, found)
        if each.entity_name == "":
            raise InvalidRequestError(f"A {each.entity_type} without a name; null is the default.")
        found[each.entity_type] = each.entity_name or DEFAULT
    if not found:
        raise InvalidRequestError("A quota is for a user, a client id, or both.")
    return Entity(found.get("user"), found.get("client-id"))


def _value(operation: Any) -> float | None:
    if operation.key not in QUOTAS:
        raise InvalidRequestError(
            f"There is no quota {operation.key!r}; these are: {', '.join(QUOTAS)}."
        )
    if operation.remove:
        return None
    value = float(operation.value)
    if not (isfinite(value) and value > 0):
        raise InvalidRequestError(f"{operation.key} is {value}; it must be above 0.")
    return value


def _alter_failed(request: Any, code: int) -> Fields:
    return {
        "entries": [
            {
                "error_code": code,
                "entity": [
                    {"entity_type": part.entity_type, "entity_name": part.entity_name}
                    for part in each.entity
                ],
            }
            for each in request.entries
        ]
    }


def _describe_failed(_request: Any, code: int) -> Fields:
    return {"error_code": code, "entries": None}


HANDLERS = {
    48: Handler(range(2), _describe, failed=_describe_failed),
    49: Handler(range(2), _alter, failed=_alter_failed),
}
