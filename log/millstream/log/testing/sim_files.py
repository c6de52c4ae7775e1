"""A disk that does what disks do: forgets what was not synced, tears writes, fails, fills up.

It runs the log in one process on simulated files, stops it at any operation, and builds a disk that
a power loss at that moment allows. `crash_at`, `on_operation` and `after_crash` are the three
controls; everything random comes from the `Random` that is handed in.

The fault model
---------------
Survives for certain:
    bytes that were in a file when an fsync of it began and returned without error
    names that were in a folder when an fsync of that folder began and returned without error

May happen at a power loss, to every file and every name on its own (files are not ordered):
    kept       what was not synced is there all the same
    dropped    it is not
    cut        it is there up to some byte; a write may end in the middle
    zeroed     the file has its full size, but from some byte on it is zeros
    garbage    the same with old bytes: noise, or a record batch that lay there before
    holes      some bytes in the middle never came, later ones did
    mixed      any of these, another for each file
    A name that was added, removed or renamed since the folder was synced: done, or not. Each on its
    own; a rename is one step. Synced bytes under a lost name are lost.

May happen while running:
    an operation raises OSError (EIO, ENOSPC, ...), once. A failed append leaves half its bytes. A
        failed fsync leaves the file as the process sees it, but those bytes are not on the disk,
        and no later fsync brings them there, only writing them again (fsync(2), "fsyncgate").
    the process is killed (`restart`): nothing is lost but the locks; un-synced bytes stay so.

Does not happen: synced bytes that change or vanish (they are detected where checksums are read, not
repaired); two operations at once; a name that stands for another file than it ever did.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from random import Random
from typing import Literal, NamedTuple

from millstream.log.storage.files import FileHandle, Lock
from millstream.log.storage.memory_files import MemoryFile, MemoryFiles, MemoryFolder, MemoryHandle

from .sim_nodes import CONTENTS, Contents, Entries, SimFile, SimFolder

__all__ = ["CONTENTS", "Contents", "Crash", "Entries", "Operation", "SimFiles", "disk_error"]

_READS = frozenset({"exists", "is_dir", "size", "modified_ms", "list_dir", "read", "read_whole"})


class Crash(BaseException):
    """The machine stopped. Not an Exception, so that nothing catches it by accident."""


class Operation(NamedTuple):
    """One file operation. `number` counts all, `write_number` those that can change the disk; for
    one that only reads it is the number of the next write."""

    number: int
    write_number: int
    kind: str
    path: str

    @property
    def is_write(self) -> bool:
        """Whether it can change the disk."""
        return self.kind not in _READS


def disk_error(kind: Literal["EIO", "ENOSPC"], path: str) -> OSError:
    """What the system raises when the disk fails, or is full."""
    texts = {"EIO": "Input/output error", "ENOSPC": "No space left on device"}
    return OSError(getattr(errno, kind), texts[kind], path)


class SimHandle(MemoryHandle):
    """An open file whose every operation is counted."""

    __slots__ = ("_files", "_path", "_sim_file")

    def __init__(self, files: SimFiles, path: str, file: SimFile) -> None:
        super().__init__(file)
        self._files, self._path, self._sim_file = files, path, file

    def append(self, *parts: bytes | memoryview) -> None:
        data = b"".join(parts)
        file = self._sim_file
        self._files.step("append", self._path, torn=lambda: file.append(data[: len(data) // 2]))
        file.append(data)

    def overwrite(self, position: int, data: bytes) -> None:
        self._files.step("overwrite", self._path)
        super().overwrite(position, data)

    def read(self, position: int, size_bytes: int) -> bytes:
        self._files.step("read", self._path)
        return super().read(position, size_bytes)

    def truncate(self, size_bytes: int) -> None:
        self._files.step("truncate", self._path)
        super().truncate(size_bytes)

    def fsync(self) -> None:
        self._files.step("fsync", self._path, failed=self._sim_file.lose)
        self._sim_file.sync()


class SimFiles(MemoryFiles):
    """A simulated disk.

    Args:
        crash_at: number of the write operation at which the machine stops; an append is half done.
            Everything after it raises Crash too.
        on_operation: asked before every operation; the error it returns is raised instead.
        wall_ms: the time that files are said to have changed at.
    """

    def __init__(
        self,
        *,
        crash_at: int | None = None,
        on_operation: Callable[[Operation], OSError | None] | None = None,
        wall_ms: Callable[[], int] | None = None,
    ) -> None:
        super().__init__(wall_ms)
        self.crash_at = crash_at
        self.on_operation = on_operation
        self.operations: list[Operation] = []
        self.writes = 0
        self.crashed = False

    def step(
        self,
        kind: str,
        path: str,
        *,
        torn: Callable[[], None] | None = None,
        failed: Callable[[], None] | None = None,
    ) -> None:
        """Count an operation, or stop it. `torn` is what a write that does not end leaves behind,
        `failed` what an operation does that raises."""
        if self.crashed:
            raise Crash
        operation = Operation(len(self.operations), self.writes, kind, path)
        self.operations.append(operation)
        self.crashed = operation.is_write and self.writes == self.crash_at
        self.writes += operation.is_write
        error = self.on_operation(operation) if self.on_operation and not self.crashed else None
        if torn is not None and (self.crashed or error is not None):
            torn()
        if self.crashed:
            raise Crash
        if error is not None:
            if failed is not None:
                failed()
            raise error

    def restart(self) -> SimFiles:
        """The same machine after the process was killed: un-synced bytes are there, un-synced."""
        disk = SimFiles(wall_ms=self.wall_ms)
        disk.root = self.root
        return disk

    def after_crash(
        self, contents: Contents = "mixed", entries: Entries = "mixed", *, seed: int = 0
    ) -> SimFiles:
        """A disk that a power loss now allows. This one stays as it is."""
        disk = SimFiles(wall_ms=self.wall_ms)
        _rebuild(self.root, disk.root, contents, entries, Random(seed))
        return disk

    def contents(self) -> tuple[tuple[str, bytes], ...]:
        """Every file and what it holds, to tell two disks apart. Folders end with a slash."""
        return tuple(_walk(self.root, ""))

    def _new_file(self) -> MemoryFile:
        return SimFile(self.wall_ms)

    def _new_folder(self) -> MemoryFolder:
        return SimFolder()

    def _new_handle(self, path: str, file: MemoryFile) -> FileHandle:
        assert isinstance(file, SimFile)
        return SimHandle(self, path, file)

    def open(self, path: str, *, create: bool = False, private: bool = False) -> FileHandle:
        is_new = create and self._find(path) is None
        self.step("create" if is_new else "exists", path)
        return super().open(path, create=create, private=private)

    def exists(self, path: str) -> bool:
        self.step("exists", path)
        return super().exists(path)

    def is_dir(self, path: str) -> bool:
        self.step("is_dir", path)
        return super().is_dir(path)

    def size(self, path: str) -> int:
        self.step("size", path)
        return super().size(path)

    def modified_ms(self, path: str) -> int:
        self.step("modified_ms", path)
        return super().modified_ms(path)

    def list_dir(self, path: str) -> list[str]:
        self.step("list_dir", path)
        return super().list_dir(path)

    def make_dir(self, path: str) -> None:
        self.step("make_dir", path)
        super().make_dir(path)

    def remove(self, path: str) -> None:
        self.step("remove", path)
        super().remove(path)

    def remove_dir(self, path: str) -> None:
        self.step("remove_dir", path)
        super().remove_dir(path)

    def rename(self, source: str, target: str) -> None:
        self.step("rename", source)
        super().rename(source, target)

    def fsync_dir(self, path: str) -> None:
        self.step("fsync_dir", path)
        folder = self._folder(path)
        assert isinstance(folder, SimFolder)
        folder.sync()

    def read_whole(self, path: str) -> bytes:
        self.step("read_whole", path)
        return super().read_whole(path)

    def lock(self, path: str) -> Lock:
        self.step("lock", path)
        return super().lock(path)


def _walk(folder: MemoryFolder, path: str) -> Iterator[tuple[str, bytes]]:
    yield f"{path}/", b""
    for name, node in sorted(folder.entries.items()):
        if isinstance(node, MemoryFolder):
            yield from _walk(node, f"{path}/{name}")
        else:
            yield f"{path}/{name}", bytes(node.content)


def _rebuild(
    source: MemoryFolder, target: MemoryFolder, contents: Contents, entries: Entries, rng: Random
) -> None:
    """Fill `target` with what a power loss leaves of `source`, all of it durable."""
    assert isinstance(source, SimFolder)
    assert isinstance(target, SimFolder)
    for name, node in sorted(source.after_crash(entries, rng).items()):
        if isinstance(node, MemoryFolder):
            folder = SimFolder()
            _rebuild(node, folder, contents, entries, rng)
            target.link(name, folder)
        else:
            assert isinstance(node, SimFile)
            file = SimFile(node.wall_ms)
            file.append(node.after_crash(contents, rng))
            file.modified_ms = node.modified_ms
            file.sync()
            target.link(name, file)
    target.sync()
