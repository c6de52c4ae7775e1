"""From the bytes of a request to its fields, whatever they claim.

Nothing is believed: a length beyond the end, a count that cannot be, a null where none may be and
text that is no UTF-8 raise MalformedRequestError before any memory is taken for them. What comes
out is the same for every version: fields a version lacks read as what their absence means.
Durations and times are milliseconds, errors numbers, ids text as the log spells them, arrays
tuples, structs named tuples.
"""

from __future__ import annotations

import struct
from base64 import urlsafe_b64encode
from collections import namedtuple
from collections.abc import Callable
from functools import cache
from typing import Any

from millstream.log.errors import LogError

from .schema import FieldSchema, StructSchema, absent_fields

__all__ = ["ITEMS_MAX", "STRING_BYTES_MAX", "MalformedRequestError", "Source", "reader_of"]

ITEMS_MAX = 1 << 16
"""Items of all arrays of one request together, several times what a request for every partition of
a large log has. An item of two bytes becomes objects of half a kilobyte and is worked on for some
microseconds, in which nobody else is served: measured, a request of 2 MB and a million items took
600 MB and seconds."""


STRING_BYTES_MAX = (1 << 15) - 1
"""Of one string, as in Kafka, however its length is written: some are kept for long."""


class MalformedRequestError(LogError):
    """The bytes of a request are not what its header says. Its connection is closed."""

    kafka_code = 42


class Source:
    """The bytes of one request, and how far they were read."""

    __slots__ = ("data", "items_left", "position")

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position
        self.items_left = ITEMS_MAX

    def take(self, size_bytes: int) -> bytes:
        """The next bytes."""
        start = self.position
        end = start + size_bytes
        if size_bytes < 0 or end > len(self.data):
            raise MalformedRequestError(
                f"{size_bytes} bytes wanted at position {start} of {len(self.data)}."
            )
        self.position = end
        return self.data[start:end]

    def uvarint(self) -> int:
        """An unsigned varint of at most 32 bits."""
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 28:
                raise MalformedRequestError(f"a varint of over 32 bits at {self.position}.")

    def skip_tagged_fields(self) -> None:
        """What follows a request header of version 2."""
        for _ in range(self.count(self.uvarint())):
            self.uvarint()
            self.take(self.uvarint())

    def count(self, items: int) -> int:
        """A number of items that may be: each takes a byte at least."""
        self.items_left -= items
        if not 0 <= items <= len(self.data) - self.position or self.items_left < 0:
            raise MalformedRequestError(f"an array of {items} items at {self.position}.")
        return items


Read = Callable[[Source], Any]


@cache
def reader_of(schema: StructSchema) -> Read:
    """A function that reads one struct. It raises MalformedRequestError, or struct.error at the end
    of the bytes."""
    plain = [each for each in schema.fields if each.tag is None]
    tagged = [each for each in schema.fields if each.tag is not None]
    name = f"Fields{schema.version}"
    kind = namedtuple(name, [each.name for each in (*plain, *tagged)])  # type: ignore[misc]
    struct_class: Any = type(name, (kind,), {"__slots__": (), **absent_fields(schema)})
    make = struct_class._make
    reads = [_field_reader(each, flexible=schema.flexible) for each in plain]
    if not schema.flexible:
        return lambda source: make([read(source) for read in reads])
    tags = {
        each.tag: (index, _field_reader(each, flexible=True)) for index, each in enumerate(tagged)
    }
    defaults = [_default(each) for each in tagged]

    def read_flexible(source: Source) -> Any:
        values = [read(source) for read in reads]
        count = source.uvarint()
        return make(values + (_tagged(source, count, tags, defaults) if count else defaults))

    return read_flexible


def _tagged(
    source: Source, count: int, tags: dict[int | None, tuple[int, Read]], defaults: list[Any]
) -> list[Any]:
    values = list(defaults)
    for _ in range(source.count(count)):
        tag, size_bytes = source.uvarint(), source.uvarint()
        data = source.take(size_bytes)
        if tag in tags:
            index, read = tags[tag]
            inner = Source(data, 0)
            inner.items_left = source.items_left
            values[index] = read(inner)
            source.items_left = inner.items_left
            if inner.position != size_bytes:
                raise MalformedRequestError(f"tagged field {tag} has bytes left over.")
    return values


