"""Serdes: how keys and values become bytes and come back, chosen by type.

    bytes                           as they are
    str                             UTF-8
    int, float, bool                8, 8 and 1 bytes, big-endian: Kafka's Long, Double, Boolean
    dict, list, Any                 JSON
    dataclass, NamedTuple           JSON object; unknown keys are ignored, the rest is checked
    msgspec.Struct, pydantic model  JSON by their own library
    Windowed                        the key's bytes, then the window's start as int64 (Kafka's)

A null key or value (None) never reaches a serde: it stays null.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import orjson

from .errors import SerdeError
from .hints import UNKNOWN, without_none
from .json_types import Mismatch, converter, is_named_tuple
from .windows import Windowed

__all__ = ["Serde", "serde_for", "windowed_serde"]

T = TypeVar("T")

_LONG = struct.Struct(">q")
_DOUBLE = struct.Struct(">d")


@dataclass(frozen=True, slots=True)
class Serde(Generic[T]):
    """Two functions, value to bytes and back; any exception of theirs is a `SerdeError`.

    Two serdes are the same when their functions are: then bytes pass from topic to topic untouched.
    """

    serialize: Callable[[T], bytes]
    deserialize: Callable[[bytes], T]
    type: Any = None
    """What it carries, for messages."""
    window_size_ms: int = 0
    """Of windowed keys; 0 for everything else."""

    @property
    def type_name(self) -> str:
        return getattr(self.type, "__name__", str(self.type)) if self.type else "value"


def _bytes_only(value: Any) -> bytes:
    if value.__class__ is not bytes:
        raise SerdeError(f"expected bytes, found {value!r:.60}")
    return bytes(value)


def _same(data: bytes) -> bytes:
    return data


def _int_from_bytes(data: bytes) -> int:
    number: int = _LONG.unpack(data)[0]
    return number


def _float_from_bytes(data: bytes) -> float:
    number: float = _DOUBLE.unpack(data)[0]
    return number


def _bool_to_bytes(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _bool_from_bytes(data: bytes) -> bool:
    if data not in (b"\x00", b"\x01"):
        raise SerdeError(f"expected one byte, 0 or 1, found {data!r:.40}")
    return data == b"\x01"


JSON: Serde[Any] = Serde(orjson.dumps, orjson.loads, Any)

_FIXED: dict[Any, Serde[Any]] = {
    bytes: Serde(_bytes_only, _same, bytes),
    str: Serde(str.encode, bytes.decode, str),
    int: Serde(_LONG.pack, _int_from_bytes, int),
    float: Serde(_DOUBLE.pack, _float_from_bytes, float),
    bool: Serde(_bool_to_bytes, _bool_from_bytes, bool),
    Any: JSON,
    object: JSON,
    dict: JSON,
    list: JSON,
    dict[str, Any]: JSON,
    list[Any]: JSON,
}
_made: dict[Any, Serde[Any]] = {}


def serde_for(hint: Any, default: Any = UNKNOWN) -> Serde[Any]:
    """The serde for a type; a `Serde` is answered as it is. The same type gives the same serde.

    Args:
        hint: a type, a `Serde`, or `UNKNOWN` for `default`.

    Raises:
        TopologyError: no serde carries this type.
    """
    if hint is UNKNOWN or hint is None or hint is type(None):
        hint = Any if default is UNKNOWN else default
    if isinstance(hint, Serde):
        return hint
    hint = without_none(hint)
    if hint in _FIXED:
        return _FIXED[hint]
    if hint not in _made:
        _made[hint] = _make(hint)
    return _made[hint]


def _make(hint: Any) -> Serde[Any]:
    if hasattr(hint, "__struct_fields__"):
        return _msgspec_serde(hint)
    if hasattr(hint, "__pydantic_validator__"):
        return _pydantic_serde(hint)
    convert = converter(hint)
    if convert is None:
        return JSON
    return Serde(
        _named_tuple_to_json if is_named_tuple(hint) else orjson.dumps,
        _typed_json(convert, getattr(hint, "__name__", str(hint))),
        hint,
    )


def _named_tuple_to_json(value: Any) -> bytes:
    return orjson.dumps(value._asdict())


def _typed_json(convert: Callable[[Any], Any], name: str) -> Callable[[bytes], Any]:
    loads = orjson.loads

    def deserialize(data: bytes) -> Any:
        value = loads(data)
        try:
            return convert(value)
        except Mismatch as error:
            field = f"{name}.{error.path}" if error.path[:1] not in ("", "[") else name + error.path
            raise SerdeError(f"{field}: {error.problem}", field=error.path) from error

    return deserialize


def _msgspec_serde(hint: Any) -> Serde[Any]:
    import msgspec  # an extra, imported by those who use it

    return Serde(msgspec.json.Encoder().encode, msgspec.json.Decoder(hint).decode, hint)


def _pydantic_serde(hint: Any) -> Serde[Any]:
    to_json = hint.__pydantic_serializer__.to_json
    return Serde(to_json, hint.__pydantic_validator__.validate_json, hint)


def windowed_serde(inner: Serde[Any], size_ms: int) -> Serde[Windowed[Any]]:
    """The serde of windowed keys. Only the start is stored; the end is start + `size_ms`.

    Source: WindowKeySchema / TimeWindowedSerializer of Kafka Streams.
    """
    name = (Windowed, inner, size_ms)
    if name not in _made:
        serialize, deserialize = inner.serialize, inner.deserialize

        def to_bytes(key: Windowed[Any]) -> bytes:
            return serialize(key.key) + _LONG.pack(key.start)

        def from_bytes(data: bytes) -> Windowed[Any]:
            if len(data) < 8:
                raise SerdeError(f"a windowed key has at least 8 bytes, found {data!r}")
            start = _int_from_bytes(data[-8:])
            return Windowed(deserialize(data[:-8]), start, start + size_ms)

        _made[name] = Serde(to_bytes, from_bytes, Windowed, size_ms)
    return _made[name]
