"""Which fields a message has, from the schemas of the library kio.

kio's classes are generated from Apache Kafka's own definitions, one class for each version of each
struct. Only they are used, as descriptions: kio's own decoder asks for as much memory as a length
in the request claims, and the process dies of it (kio 0.6.5); see `decoding.py`. A version's module
is imported when the first message of that version comes.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from .kio_names import resolved, versions_of

__all__ = [
    "FieldSchema",
    "Kind",
    "StructSchema",
    "absent_fields",
    "exists_in_some_version",
    "struct_schema",
]

Kind = Literal["request", "response"]


class FieldSchema(NamedTuple):
    """One field of a struct.

    `type` is kio's name for a primitive, or the schema of a nested struct. `default` is what an
    absent field means, in the form handlers see: milliseconds, numbers of errors, ids as text.
    """

    name: str
    type: str | StructSchema
    is_array: bool
    nullable: bool
    tag: int | None
    default: Any


class StructSchema:
    """One struct of one version of a message. `path` names it inside the message."""

    __slots__ = ("api_key", "fields", "flexible", "header_version", "kind", "path", "version")

    def __init__(self, entity: Any, kind: Kind, path: str) -> None:
        self.api_key = int(entity.__api_key__)
        self.version = int(entity.__version__)
        self.kind: Kind = kind
        self.path = path
        self.flexible: bool = entity.__flexible__
        self.header_version = int(entity.__header_schema__.__version__)
        self.fields = tuple(_field(each, kind, path) for each in fields(entity))


@cache
def struct_schema(api_key: int, version: int, kind: Kind) -> StructSchema:
    """The fields of a request or response. Raises KeyError where kio has no such version."""
    return StructSchema(resolved(api_key, version, kind), kind, "")


@cache
def absent_fields(schema: StructSchema) -> dict[str, Any]:
    """Fields that this struct has in other versions only, with what their absence means."""
    versions = versions_of(schema.api_key)
    found: dict[str, Any] = {}
    for version in (versions[0], versions[-1]):
        other = _at(struct_schema(schema.api_key, version, schema.kind), schema.path)
        if other is not None:
            found |= {field.name: field.default for field in other.fields}
    here = {field.name for field in schema.fields}
    return {name: default for name, default in found.items() if name not in here}


@cache
def exists_in_some_version(schema: StructSchema, name: str) -> bool:
    """Whether any version of this struct has a field of this name."""
    for version in versions_of(schema.api_key):
        other = _at(struct_schema(schema.api_key, version, schema.kind), schema.path)
        if other is not None and any(field.name == name for field in other.fields):
            return True
    return False


def _at(schema: StructSchema, path: str) -> StructSchema | None:
    """The struct at this path of a message."""
    if schema.path == path:
        return schema
    for field in schema.fields:
        if isinstance(field.type, StructSchema) and (
            path == field.type.path or path.startswith(field.type.path + ".")
        ):
            return _at(field.type, path)
    return None


def _field(field: Field[Any], kind: Kind, path: str) -> FieldSchema:
    inner, nullable = _without_none(field.type)
    is_array = get_origin(inner) is tuple
    if is_array:
        inner, _ = _without_none(get_args(inner)[0])
    found = (
        StructSchema(inner, kind, f"{path}.{field.name}")
        if is_dataclass(inner)
        else str(field.metadata["kafka_type"])
    )
    tag = field.metadata.get("tag")
    default = _default(field, found, is_array=is_array, nullable=nullable)
    return FieldSchema(field.name, found, is_array, nullable, tag, default)


def _without_none(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) is not UnionType:
        return annotation, False
    (inner,) = (each for each in get_args(annotation) if each is not NoneType)
    return inner, True


def _default(
    field: Field[Any], found: str | StructSchema, *, is_array: bool, nullable: bool
) -> Any:
    if is_array:
        return None if field.default is None else ()
    if isinstance(found, StructSchema):
        return None if nullable else {}
    if found in _IMPLICIT_OF_ABSENT and (field.default is MISSING or field.default is None):
        return _IMPLICIT_OF_ABSENT[found]
    if field.default is not MISSING:
        return _plain(field.default, found)
    return None if nullable else _IMPLICIT[found]


def _plain(value: Any, kafka_type: str) -> Any:
    if kafka_type.startswith("timedelta"):
        return round(value.total_seconds() * 1000)
    return int(value) if kafka_type == "error_code" else value


_IMPLICIT_OF_ABSENT = {"uuid": None, "datetime_i64": -1}
_IMPLICIT: dict[str, Any] = {
    "bool": False,
    "bytes": b"",
    "error_code": 0,
    "float64": 0.0,
    "int16": 0,
    "int32": 0,
    "int64": 0,
    "int8": 0,
    "records": None,
    "string": "",
    "timedelta_i32": 0,
    "timedelta_i64": 0,
    "uint16": 0,
}
