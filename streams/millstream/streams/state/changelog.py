"""The keys windowed state has in a changelog and in a backing, and how internal topics are kept.

    changelog key   the key's bytes, then the window's start as int64, as in Kafka Streams
    backing key     the window's start as int64 with the sign bit flipped, then the key's bytes

In the backing the start comes first, and the flipped sign makes bytes sort as numbers do, so that
one window is one range. Records of a changelog go to the partition of their task, so that a
windowed key lies where its inner key does."""

from __future__ import annotations

import struct
from typing import Final

__all__ = [
    "CHANGELOG_CONFIG",
    "REPARTITION_CONFIG",
    "START_SIZE_BYTES",
    "sortable_start",
    "split_window_key",
    "start_of",
    "window_key",
    "window_suffix",
]

START_SIZE_BYTES: Final = 8
_SIGN: Final = 1 << 63
_SIGNED = struct.Struct(">q")
_UNSIGNED = struct.Struct(">Q")

_ANY_TIME: Final = {"message.timestamp.after.max.ms": str(2**63 - 1)}
"""The result of a window may carry a time ahead of the clock: that of its end."""

CHANGELOG_CONFIG: Final = {"cleanup.policy": "compact", **_ANY_TIME}
"""A changelog is read to its end at a restore; only the last value of a key counts.

Kafka gives changelogs of windows `compact,delete`, because it writes no tombstones for expired
windows. Here a closed window is deleted by tombstones in the commit that emits it, so that time
alone never deletes state: replaying a changelog always gives exactly the store. """

REPARTITION_CONFIG: Final = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    **_ANY_TIME,
}
"""Records of a repartition topic are deleted after the commit that consumed them, never by age."""


def window_suffix(start_ms: int) -> bytes:
    """What a changelog key of this window ends with."""
    return _SIGNED.pack(start_ms)


def window_key(key: bytes, start_ms: int) -> bytes:
    """The key of a windowed value on a topic: the key, then the window's start in milliseconds."""
    return key + _SIGNED.pack(start_ms)


def split_window_key(data: bytes) -> tuple[bytes, int]:
    """The inverse of `window_key`.

    Raises:
        ValueError: shorter than the eight bytes of a start.
    """
    if len(data) < START_SIZE_BYTES:
        raise ValueError(f"a windowed key has at least {START_SIZE_BYTES} bytes, not {len(data)}")
    return data[:-START_SIZE_BYTES], _SIGNED.unpack(data[-START_SIZE_BYTES:])[0]


def sortable_start(start_ms: int) -> bytes:
    """What a backing key of this window begins with; sorts as `start_ms` does."""
    return _UNSIGNED.pack(start_ms + _SIGN)


def start_of(backing_key: bytes) -> int:
    """The window's start of a backing key."""
    start: int = _UNSIGNED.unpack_from(backing_key)[0]
    return start - _SIGN
