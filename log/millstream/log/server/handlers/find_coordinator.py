"""FindCoordinator: who keeps a group or a transactional id. There is one node."""

from __future__ import annotations

from typing import Any

from millstream.log.server.handler import NODE_ID, Context, Fields, Handler

__all__ = ["HANDLERS"]

_INVALID_REQUEST = 42
_KEY_TYPES = (0, 1)  # groups and transactional ids; 2 is share groups, which are not there
_MANY_FROM = 4


async def _find_coordinator(request: Any, context: Context) -> Fields:
    known = request.key_type in _KEY_TYPES
    if context.version < _MANY_FROM:
        return _found(context) if known else _refused(_INVALID_REQUEST)
    return {
        "coordinators": [
            {"key": key} | (_found(context) if known else _refused(_INVALID_REQUEST))
            for key in request.coordinator_keys
        ]
    }


def _found(context: Context) -> dict[str, Any]:
    identity = context.identity
    return {"node_id": NODE_ID, "host": identity.host, "port": identity.port, "error_message": ""}


def _refused(code: int) -> dict[str, Any]:
    return {"node_id": -1, "host": "", "port": -1, "error_code": code, "error_message": ""}


def _failed(request: Any, code: int) -> Fields:
    keys = request.coordinator_keys
    return _refused(code) | {"coordinators": [{"key": key} | _refused(code) for key in keys]}


HANDLERS = {10: Handler(range(7), _find_coordinator, failed=_failed)}
