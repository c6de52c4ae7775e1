"""Records as text, to be printed: values, keys and values, JSON, templates.

A template is kcat's (`kcat -f`): `%t %p %o %k %s %T %h` and sizes `%K %S %R`, with `\\n`, `\\t`,
`\\r`, `\\\\` and `\\xHH`.
"""

from __future__ import annotations

import binascii
import re
import struct
from collections.abc import Callable
from typing import Any

import orjson

from millstream.log.record import Headers, Record, RecordBatch

__all__ = ["Format", "FormatError", "argument_bytes", "formatter", "record_as_json", "unescaped"]

Format = Callable[[RecordBatch], list[bytes]]
"""What is printed for the records of a batch, one item each."""

ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(.))", re.DOTALL)
TOKEN = re.compile(rb"%(.)", re.DOTALL)
_SIZE = struct.Struct(">i")
Field = Callable[[Record], bytes]


class FormatError(ValueError):
    """No such format."""


def formatter(
    form: str, *, key_separator: str = "\\t", null_marker: str = "null", always_base64: bool = False
) -> Format:
    """The format of this name, or of this template.

    Raises:
        FormatError: neither a name nor a template.
    """
    null = argument_bytes(null_marker)
    if form == "value":
        return lambda batch: [(null if value is None else value) + b"\n" for value in batch.values]
    if form == "key-value":
        between = unescaped(key_separator)
        return lambda batch: [
            (null if key is None else key) + between + (null if value is None else value) + b"\n"
            for key, value in zip(batch.keys, batch.values, strict=True)
        ]
    if form == "json":
        return lambda batch: [
            orjson.dumps(
                record_as_json(record, always_base64=always_base64),
                option=orjson.OPT_APPEND_NEWLINE,
            )
            for record in batch
        ]
    if "%" in form:
        fields = _template(form, null)
        return lambda batch: [b"".join([field(record) for field in fields]) for record in batch]
    raise FormatError("it can be value, key-value, json, or a template with %s in it")


def argument_bytes(text: str) -> bytes:
    """The bytes of an argument as they were given, also where they are no UTF-8."""
    return text.encode(errors="surrogateescape")


def unescaped(text: str) -> bytes:
    r"""With `\n`, `\t`, `\r`, `\\` and `\xHH` replaced by what they stand for."""
    parts, end = [], 0
    for match in ESCAPE.finditer(text):
        parts.append(argument_bytes(text[end : match.start()]))
        if match[1] is not None:
            parts.append(bytes([int(match[1], 16)]))
        else:
            parts.append(argument_bytes(ESCAPES.get(match[2], match[0])))
        end = match.end()
    parts.append(argument_bytes(text[end:]))
    return b"".join(parts)


def record_as_json(record: Record, *, always_base64: bool = False) -> dict[str, Any]:
    """Everything of a record; bytes that are no text as base64."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        **_text("key", record.key, always_base64),
        **_text("value", record.value, always_base64),
        "headers": [
            {"key": name, **_text("value", value, always_base64)} for name, value in record.headers
        ],
    }


def _text(name: str, data: bytes | None, always_base64: bool) -> dict[str, str | None]:
    """`name` as text, or `name_base64` where the bytes are none."""
    if data is None:
        return {name: None}
    if not always_base64:
        try:
            return {name: data.decode()}
        except UnicodeDecodeError:
            pass
    return {f"{name}_base64": binascii.b2a_base64(data, newline=False).decode()}


def _template(form: str, null: bytes) -> list[Field]:
    fields: dict[bytes, Field] = {
        b"t": lambda record: record.topic.encode(),
        b"p": lambda record: b"%d" % record.partition,
        b"o": lambda record: b"%d" % record.offset,
        b"T": lambda record: b"%d" % record.timestamp,
        b"k": lambda record: null if record.key is None else record.key,
        b"s": lambda record: null if record.value is None else record.value,
        b"K": lambda record: b"%d" % _size(record.key),
        b"S": lambda record: b"%d" % _size(record.value),
        b"R": lambda record: _SIZE.pack(_size(record.value)),
        b"h": lambda record: _headers(record.headers, null),
    }
    parts: list[Field] = []
    text, end = unescaped(form), 0
    for match in TOKEN.finditer(text):
        parts.append(_constant(text[end : match.start()]))
        if match[1] == b"%":
            parts.append(_constant(b"%"))
        elif match[1] in fields:
            parts.append(fields[match[1]])
        else:
            known = " ".join("%" + name.decode() for name in fields)
            raise FormatError(f"{match[0].decode(errors='replace')} is none of {known} %%")
        end = match.end()
    parts.append(_constant(text[end:]))
    return parts


def _constant(text: bytes) -> Field:
    return lambda _: text


def _size(data: bytes | None) -> int:
    return -1 if data is None else len(data)


def _headers(headers: Headers, null: bytes) -> bytes:
    return b",".join(
        name.encode() + b"=" + (null if value is None else value) for name, value in headers
    )
