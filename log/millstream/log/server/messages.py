"""Requests and responses of every version, as the same fields.

    request = decode_request(3, 12, frame, position)     # request.topics[0].name
    buffers = encode_response(3, 12, {"topics": [{"name": "orders", ...}]})

Names of fields are kio's: Kafka's in snake case, without "_ms": `request.max_wait`.
"""

from __future__ import annotations

import struct
from typing import Any

from .decoding import MalformedRequestError, Source, reader_of
from .encoding import Buffers, Fields, writer_of
from .schema import struct_schema

__all__ = ["decode_request", "encode_response", "request_header_version", "response_header_version"]


def request_header_version(api_key: int, version: int) -> int:
    """1, or 2 for flexible versions."""
    return struct_schema(api_key, version, "request").header_version


def response_header_version(api_key: int, version: int) -> int:
    """0, or 1 for flexible versions, except of ApiVersions."""
    return struct_schema(api_key, version, "response").header_version


def decode_request(api_key: int, version: int, frame: bytes, position: int) -> Any:
    """The fields of the request whose body begins at `position`.

    Bytes left over are let be, as Kafka does: librdkafka, asking for all topics, sends three.

    Bytes after it are passed over, as Kafka does: librdkafka (2.16) leaves three behind where it
    asks for all topics.

    Raises:
        MalformedRequestError: it is no such request.
    """
    source = Source(frame, position)
    try:
        if request_header_version(api_key, version) == 2:
            source.skip_tagged_fields()
        return reader_of(struct_schema(api_key, version, "request"))(source)
    except struct.error as error:
        raise MalformedRequestError(f"it ends within a number: {error}.") from error


def encode_response(api_key: int, version: int, fields: Fields) -> Buffers:
    """The pieces of the body of a response."""
    buffers: Buffers = []
    writer_of(struct_schema(api_key, version, "response"))(buffers, fields)
    return buffers
