"""Where kio keeps the class of a message. The only module that imports kio, and late."""

from __future__ import annotations

from functools import cache
from pkgutil import resolve_name
from typing import Any, Literal

__all__ = ["api_name", "resolved", "versions_of"]


def api_name(api_key: int) -> str:
    """kio's name of an API, such as list_offsets. Raises KeyError."""
    from kio.schema.index import api_key_map

    return api_key_map[api_key]


@cache
def versions_of(api_key: int) -> tuple[int, ...]:
    """The versions kio knows of an API, ascending. Raises KeyError."""
    from kio.schema.index import schema_name_map

    return tuple(sorted(schema_name_map[api_name(api_key)]))


def resolved(api_key: int, version: int, kind: Literal["request", "response"]) -> Any:
    """The class of a message. Raises KeyError."""
    from kio.schema.index import schema_name_map
    from kio.static.constants import EntityType

    classes = schema_name_map[api_name(api_key)][version]
    if kind == "request":
        return resolve_name(classes[EntityType.request])
    return resolve_name(classes[EntityType.response])