def _default(field: FieldSchema) -> Any:
    """The default of a nested struct is one whose fields all have theirs."""
    if not isinstance(field.type, StructSchema) or field.is_array or field.nullable:
        return field.default
    names = [each.name for each in field.type.fields]
    kind = namedtuple("Fields", names)  # type: ignore[misc]
    return kind._make([_default(each) for each in field.type.fields])


def _field_reader(field: FieldSchema, *, flexible: bool) -> Read:
    nullable = field.nullable and field.tag is None
    if isinstance(field.type, StructSchema):
        one = reader_of(field.type)
        if not field.is_array:
            return _nullable_struct(one) if nullable else one
    else:
        one = _primitive(field.type, flexible=flexible, nullable=nullable and not field.is_array)
    return _array(one, flexible=flexible, nullable=nullable) if field.is_array else one


def _nullable_struct(one: Read) -> Read:
    """KIP-893: a byte says whether there is one."""
    return lambda source: one(source) if source.take(1) == b"\x01" else None


def _array(one: Read, *, flexible: bool, nullable: bool) -> Read:
    size = _SIZED[flexible, 4]

    def read(source: Source) -> tuple[Any, ...] | None:
        items = size(source)
        if items == -1:
            if nullable:
                return None
            raise MalformedRequestError(f"null where an array must be, at {source.position}.")
        return tuple([one(source) for _ in range(source.count(items))])

    return read


def _number(code: str) -> Callable[[Source], Any]:
    kind = struct.Struct(">" + code)

    def read(source: Source) -> Any:
        (value,) = kind.unpack_from(source.data, source.position)
        source.position += kind.size
        return value

    return read


def _compact_size(source: Source) -> int:
    return source.uvarint() - 1


_INT16, _INT32 = _number("h"), _number("i")
_SIZED: dict[tuple[bool, int], Callable[[Source], int]] = {
    (True, 2): _compact_size,
    (True, 4): _compact_size,
    (False, 2): _INT16,
    (False, 4): _INT32,
}


def _blob(size: Callable[[Source], int], *, nullable: bool) -> Read:
    def read(source: Source) -> bytes | None:
        size_bytes = size(source)
        if size_bytes == -1:
            if nullable:
                return None
            raise MalformedRequestError(f"null where bytes must be, at {source.position}.")
        return source.take(size_bytes)

    return read


def _string(size: Callable[[Source], int], *, nullable: bool) -> Read:
    blob = _blob(size, nullable=nullable)

    def read(source: Source) -> str | None:
        value = blob(source)
        if value is not None and len(value) > STRING_BYTES_MAX:
            raise MalformedRequestError(f"a string of {len(value)} bytes.")
        try:
            return value if value is None else value.decode()
        except UnicodeDecodeError as error:
            raise MalformedRequestError(
                f"a string is not UTF-8, before {source.position}."
            ) from error

    return read


def _uuid(source: Source) -> str | None:
    value = source.take(16)
    return urlsafe_b64encode(value).rstrip(b"=").decode() if any(value) else None


_NUMBERS = {
    "bool": _number("?"),
    "datetime_i64": _number("q"),
    "error_code": _INT16,
    "float64": _number("d"),
    "int16": _INT16,
    "int32": _INT32,
    "int64": _number("q"),
    "int8": _number("b"),
    "timedelta_i32": _INT32,
    "timedelta_i64": _number("q"),
    "uint16": _number("H"),
    "uuid": _uuid,
}


def _primitive(kafka_type: str, *, flexible: bool, nullable: bool) -> Read:
    if kafka_type == "string":
        return _string(_SIZED[flexible, 2], nullable=nullable)
    if kafka_type in ("bytes", "records"):
        return _blob(_SIZED[flexible, 4], nullable=nullable)
    return _NUMBERS[kafka_type]
