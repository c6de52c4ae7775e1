# cython: language_level=3, annotation_typing=False, boundscheck=False, wraparound=False
"""Which partition a key belongs to, the same one as for every Java client of Kafka.

librdkafka's default is another hash (CRC32): its producers share partitions with these only when
set to `partitioner=murmur2_random`. Compiled where possible, like `record_reader.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import cython_shim as cython
else:
    try:
        import cython
    except ImportError:
        from . import cython_shim as cython

__all__ = ["COMPILED", "murmur2", "partition_for_key", "partitions_for_keys"]

COMPILED: bool = cython.compiled

SEED: int = cython.declare(cython.uint, 0x9747B28C)
MASK: int = cython.declare(cython.uint, 0xFFFFFFFF)
"""Keeps interpreted numbers to 32 bits. Compiled numbers have no more."""


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, with Kafka's seed; signed, as Java shows it."""
    hashed: int = _murmur2(data, len(data))
    return hashed - (1 << 32) if hashed >= 1 << 31 else hashed


def partition_for_key(key: bytes, count: int) -> int:
    """`toPositive(murmur2(key)) % count`, as in Kafka's BuiltInPartitioner."""
    return (murmur2(key) & 0x7FFFFFFF) % count


@cython.locals(
    count=cython.longlong, hashed=cython.uint, i=cython.Py_ssize_t, key=bytes, key_list=list,
    partitions=list,
)  # fmt: skip
def partitions_for_keys(keys: Sequence[bytes | None], count: int) -> list[int]:
    """The partition of each key among `count`, -1 where the key is None (any partition will do)."""
    if count < 1:
        raise ValueError(f"{count} partitions; a topic has at least one")
    key_list = keys if isinstance(keys, list) else list(keys)
    partitions = [-1] * len(key_list)
    for i in range(len(key_list)):
        key = key_list[i]
        if key is not None:
            hashed = _murmur2(key, len(key))
            partitions[i] = (hashed & 0x7FFFFFFF) % count
    return partitions


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.uint)
@cython.locals(
    p=cython.p_uchar, size=cython.Py_ssize_t, i=cython.Py_ssize_t, rest=cython.Py_ssize_t,
    h=cython.uint, k=cython.uint, m=cython.uint,
)  # fmt: skip
def _murmur2(p: bytes, size: int) -> int:
    """The hash as an unsigned number."""
    m = 0x5BD1E995
    h = (SEED ^ size) & MASK
    for i in range(0, size - 3, 4):
        k = p[i + 3]
        k = k << 24 | p[i + 2] << 16 | p[i + 1] << 8 | p[i]
        k = (k * m) & MASK
        k ^= k >> 24
        h = (h * m) & MASK
        h ^= (k * m) & MASK
    rest = size & 3
    i = size - rest
    if rest == 3:
        h ^= p[i + 2] << 16
    if rest >= 2:
        h ^= p[i + 1] << 8
    if rest >= 1:
        h ^= p[i]
        h = (h * m) & MASK
    h ^= h >> 13
    h = (h * m) & MASK
    return h ^ h >> 15
