"""A disk in memory: for logs that may end with their process, and the base of the simulated one.

It keeps the rules of a POSIX file system that the log relies on: an open handle goes on working
when its name is gone, a rename replaces its target, a folder must be empty to be removed. There is
no power to lose, so fsync does nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from millstream.log.clock import SystemClock

from .files import FileHandle, Lock, locked_error

__all__ = ["MemoryFile", "MemoryFiles", "MemoryFolder", "MemoryHandle"]


class MemoryFile:
    """The bytes of one file, whatever names it has, and when they last changed.

    Args:
        wall_ms: the time.
    """

    def __init__(self, wall_ms: Callable[[], int]) -> None:
        self.content = bytearray()
        self.modified_ms = wall_ms()
        self.wall_ms = wall_ms

    def append(self, data: bytes | memoryview) -> None:
        """Add bytes at the end."""
        self.content += data
        self.modified_ms = self.wall_ms()

    def overwrite(self, position: int, data: bytes) -> None:
        """Write over what is there."""
        self.content[position : position + len(data)] = data
        self.modified_ms = self.wall_ms()

    def truncate(self, size_bytes: int) -> None:
        """Drop everything from `size_bytes` on."""
        del self.content[size_bytes:]
        self.modified_ms = self.wall_ms()


class MemoryFolder:
    """Names, and what they stand for."""

    def __init__(self) -> None:
        self.entries: dict[str, MemoryFile | MemoryFolder] = {}

    def link(self, name: str, node: MemoryFile | MemoryFolder) -> None:
        """Let `name` stand for `node`."""
        self.entries[name] = node

    def unlink(self, name: str) -> None:
        """Forget a name."""
        del self.entries[name]

    def move(self, source: str, target: str) -> None:
        """Rename, in one step."""
        self.entries[target] = self.entries.pop(source)


class MemoryHandle:
    """An open file."""

    __slots__ = ("_file",)

    def __init__(self, file: MemoryFile) -> None:
        self._file = file

    def append(self, *parts: bytes | memoryview) -> None:
        for part in parts:
            self._file.append(part)

    def overwrite(self, position: int, data: bytes) -> None:
        assert position + len(data) <= len(self._file.content)
        self._file.overwrite(position, data)

    def read(self, position: int, size_bytes: int) -> bytes:
        with memoryview(self._file.content) as view:
            return bytes(view[position : position + size_bytes])

    def truncate(self, size_bytes: int) -> None:
        assert size_bytes <= len(self._file.content)
        self._file.truncate(size_bytes)

    def fsync(self) -> None:
        """Nothing to do: memory does not outlive the process."""

    def size(self) -> int:
        return len(self._file.content)

    def close(self) -> None:
        """Nothing to do: no descriptor is held."""


class MemoryLock:
    """A name in the set of held locks."""

    def __init__(self, held: set[str], path: str) -> None:
        if path in held:
            raise locked_error(path, None)
        held.add(path)
        self._held, self._path = held, path

    def release(self) -> None:
        self._held.discard(self._path)


class MemoryFiles:
    """A file system in memory, with an empty root folder.

    Args:
        wall_ms: the time that files are said to have changed at.
    """

    def __init__(self, wall_ms: Callable[[], int] | None = None) -> None:
        self.wall_ms = wall_ms or SystemClock().wall_ms
        self.root = self._new_folder()
        self._locks: set[str] = set()

    def _new_file(self) -> MemoryFile:
        return MemoryFile(self.wall_ms)

    def _new_folder(self) -> MemoryFolder:
        return MemoryFolder()

    def _new_handle(self, path: str, file: MemoryFile) -> FileHandle:
        return MemoryHandle(file)

    def _find(self, path: str) -> MemoryFile | MemoryFolder | None:
        node: MemoryFile | MemoryFolder | None = self.root
        for name in _names(path):
            node = node.entries.get(name) if isinstance(node, MemoryFolder) else None
        return node

    def _folder(self, path: str) -> MemoryFolder:
        node = self._find(path)
        if isinstance(node, MemoryFolder):
            return node
        raise _error(errno.ENOENT if node is None else errno.ENOTDIR, path)

    def _holder(self, path: str) -> tuple[MemoryFolder, str]:
        """The folder that has, or may get, this name."""
        names = _names(path)
        if not names:
            raise _error(errno.EBUSY, path)
        return self._folder("/".join(names[:-1])), names[-1]

    def _file(self, path: str) -> MemoryFile:
        node = self._find(path)
        if isinstance(node, MemoryFile):
            return node
        raise _error(errno.ENOENT if node is None else errno.EISDIR, path)

    def open(self, path: str, *, create: bool = False, private: bool = False) -> FileHandle:
        if create and self._find(path) is None:
            folder, name = self._holder(path)
            folder.link(name, self._new_file())
        return self._new_handle(path, self._file(path))

    def exists(self, path: str) -> bool:
        return self._find(path) is not None

    def is_dir(self, path: str) -> bool:
        return isinstance(self._find(path), MemoryFolder)

    def size(self, path: str) -> int:
        return len(self._file(path).content)

    def modified_ms(self, path: str) -> int:
        return self._file(path).modified_ms

    def list_dir(self, path: str) -> list[str]:
        return sorted(self._folder(path).entries)

    def make_dir(self, path: str) -> None:
        if self._find(path) is not None:
            raise _error(errno.EEXIST, path)
        folder, name = self._holder(path)
        folder.link(name, self._new_folder())

    def remove(self, path: str) -> None:
        self._file(path)
        folder, name = self._holder(path)
        folder.unlink(name)

    def remove_dir(self, path: str) -> None:
        if self._folder(path).entries:
            raise _error(errno.ENOTEMPTY, path)
        folder, name = self._holder(path)
        folder.unlink(name)

    def rename(self, source: str, target: str) -> None:
        folder, name = self._holder(source)
        target_folder, target_name = self._holder(target)
        assert folder is target_folder, "a file is renamed within its folder"
        node, replaced = self._find(source), self._find(target)
        if node is None:
            raise _error(errno.ENOENT, source)
        if replaced is not None and isinstance(node, MemoryFile) != isinstance(
            replaced, MemoryFile
        ):
            raise _error(errno.ENOTDIR if isinstance(node, MemoryFolder) else errno.EISDIR, target)
        if isinstance(replaced, MemoryFolder) and replaced.entries:
            raise _error(errno.ENOTEMPTY, target)
        folder.move(name, target_name)

    def fsync_dir(self, path: str) -> None:
        self._folder(path)

    def read_whole(self, path: str) -> bytes:
        return bytes(self._file(path).content)

    def lock(self, path: str) -> Lock:
        self.open(path, create=True)
        return MemoryLock(self._locks, path)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _error(code: int, path: str) -> OSError:
    texts = {
        errno.ENOENT: "No such file or directory",
        errno.EEXIST: "File exists",
        errno.ENOTEMPTY: "Directory not empty",
        errno.ENOTDIR: "Not a directory",
        errno.EISDIR: "Is a directory",
        errno.EBUSY: "Device or resource busy",
    }
    return OSError(code, texts[code], path)
