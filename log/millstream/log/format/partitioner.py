# cython: language_level=3, annotation_typing=False, boundscheck=False, wraparound=False
"""Which partition a key belongs to, the same one as for every Java client of Kafka.

librdkafka's default is another hash (CRC32): its producers share partitions with these only when set
to `partitioner=murmur2_random`. Compiled where possible, like `codec.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

try:
    import cython
except ImportError:
    from . import cython_shim as cython

__all__ = ["murmur2", "partition_for_key", "partitions_for_keys"]


def murmur2(data: bytes) -> int:
    """MurmurHash2, 32 bits, with Kafka's seed; signed, as Java shows it."""
    hashed: int = _murmur2(data, len(data))
    return hashed - (1 << 32) if hashed >= 1 << 31 else hashed


def partition_for_key(key: bytes, count: int) -> int:
    """`toPositive(murmur2(key)) % count`, as in Kafka's BuiltInPartitioner."""
    return (murmur2(key) & 0x7FFFFFFF) % count


@cython.locals(
    count=cython.uint, hashed=cython.uint, i=cython.Py_ssize_t, key=bytes, key_list=list,
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
    """Unsigned. The masks do nothing when compiled: there the numbers have 32 bits anyway."""
    m = 0x5BD1E995
    h = (0x9747B28C ^ size) & 0xFFFFFFFF
    for i in range(0, size - 3, 4):
        k = p[i] | p[i + 1] << 8 | p[i + 2] << 16 | p[i + 3] << 24
        k = (k * m) & 0xFFFFFFFF
        k ^= k >> 24
        h = (h * m) & 0xFFFFFFFF
        h ^= (k * m) & 0xFFFFFFFF
    rest = size & 3
    i = size - rest
    if rest == 3:
        h ^= p[i + 2] << 16
    if rest >= 2:
        h ^= p[i + 1] << 8
    if rest >= 1:
        h ^= p[i]
        h = (h * m) & 0xFFFFFFFF
    h ^= h >> 13
    h = (h * m) & 0xFFFFFFFF
    return h ^ h >> 15
