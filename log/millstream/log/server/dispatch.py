"""From a frame to its handler, and from what the handler answers to a frame.

`handler.py` says how a handler is added.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from millstream.log.errors import LogError
from millstream.log.security.quotas import Quotas

from .decoding import MalformedRequestError
from .encoding import Buffers, Fields
from .frames import RequestHeader, parse_header, response_frame
from .guards.rights import guarded
from .handler import Context, Handler, HangUpError
from .login import Login
from .messages import decode_request, encode_response, response_header_version
from .schema import struct_schema
from .throttling import Usage

__all__ = [
    "HANDLER_MODULES",
    "LARGE_ANSWERS",
    "LOGIN_APIS",
    "Call",
    "apis",
    "call_of",
    "failure",
    "respond",
    "understood",
]

logger = logging.getLogger("millstream.log")

HANDLER_MODULES = (
    "acls",
    "api_versions",
    "client_quotas",
    "configs",
    "consumer_groups",
    "fetch",
    "find_coordinator",
    "group_admin",
    "groups",
    "metadata",
    "offsets",
    "offsets_of_partitions",
    "placement",
    "produce",
    "record_deletion",
    "sasl",
    "scram_users",
    "topic_changes",
    "transactions",
)
"""In `handlers/`. Each has HANDLERS: API key -> Handler."""

SASL_HANDSHAKE = 17
API_VERSIONS = 18
SASL_AUTHENTICATE = 36
LOGIN_APIS = frozenset({SASL_HANDSHAKE, API_VERSIONS, SASL_AUTHENTICATE})
"""What a client may ask that has not logged in; no quota counts them."""
LARGE_ANSWERS = frozenset({3, 9, 15, 16, 29, 32, 35, 48, 61, 65, 66, 69, 75})
"""Lists and descriptions of what may be many: they begin when there is room for answers. Fetches
ask for it by themselves, before they read."""
_SECRET_APIS = frozenset({SASL_AUTHENTICATE, 51})
"""Requests that hold passwords or what passwords become: not for the program's log."""
UNKNOWN_SERVER_ERROR = -1
UNSUPPORTED_VERSION = 35


class _Token(NamedTuple):
    data: bytes


class Call(NamedTuple):
    """A request that was understood. `version` is what it is answered in."""

    handler: Handler
    header: RequestHeader
    version: int
    request: Any
    size_bytes: int


@cache
def apis() -> dict[int, Handler]:
    """Every API there is, by key."""
    found: dict[int, Handler] = {}
    for name in HANDLER_MODULES:
        found |= import_module(f"{__package__}.handlers.{name}").HANDLERS
    return dict(sorted(found.items()))


def call_of(frame: bytes) -> Call:
    """What a frame asks for.

    Raises:
        MalformedRequestError: it is no request, or one that is not answered: nobody can tell in
            which form its sender would understand an error, so the connection has to end.
    """
    header = parse_header(frame)
    handler = apis().get(header.api_key)
    if handler is None:
        raise MalformedRequestError(f"API {header.api_key} is not there.")
    version = header.version
    if version not in handler.versions:
        if header.api_key == API_VERSIONS:
            return Call(handler, header, 0, None, len(frame))
        raise MalformedRequestError(
            f"API {header.api_key} version {version}; {handler.versions.start} to "
            f"{handler.versions.stop - 1} are answered."
        )
    request = decode_request(header.api_key, version, frame, header.body)
    return Call(handler, header, version, request, len(frame))


def understood(frame: bytes, login: Login | None) -> Call:
    """As `call_of`, where the client may ask for it as far as its login has come.

    Raises:
        MalformedRequestError: also for what may not be asked yet, or not any more.
    """
    if login is not None:
        if login.raw:  # a message that came without a request around it; see `login.py`
            header = RequestHeader(SASL_AUTHENTICATE, 0, 0, None, 0)
            return Call(apis()[SASL_AUTHENTICATE], header, 0, _Token(frame), len(frame))
        api_key = parse_header(frame).api_key
        if api_key not in LOGIN_APIS and not login.holds():
            raise MalformedRequestError(f"API {api_key} without a login that holds.")
    return call_of(frame)


async def respond(call: Call, context: Context) -> Buffers | None:
    """Run the handler; the whole frame of its response, None where there is none."""
    if isinstance(call.request, _Token):
        assert context.peer.login is not None
        return await context.peer.login.raw_answer(call.request.data)
    quotas = context.peer.quotas
    if quotas is None or quotas.is_empty or context.api_key in LOGIN_APIS:
        fields = await _handled(call, context)
        return None if fields is None else _frame(call, fields)
    return await _within(quotas, call, context)


async def _handled(call: Call, context: Context) -> Fields | None:
    try:
        if context.peer.authorizer is None:
            return await call.handler.handle(call.request, context)
        return await guarded(call.handler, call.request, context)
    except LogError as error:
        return _failed(call, error.kafka_code)


async def _within(quotas: Quotas, call: Call, context: Context) -> Buffers | None:
    """As `respond`, where quotas hold: a client that went too fast is told so, and kept waiting."""
    usage = Usage(quotas, context)
    fields = await usage.timed(_handled(call, context))
    frame = None if fields is None else _frame(call, fields)
    throttle_s = usage.throttle_s(call.size_bytes, frame)
    if throttle_s:
        context.peer.throttle_s = max(context.peer.throttle_s, throttle_s)
        schema = struct_schema(call.header.api_key, call.version, "response")
        if fields is not None and any(each.name == "throttle_time" for each in schema.fields):
            frame = _frame(call, {**fields, "throttle_time": round(throttle_s * 1000)})
    return frame


def failure(call: Call, error: BaseException) -> Buffers:
    """The answer to a request whose handler raised what it should not.

    Raises:
        HangUpError: the response has no place for it; the connection has to end.
    """
    logger.error(
        "API %d version %d failed on %.200r: report this with what follows.",
        call.header.api_key,
        call.version,
        "a login" if call.header.api_key in _SECRET_APIS else call.request,
        exc_info=error,
    )
    return _frame(call, _failed(call, UNKNOWN_SERVER_ERROR))


def _failed(call: Call, code: int) -> Fields:
    if call.handler.failed is not None:
        return call.handler.failed(call.request, code)
    schema = struct_schema(call.header.api_key, call.version, "response")
    if any(each.name == "error_code" for each in schema.fields):
        return {"error_code": code}
    raise HangUpError(
        f"API {call.header.api_key} version {call.version} failed with error {code}, and its "
        "response cannot say so."
    )


def _frame(call: Call, fields: Fields) -> Buffers:
    key, version = call.header.api_key, call.version
    body = encode_response(key, version, fields)
    return response_frame(call.header.correlation_id, response_header_version(key, version), body)
