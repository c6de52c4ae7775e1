"""Random ids, spelled as Kafka spells its UUIDs; and the seam everything random comes through."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextvars import ContextVar
from os import urandom

__all__ = ["is_id", "random_bytes", "random_id", "random_seed"]

random_bytes: ContextVar[Callable[[int], bytes]] = ContextVar("random_bytes", default=urandom)
"""Where random bytes come from. A simulation sets its own for the tasks it runs."""

_ID_LENGTH_MAX = 64
_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def random_id() -> str:
    """A random UUID (version 4) as URL-safe base64 without padding: 22 characters."""
    value = bytearray(random_bytes.get()(16))
    value[6] = value[6] & 0x0F | 0x40
    value[8] = value[8] & 0x3F | 0x80
    return urlsafe_b64encode(value).rstrip(b"=").decode()


def is_id(text: str) -> bool:
    """Whether this may be such an id: it becomes part of the names of folders."""
    return 0 < len(text) <= _ID_LENGTH_MAX and _ID_CHARACTERS.issuperset(text)


def random_seed() -> int:
    """A seed for a `random.Random` of one's own."""
    return int.from_bytes(random_bytes.get()(8), "big")
