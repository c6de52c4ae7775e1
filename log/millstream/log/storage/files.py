"""The disk seam: the few file operations the log needs, and the only module that performs them.

Everything stored goes through a `Files` object. `RealFiles` is the disk, `MemoryFiles` a log that
is gone with its process, and `testing.SimFiles` a disk that loses what was not synced. All three
pass the same tests, so what is proven on one holds on the others.

Paths are strings with "/" between the names, absolute or relative to where the process runs. Every
method may raise OSError; nothing here retries. What is promised after a power loss:

    append, overwrite, truncate     nothing, until `fsync` of that handle returned
    open(create), rename, remove,   nothing, until `fsync_dir` of the folder that holds the name
    make_dir, remove_dir            returned

After a failed `fsync` nothing is known about the bytes written since the one before, and a later
fsync that succeeds does not cover them: the kernel has marked them clean ("fsyncgate", Linux
fsync(2) NOTES). They have to be written once more, which is what `overwrite` is for.

Threads: a handle has one owner who appends, reads and truncates; `fsync` may run in another thread
at the same time. No handle is closed while its fsync runs.
"""

# Paths stay strings: a pathlib object for every call costs more than the call.
# ruff: noqa: PTH102, PTH105, PTH106, PTH108, PTH116, PTH120, PTH123, PTH208
from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import Protocol

from millstream.log.errors import LogLockedError
from millstream.log.limits import WRITE_PARTS_MAX

from .disk_full import make_or_nothing

__all__ = [
    "FileHandle",
    "Files",
    "Lock",
    "ReadOnlyFiles",
    "RealFiles",
    "open_descriptors",
    "replace_file",
    "write_file",
]


class Lock(Protocol):
    """A folder held for one process."""

    def release(self) -> None:
        """Let others have it. The lock also ends with the process, however it ends."""
        ...


class FileHandle(Protocol):
    """An open file. Positions and sizes are bytes."""

    def append(self, *parts: bytes | memoryview) -> None:
        """Write all parts at the end, as one write where the system can.

        When this raises, some of the bytes may be there.
        """
        ...

    def overwrite(self, position: int, data: bytes) -> None:
        """Write bytes over those that are there; the file does not grow."""
        ...

    def read(self, position: int, size_bytes: int) -> bytes:
        """`size_bytes` bytes from `position`; fewer only where the file ends."""
        ...

    def truncate(self, size_bytes: int) -> None:
        """Cut the file to this size, which is not above its size now."""
        ...

    def fsync(self) -> None:
        """Return when every byte appended before the call would survive a power loss."""
        ...

    def size(self) -> int:
        """Size of the file in bytes."""
        ...

    def close(self) -> None:
        """Close the handle, without an fsync. A second call does nothing."""
        ...


class Files(Protocol):
    """A disk."""

    def open(self, path: str, *, create: bool = False, private: bool = False) -> FileHandle:
        """Open for reading and writing. Without `create` a missing file is FileNotFoundError; one
        that is made `private` can be read by this user only."""
        ...

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of this name."""
        ...

    def is_dir(self, path: str) -> bool:
        """Whether there is a folder of this name."""
        ...

    def size(self, path: str) -> int:
        """Size of a file in bytes."""
        ...

    def modified_ms(self, path: str) -> int:
        """When the content of a file last changed, in milliseconds since the Unix epoch."""
        ...

    def list_dir(self, path: str) -> list[str]:
        """Names in a folder, sorted."""
        ...

    def make_dir(self, path: str) -> None:
        """Make one folder; the folder above it must be there, this one must not."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file."""
        ...

    def remove_dir(self, path: str) -> None:
        """Remove an empty folder."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Give a file or folder another name in the same folder, in place of any file there."""
        ...

    def fsync_dir(self, path: str) -> None:
        """Return when the names in this folder would survive a power loss."""
        ...

    def read_whole(self, path: str) -> bytes:
        """All bytes of a small file."""
        ...

    def lock(self, path: str) -> Lock:
        """Take the lock file at `path`, which is created where it is missing.

        Raises:
            LogLockedError: somebody else holds it; the message says who and what to do.
        """
        ...


