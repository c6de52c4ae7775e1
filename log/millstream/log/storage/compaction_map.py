"""Which offset is the newest of each key: what a compaction knows while it copies.

Keys themselves are not kept: one longer than a digest stands there as its digest of 128 bits, so
memory is bounded however long keys are. Two keys with the same digest would lose a record; Kafka
takes the same chance with MD5.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

__all__ = ["KEY_BYTES", "OffsetMap", "names_of"]

KEY_BYTES = 200
"""What one key takes: the digest and the offset as objects (49 and 32 bytes), and a dict's room for
them, also while it grows. Kafka's table takes 24."""
DIGEST_BYTES = 16


class OffsetMap:
    """Key -> the highest offset among the batches that were added, in the order of the log."""

    def __init__(self, size_bytes_max: int) -> None:
        self._count_max = size_bytes_max // KEY_BYTES
        self._offsets: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._offsets)

    def add(self, keys: Sequence[bytes | None], offsets: Sequence[int]) -> bool:
        """Add the records of a batch; those without a key count for nothing.

        Returns:
            Whether there was room. A first batch always has it, however small the map is, so that
            every compaction gets on.
        """
        named = zip(names_of(keys), offsets, strict=True)
        found = {name: offset for name, offset in named if name is not None}
        known = self._offsets
        if known and len(known) + len(found) > self._count_max:
            new = sum(name not in known for name in found)
            if len(known) + new > self._count_max:
                return False
        known.update(found)
        return True

    def newest(self, name: bytes) -> int:
        """The highest offset of the key that goes by this name; -1 when none was added."""
        return self._offsets.get(name, -1)


def names_of(keys: Sequence[bytes | None]) -> list[bytes | None]:
    """What keys go by in the map: short ones by themselves, long ones by their digest. None has no
    name."""
    return [
        key
        if key is None or len(key) < DIGEST_BYTES
        else blake2b(key, digest_size=DIGEST_BYTES).digest()
        for key in keys
    ]
