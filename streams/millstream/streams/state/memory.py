"""The backing of stores that need not survive the process: a dict of bytes, sorted when it is
scanned.

It is used with a `memory:` log, in tests, and for stores without a directory. Values are kept
serialised as in RocksDB, so that a change to an object somebody still holds cannot change what is
committed."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

from .store import Checkpoint

__all__ = ["MemoryBacking"]


class MemoryBacking:
    """Keeps what is written until the process ends."""

    blocking = False

    def __init__(self) -> None:
        self._data: dict[bytes, bytes] = {}
        self._sorted: list[bytes] | None = []
        self._checkpoints: dict[int, Checkpoint] = {}

    def get(self, key: bytes) -> bytes | None:
        return self._data.get(key)

    def scan(self, first: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        keys = self._keys()
        stop = len(keys) if end is None else bisect_left(keys, end)
        data = self._data
        for i in range(bisect_left(keys, first), stop):
            value = data.get(keys[i])
            if value is not None:
                yield keys[i], value

    def write(
        self,
        keys: Sequence[bytes],
        values: Sequence[bytes | None],
        *,
        ranges: Sequence[tuple[bytes, bytes]] = (),
        checkpoints: Mapping[int, Checkpoint],
    ) -> None:
        data = self._data
        for first, end in ranges:
            for key, _ in self.scan(first, end):
                del data[key]
            self._sorted = None
        count_before = len(data)
        for key, value in zip(keys, values, strict=True):
            if value is not None:
                data[key] = value
            elif data.pop(key, None) is not None:
                self._sorted = None
        if len(data) != count_before:
            self._sorted = None
        self._checkpoints.update(checkpoints)

    def checkpoint(self, partition: int) -> Checkpoint | None:
        return self._checkpoints.get(partition)

    def clear(self) -> None:
        self._data = {}
        self._sorted = []
        self._checkpoints = {}

    def flush(self) -> None:
        """Nothing outlives the process here."""

    def close(self) -> None:
        """The content stays readable: a view of a stopped app reads it."""

    def _keys(self) -> list[bytes]:
        if self._sorted is None:
            self._sorted = sorted(self._data)
        return self._sorted