def open_descriptors() -> int | None:
    """Open file descriptors of this process; None where the system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # one is that of the listing
    except OSError:
        return None


def write_file(files: Files, path: str, data: bytes, *, private: bool = False) -> None:
    """Make `data` the content of `path`, durably; a new name is for the caller to sync.

    After a crash in between the file may hold anything. Raises DiskFullError when there is no room;
    then there is no such file.
    """
    handle = make_or_nothing(files, path, data, private=private)
    try:
        handle.fsync()
    finally:
        handle.close()


def replace_file(files: Files, path: str, data: bytes, *, private: bool = False) -> None:
    """Make `data` the content of `path`: after a crash it is the old file or the new one, whole.

    When this returns, it is the new one for good.
    """
    temporary = path + ".tmp"
    write_file(files, temporary, data, private=private)
    files.rename(temporary, path)
    files.fsync_dir(parent(path))


def parent(path: str) -> str:
    """The folder that holds `path`."""
    return os.path.dirname(path.rstrip("/")) or ("/" if path.startswith("/") else ".")


class RealHandle:
    """A file descriptor and the size of its file, which only its owner changes."""

    __slots__ = ("_fd", "_size_bytes")

    def __init__(self, path: str, *, create: bool, read_only: bool = False, mode: int = 0o644):
        access = os.O_RDONLY if read_only else os.O_RDWR
        flags = access | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        self._fd = os.open(path, flags, mode)
        self._size_bytes = os.fstat(self._fd).st_size

    def append(self, *parts: bytes | memoryview) -> None:
        total = sum(map(len, parts))
        written = os.pwritev(self._fd, parts[:WRITE_PARTS_MAX], self._size_bytes)
        if written < total:
            # Short writes are legal, and usual on a disk that is about to be full.
            rest = memoryview(b"".join(parts))[written:]
            self._write_all(rest, self._size_bytes + written)
        self._size_bytes += total

    def overwrite(self, position: int, data: bytes) -> None:
        assert position + len(data) <= self._size_bytes
        self._write_all(memoryview(data), position)

    def _write_all(self, rest: memoryview, position: int) -> None:
        while rest:
            written = os.pwrite(self._fd, rest, position)
            rest, position = rest[written:], position + written

    def read(self, position: int, size_bytes: int) -> bytes:
        data = os.pread(self._fd, size_bytes, position)
        if len(data) == size_bytes or not data:
            return data
        pieces = [data]
        missing = size_bytes - len(data)
        while missing and pieces[-1]:
            pieces.append(os.pread(self._fd, missing, position + size_bytes - missing))
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def truncate(self, size_bytes: int) -> None:
        assert size_bytes <= self._size_bytes
        os.ftruncate(self._fd, size_bytes)
        self._size_bytes = size_bytes

    def fsync(self) -> None:
        if hasattr(fcntl, "F_FULLFSYNC"):
            # macOS: fsync alone leaves the bytes in the drive's own cache.
            fcntl.fcntl(self._fd, fcntl.F_FULLFSYNC)
        elif hasattr(os, "fdatasync"):
            # The size goes with the data; only times are left out, and nobody reads those.
            os.fdatasync(self._fd)
        else:
            os.fsync(self._fd)

    def size(self) -> int:
        return self._size_bytes

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class RealLock:
    """An flock on a file that names the process. The kernel drops it when the process ends."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise locked_error(path, holder) from None
        except BaseException:
            os.close(self._fd)
            raise

    def release(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


class SharedLock:
    """Keeps an owner out while somebody looks. Writes nothing; several may hold it at once.

    A folder without a lock file was never opened as a log where it lies: there is nothing to hold.
    """

    def __init__(self, path: str) -> None:
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(self._fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return
        except BlockingIOError:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            self.release()
            raise locked_error(path, holder) from None
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


def locked_error(path: str, holder: str | None) -> LogLockedError:
    """Who holds the lock (None: this process), and the ways out."""
    folder = parent(path)
    own = str(os.getpid())
    itself = " (this very process: close the log it has open)" if holder in (None, own) else ""
    return LogLockedError(
        f"{folder} is in use by process {holder or own}{itself}. A log has one owner: "
        "use another directory, or stop that process."
    )


class RealFiles:
    """The file system of this machine."""

    def open(self, path: str, *, create: bool = False, private: bool = False) -> FileHandle:
        return RealHandle(path, create=create, mode=0o600 if private else 0o644)

    def exists(self, path: str) -> bool:
        # Unlike os.path.exists, a disk that cannot tell is an error and not a no.
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def is_dir(self, path: str) -> bool:
        return self.exists(path) and stat.S_ISDIR(os.stat(path).st_mode)

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def modified_ms(self, path: str) -> int:
        return os.stat(path).st_mtime_ns // 1_000_000

    def list_dir(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def make_dir(self, path: str) -> None:
        os.mkdir(path, 0o755)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def remove_dir(self, path: str) -> None:
        os.rmdir(path)

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def fsync_dir(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def read_whole(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def lock(self, path: str) -> Lock:
        return RealLock(path)


class ReadOnlyFiles(RealFiles):
    """The file system of this machine for tools that only look: whatever would write raises EROFS.

    `lock` is shared with others who look, and refused while a process has the log open.
    """

    def open(self, path: str, *, create: bool = False, private: bool = False) -> FileHandle:
        if create:
            raise self._refusal(path)
        return RealHandle(path, create=False, read_only=True)

    def make_dir(self, path: str) -> None:
        raise self._refusal(path)

    def remove(self, path: str) -> None:
        raise self._refusal(path)

    def remove_dir(self, path: str) -> None:
        raise self._refusal(path)

    def rename(self, source: str, target: str) -> None:
        raise self._refusal(source)

    def fsync_dir(self, path: str) -> None:
        raise self._refusal(path)

    def lock(self, path: str) -> Lock:
        return SharedLock(path)

    @staticmethod
    def _refusal(path: str) -> OSError:
        return OSError(errno.EROFS, "Opened for reading only", path)
