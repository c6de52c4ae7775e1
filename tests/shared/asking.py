"""Requests and responses of Kafka's protocol written and read by kio's own codec, not by ours.

    answer = await ask(broker, 19, 7, topics=[{"name": "orders", ...}])     # answer.topics[0]

Fields that are not given have Kafka's default, or nothing in them.
"""

from __future__ import annotations

import datetime as dt
import io
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from kio.index import load_request_schema, load_response_schema
from kio.serial import entity_reader, entity_writer

from millstream.log.broker.broker import Broker
from millstream.log.server.dispatch import call_of, respond
from millstream.log.server.handler import Context, Identity, Peer

__all__ = ["ask", "request_frame", "response_of"]

_NOTHING = {
    "bool": False, "bytes": b"", "records": None, "string": "", "uuid": None,
    "timedelta_i32": dt.timedelta(), "timedelta_i64": dt.timedelta(),
}  # fmt: skip


def request_frame(key: int, version: int, /, *, correlation_id: int = 7, **values: Any) -> bytes:
    """A request without its length."""
    schema = load_request_schema(key, version)
    header = schema.__header_schema__
    out = io.BytesIO()
    entity_writer(header)(
        out,
        header(
            request_api_key=key,
            request_api_version=version,
            correlation_id=correlation_id,
            client_id="tests",
        ),
    )
    entity_writer(schema)(out, _built(schema, values))
    return out.getvalue()


def response_of(key: int, version: int, frame: bytes, *, correlation_id: int = 7) -> Any:
    """A response without its length."""
    schema = load_response_schema(key, version)
    header, header_bytes = entity_reader(schema.__header_schema__)(frame, 0)
    assert header.correlation_id == correlation_id
    response, body_bytes = entity_reader(schema)(frame, header_bytes)
    assert header_bytes + body_bytes == len(frame)
    return response


async def ask(broker: Broker, key: int, version: int, /, **values: Any) -> Any:
    """What the server answers to a request, without a network."""
    frame = request_frame(key, version, **values)
    context = Context(
        broker, Identity("cluster", "localhost", 9092), Peer("test"), "tests", key, version
    )
    buffers = await respond(call_of(frame), context)
    assert buffers is not None
    data = b"".join(buffers)
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    return response_of(key, version, data[4:])


def _built(schema: Any, values: dict[str, Any]) -> Any:
    found = {}
    for field in fields(schema):
        if field.name in values:
            found[field.name] = _value(field.type, values[field.name])
        elif field.default is MISSING:
            found[field.name] = _nothing(field)
    return schema(**found)


def _value(kind: Any, value: Any) -> Any:
    if get_origin(kind) is UnionType:
        kind = next(each for each in get_args(kind) if each is not NoneType)
    if get_origin(kind) is tuple and value is not None:
        return tuple(_value(get_args(kind)[0], each) for each in value)
    return _built(kind, value) if is_dataclass(kind) and value is not None else value


def _nothing(field: Any) -> Any:
    if get_origin(field.type) is tuple:
        return ()
    if get_origin(field.type) is UnionType or is_dataclass(field.type):
        return None
    return _NOTHING.get(field.metadata["kafka_type"], 0)
