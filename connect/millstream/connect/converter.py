"""Converters: between the Python values of a connector and the bytes in the log.

`json` (the default for values), `string` (the default for keys) and `bytes`. None is a null
record key or value both ways. A converter of one's own is any object with these two methods.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import orjson

from .errors import ConversionError

__all__ = ["BytesConverter", "Converter", "JsonConverter", "StringConverter", "converter_for"]


@runtime_checkable
class Converter(Protocol):
    """Both directions raise ConversionError with the reason; they never answer something else."""

    def to_log(self, data: Any) -> bytes | None:
        """The bytes for a connector's value."""
        ...

    def from_log(self, data: bytes | None) -> Any:
        """The value for bytes read from the log."""
        ...


class JsonConverter:
    """JSON without a schema envelope (Kafka's JsonConverter with `schemas.enable=false`)."""

    def to_log(self, data: Any) -> bytes | None:
        if data is None:
            return None
        try:
            return orjson.dumps(data)
        except TypeError as error:
            raise ConversionError(f"cannot be written as JSON: {error}") from error

    def from_log(self, data: bytes | None) -> Any:
        if data is None:
            return None
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError as error:
            utf8_fault = _utf8_fault(data)
            raise ConversionError(utf8_fault or f"not valid JSON: {error}") from error


class StringConverter:
    """UTF-8 text. Numbers and booleans are written as text; reading always gives text."""

    def to_log(self, data: Any) -> bytes | None:
        if data is None:
            return None
        if isinstance(data, str):
            try:
                return data.encode()
            except UnicodeEncodeError as error:
                raise ConversionError(f"cannot be written as UTF-8: {error.reason}") from error
        if isinstance(data, (int, float)):
            return str(data).encode()
        raise ConversionError(f"must be text for the string converter, found {_kind(data)}")

    def from_log(self, data: bytes | None) -> Any:
        if data is None:
            return None
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            raise ConversionError(_utf8_fault(data) or str(error)) from error


class BytesConverter:
    """Bytes, as they are."""

    def to_log(self, data: Any) -> bytes | None:
        if data is None or isinstance(data, bytes):
            return data
        raise ConversionError(f"must be bytes for the bytes converter, found {_kind(data)}")

    def from_log(self, data: bytes | None) -> Any:
        return data


def _kind(data: Any) -> str:
    return type(data).__name__


def _utf8_fault(data: bytes) -> str | None:
    """What is wrong with `data` as UTF-8, or None when nothing is."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte 0x{data[error.start]:02x} at position {error.start}"
    return None


_BY_NAME: dict[str, Callable[[], Converter]] = {
    "json": JsonConverter,
    "string": StringConverter,
    "bytes": BytesConverter,
}
_BY_TYPE: dict[Any, str] = {dict: "json", list: "json", str: "string", bytes: "bytes"}


def converter_for(given: Any) -> Converter:
    """The converter a setting names: `json`, `string`, `bytes`, a type (dict, str, bytes), or one
    itself.

    Raises:
        ValueError: there is none of this name.
    """
    if isinstance(given, Converter) and not isinstance(given, type):
        return given
    name = _BY_TYPE.get(given, given) if isinstance(given, type) else given
    make = _BY_NAME.get(name) if isinstance(name, str) else None
    if make is None:
        raise ValueError(f"must be one of {', '.join(_BY_NAME)}, or a converter")
    return make()
