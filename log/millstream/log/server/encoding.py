"""From the fields of a response to the bytes of one version of it.

A struct is given as a mapping of field -> value. Fields this version lacks are left out, fields not
given have Kafka's default; a name that no version has raises KeyError. Values as `decoding.py` has
them, `Buffers` too: bytes of records are handed on, never copied.
"""

from __future__ import annotations

import struct
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from .schema import FieldSchema, StructSchema, exists_in_some_version

__all__ = ["Buffers", "Fields", "uvarint", "writer_of"]

Fields = Mapping[str, Any]
Buffers = list[bytes]
"""The pieces of a message, in order."""
Write = Callable[[Buffers, Any], None]


def uvarint(value: int) -> bytes:
    """An unsigned varint."""
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)


@cache
def writer_of(schema: StructSchema) -> Write:
    """A function that writes one struct from its fields."""
    plain = [
        (each.name, each.default, _field_writer(each, flexible=schema.flexible))
        for each in schema.fields
        if each.tag is None
    ]
    tagged = sorted(
        (each.tag, each.name, each.default, _field_writer(each, flexible=True))
        for each in schema.fields
        if each.tag is not None
    )
    known = {each.name for each in schema.fields}

    def write(out: Buffers, fields: Fields) -> None:
        if not fields.keys() <= known:
            _check_names(schema, fields, known)
        for name, default, write_field in plain:
            write_field(out, fields.get(name, default))
        if schema.flexible:
            _write_tagged(out, fields, tagged)

    return write


def _check_names(schema: StructSchema, fields: Fields, known: set[str]) -> None:
    """What another version has may be given; what none has is a mistake of the handler."""
    for name in fields.keys() - known:
        if not exists_in_some_version(schema, name):
            raise KeyError(f"API {schema.api_key} has no field {schema.path}.{name}.")
        known.add(name)


def _write_tagged(out: Buffers, fields: Fields, tagged: list[tuple[int, str, Any, Write]]) -> None:
    given = [
        (tag, write_field, fields[name])
        for tag, name, default, write_field in tagged
        if name in fields and fields[name] != default
    ]
    out.append(uvarint(len(given)))
    for tag, write_field, value in given:
        inner: Buffers = []
        write_field(inner, value)
        out += (uvarint(tag), uvarint(sum(map(len, inner))), *inner)


def _field_writer(field: FieldSchema, *, flexible: bool) -> Write:
    nullable = field.nullable and field.tag is None
    if isinstance(field.type, StructSchema):
        one = writer_of(field.type)
        if not field.is_array:
            return _nullable_struct(one) if nullable else one
    else:
        one = _primitive(field.type, flexible=flexible, nullable=nullable and not field.is_array)
    return _array(one, flexible=flexible, nullable=nullable) if field.is_array else one


def _nullable_struct(one: Write) -> Write:
    def write(out: Buffers, value: Fields | None) -> None:
        if value is None:
            out.append(b"\xff")
            return
        out.append(b"\x01")
        one(out, value)

    return write


def _array(one: Write, *, flexible: bool, nullable: bool) -> Write:
    size = _size(4, flexible=flexible)

    def write(out: Buffers, value: Any) -> None:
        if value is None:
            if not nullable:
                raise TypeError("None where an array must be")
            out.append(size(-1))
            return
        out.append(size(len(value)))
        for item in value:
            one(out, item)

    return write


def _size(width: int, *, flexible: bool) -> Callable[[int], bytes]:
    """How a length is written; -1 for null."""
    if flexible:
        return lambda size: uvarint(size + 1)
    return struct.Struct(">h" if width == 2 else ">i").pack


def _number(code: str) -> Write:
    pack = struct.Struct(">" + code).pack

    def write(out: Buffers, value: Any) -> None:
        out.append(pack(value))

    return write


def _blob(size: Callable[[int], bytes], *, nullable: bool) -> Write:
    def write(out: Buffers, value: bytes | str | None) -> None:
        if value is None:
            if not nullable:
                raise TypeError("None where a string or bytes must be")
            out.append(size(-1))
            return
        data = value.encode() if isinstance(value, str) else value
        out += (size(len(data)), data)

    return write


def _uuid(out: Buffers, value: str | None) -> None:
    out.append(bytes(16) if value is None else urlsafe_b64decode(value + "=="))


_NUMBERS = {
    "bool": _number("?"),
    "datetime_i64": _number("q"),
    "error_code": _number("h"),
    "float64": _number("d"),
    "int16": _number("h"),
    "int32": _number("i"),
    "int64": _number("q"),
    "int8": _number("b"),
    "timedelta_i32": _number("i"),
    "timedelta_i64": _number("q"),
    "uint16": _number("H"),
    "uuid": _uuid,
}


def _primitive(kafka_type: str, *, flexible: bool, nullable: bool) -> Write:
    if kafka_type == "string":
        return _blob(_size(2, flexible=flexible), nullable=nullable)
    if kafka_type in ("bytes", "records"):
        return _blob(_size(4, flexible=flexible), nullable=nullable)
    return _NUMBERS[kafka_type]
