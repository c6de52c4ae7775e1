"""SaslHandshake and SaslAuthenticate: a client shows who it is; see `login.py`."""

from __future__ import annotations

from typing import Any

from millstream.log.security.scram import LoginError
from millstream.log.server.handler import Context, Fields, Handler

__all__ = ["HANDLERS"]

_UNSUPPORTED_MECHANISM = 33
_ILLEGAL_STATE = 34
_WITH_REQUESTS_FROM = 1
"""From this version of SaslHandshake on the mechanism's messages come in SaslAuthenticate."""


async def _handshake(request: Any, context: Context) -> Fields:
    login = context.peer.login
    if login is None:
        return {"error_code": _ILLEGAL_STATE}
    mechanisms = list(login.mechanisms)
    try:
        found = login.begin(request.mechanism, raw=context.version < _WITH_REQUESTS_FROM)
    except LoginError as error:
        return {"error_code": error.kafka_code, "mechanisms": mechanisms}
    return {"error_code": 0 if found else _UNSUPPORTED_MECHANISM, "mechanisms": mechanisms}


async def _authenticate(request: Any, context: Context) -> Fields:
    login = context.peer.login
    if login is None:
        return {"error_code": _ILLEGAL_STATE, "error_message": "This listener asks nobody."}
    try:
        answer = await login.step(request.auth_bytes)
    except LoginError as error:
        # Why is for the server's own log: who guesses must not learn what was wrong.
        return {"error_code": error.kafka_code, "error_message": "Authentication failed."}
    return {"auth_bytes": answer.token, "session_lifetime": answer.lifetime_ms}


HANDLERS = {17: Handler(range(2), _handshake), 36: Handler(range(3), _authenticate)}
