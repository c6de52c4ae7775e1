"""Records as lines of text, to be produced: plain lines, and JSON.

    lines   [HEADERS TAB] [KEY SEPARATOR] VALUE
    json    {"key": .., "value": .., "headers": [..], "timestamp": .., "partition": ..}

In JSON a string stands for its UTF-8 bytes, null for null, any other value for its JSON text;
`key_base64` and `value_base64` hold bytes that are no text. It is what `millstream consume --format
json` writes; `topic` and `offset` in it are passed over.
"""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from millstream.log.record import Headers
from millstream.log.settings import INT32_MAX, LONG_MAX

__all__ = ["BadLineError", "JsonLines", "LineReader", "PlainLines", "Row", "parse_headers"]

KNOWN = {
    "key", "key_base64", "value", "value_base64", "headers", "timestamp", "partition",
    "topic", "offset",
}  # fmt: skip
HEADER_KNOWN = {"key", "value", "value_base64"}
HEADERS_END = b"\t"


class BadLineError(ValueError):
    """A line that is no record; the message says why."""


class Row(NamedTuple):
    """One record to be written; None for what the line does not say."""

    key: bytes | None
    value: bytes | None
    headers: Headers
    timestamp: int | None
    partition: int | None


class LineReader(Protocol):
    """Makes records of lines."""

    def row(self, line: bytes) -> Row:
        """Raises BadLineError."""
        ...


class PlainLines:
    """Lines that are values, with a key and headers before them where that was asked for."""

    def __init__(
        self, *, key_separator: bytes | None, has_headers: bool, null_marker: bytes | None
    ) -> None:
        self._separator = key_separator
        self._has_headers = has_headers
        self._null = null_marker

    @property
    def only_values(self) -> bool:
        """Whether every line is a value as it stands."""
        return self._separator is None and not self._has_headers and self._null is None

    def row(self, line: bytes) -> Row:
        """The record that a line is."""
        headers: Headers = ()
        if self._has_headers:
            text, tab, line = line.partition(HEADERS_END)
            if not tab:
                raise BadLineError("there is no tab after the headers")
            headers = parse_headers(text) if text else ()
        key: bytes | None = None
        value: bytes | None = line
        if self._separator is not None:
            key, separator, value = line.partition(self._separator)
            if not separator:
                shown = self._separator.decode(errors="backslashreplace")
                raise BadLineError(f"there is no key separator {shown!r}")
        if self._null is not None:
            key = None if key == self._null else key
            value = None if value == self._null else value
        return Row(key, value, headers, None, None)


class JsonLines:
    """Lines that are JSON objects."""

    def row(self, line: bytes) -> Row:
        """The record that a line is."""
        try:
            fields = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadLineError(f"it is no JSON: {error}") from None
        if not isinstance(fields, dict):
            raise BadLineError('it is no JSON object, such as {"key": "k", "value": "v"}')
        unknown = fields.keys() - KNOWN
        if unknown:
            raise BadLineError(f"it has {min(unknown)!r}; a record has {', '.join(sorted(KNOWN))}")
        return Row(
            _bytes(fields, "key"),
            _bytes(fields, "value"),
            _headers(fields.get("headers")),
            _number(fields, "timestamp", -1, LONG_MAX),
            _number(fields, "partition", 0, INT32_MAX),
        )


def parse_headers(text: bytes) -> Headers:
    """Headers as `name:value,name:value`, as Kafka's console tools have them."""
    return tuple(_header(part) for part in text.split(b","))


def _header(part: bytes) -> tuple[str, bytes]:
    name, colon, value = part.partition(b":")
    if not colon:
        raise BadLineError(f"header {part.decode(errors='replace')!r}: write name:value")
    try:
        return name.decode(), value
    except UnicodeDecodeError:
        raise BadLineError(f"the name of header {name!r} is not UTF-8") from None


def _bytes(fields: dict[str, Any], name: str) -> bytes | None:
    packed = fields.get(f"{name}_base64")
    if packed is None:
        return _as_bytes(fields.get(name))
    if fields.get(name) is not None:
        raise BadLineError(f"it has both {name} and {name}_base64")
    if not isinstance(packed, str):
        raise BadLineError(f"{name}_base64 is no string")
    try:
        return binascii.a2b_base64(packed, strict_mode=True)
    except ValueError as error:
        raise BadLineError(f"{name}_base64 is no base64: {error}") from None


def _as_bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise BadLineError(f"it is nested too deeply: {error}") from None


def _headers(value: Any) -> Headers:
    if value is None:
        return ()
    if isinstance(value, dict):
        return tuple((name, _as_bytes(each)) for name, each in value.items())
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise BadLineError('headers are a list of {"key": .., "value": ..}, or an object')
    found = []
    for each in value:
        if (
            not isinstance(each, dict)
            or not isinstance(each.get("key"), str)
            or each.keys() - HEADER_KNOWN
        ):
            raise BadLineError('a header is {"key": .., "value": ..} or with value_base64')
        found.append((each["key"], _bytes(each, "value")))
    return tuple(found)


def _number(fields: dict[str, Any], name: str, minimum: int, maximum: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
        raise BadLineError(f"{name} is {value!r}; it must be a whole number from {minimum} on")
    return value
