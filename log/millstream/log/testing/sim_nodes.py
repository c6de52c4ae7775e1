"""Files and folders that remember what of them is on the disk, and what a power loss may leave.

The fault model they follow is written at the top of sim_files.py.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Literal, get_args

from millstream.log.clock import SystemClock
from millstream.log.storage.memory_files import MemoryFile, MemoryFolder

__all__ = ["CONTENTS", "Contents", "Entries", "SimFile", "SimFolder"]

Contents = Literal["kept", "dropped", "cut", "zeroed", "garbage", "holes", "mixed"]
Entries = Literal["kept", "dropped", "mixed"]
CONTENTS: tuple[Contents, ...] = get_args(Contents)


class SimFile(MemoryFile):
    """A file as the process sees it (`content`) and as the disk has it for certain (`durable`)."""

    def __init__(self, wall_ms: Callable[[], int] | None = None) -> None:
        super().__init__(wall_ms or SystemClock().wall_ms)
        self.durable = b""
        self._clean_but_lost: list[tuple[int, int]] = []
        """Byte ranges whose fsync failed: the system believes they are on the disk."""

    def overwrite(self, position: int, data: bytes) -> None:
        super().overwrite(position, data)
        self._written(position, position + len(data))

    def truncate(self, size_bytes: int) -> None:
        super().truncate(size_bytes)
        self._written(size_bytes, 1 << 62)

    def sync(self) -> None:
        """What an fsync does that succeeds."""
        self.durable = self._best()

    def _best(self) -> bytes:
        """The most that can reach the disk: all but what an fsync has lost."""
        best = bytes(self.content)
        for start, stop in self._clean_but_lost:
            best = best[:start] + _over(self.durable, stop)[start:stop] + best[stop:]
        return best

    def lose(self) -> None:
        """What an fsync does that fails."""
        start = _common_prefix(self.durable, self.content)
        if start < len(self.content):
            self._clean_but_lost.append((start, len(self.content)))

    def _written(self, start: int, stop: int) -> None:
        """Bytes written again are dirty again, and the next fsync takes them."""
        left = []
        for low, high in self._clean_but_lost:
            left += [(low, min(high, start)), (max(low, stop), high)]
        self._clean_but_lost = [(low, high) for low, high in left if low < high]

    def after_crash(self, contents: Contents, rng: Random) -> bytes:
        """The bytes a power loss may leave."""
        old, new = self.durable, self._best()
        if contents == "mixed":
            contents = rng.choice([choice for choice in CONTENTS if choice != "mixed"])
        if contents == "dropped" or old == new:
            return old
        if contents == "kept":
            return new
        start = _common_prefix(old, new)
        point = rng.randint(start, len(new))
        if contents == "cut":
            return new[:point] + old[point:]
        if contents == "zeroed":
            return new[:point] + _over(old, len(new))[point:]
        if contents == "garbage":
            junk = _junk(new, point, rng)
            return new[:point] + _over(old, len(new), junk)[point:]
        stop = rng.randint(point, len(new))
        return new[:point] + _over(old, len(new))[point:stop] + new[stop:]


class SimFolder(MemoryFolder):
    """Names as the process sees them, and as the disk has them for certain."""

    def __init__(self) -> None:
        super().__init__()
        self.durable: dict[str, MemoryFile | MemoryFolder] = {}
        self._changes: list[tuple[str | None, str | None, MemoryFile | MemoryFolder]] = []
        """(name taken away, name given, what it stands for), in order."""

    def link(self, name: str, node: MemoryFile | MemoryFolder) -> None:
        super().link(name, node)
        self._changes.append((None, name, node))

    def unlink(self, name: str) -> None:
        self._changes.append((name, None, self.entries[name]))
        super().unlink(name)

    def move(self, source: str, target: str) -> None:
        self._changes.append((source, target, self.entries[source]))
        super().move(source, target)

    def sync(self) -> None:
        """What an fsync does."""
        self.durable = dict(self.entries)
        self._changes.clear()

    def after_crash(self, entries: Entries, rng: Random) -> dict[str, MemoryFile | MemoryFolder]:
        """The names a power loss may leave."""
        names = dict(self.durable)
        for source, target, node in self._changes:
            if entries == "dropped" or (entries == "mixed" and rng.random() < 0.5):
                continue
            if source is not None and names.get(source) is node:
                del names[source]
            if target is not None:
                names[target] = node
        return names


def _common_prefix(one: bytes, other: bytes | bytearray) -> int:
    """How many bytes both begin with."""
    size = min(len(one), len(other))
    if one[:size] == other[:size]:
        return size
    return next(i for i in range(size) if one[i] != other[i])


def _over(old: bytes, size: int, fill: bytes | None = None) -> bytes:
    """`size` bytes: the old ones as far as there were any, then `fill`, or zeros."""
    rest = bytes(max(size - len(old), 0)) if fill is None else fill[len(old) : size]
    return old[:size] + rest


def _junk(content: bytes, point: int, rng: Random) -> bytes:
    """What may lie in blocks that were used before: noise, or from `point` on the file's own
    earlier bytes, which are whole record batches if it is a log."""
    if rng.random() < 0.5:
        return rng.randbytes(len(content))
    return (bytes(point) + content)[: len(content)]
