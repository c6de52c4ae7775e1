"""Serdes: how keys and values become bytes and come back, chosen by type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["Serde"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Serde(Generic[T]):
    """Two functions, value to bytes and back. None (a null key or value) never reaches them."""

    serialize: Callable[[T], bytes]
    deserialize: Callable[[bytes], T]
    type: Any = None
