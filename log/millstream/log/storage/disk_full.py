"""A disk that is full, as opposed to one that failed.

A write that found no room can be taken back: the file is cut to what it was before, and looked at.
Then everything is known about it again, and its owner may go on as soon as there is room. A write
that failed otherwise, or an fsync, is never taken back: nobody knows what the disk has kept.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .files import FileHandle, Files

__all__ = ["DiskFullError", "append_or_nothing", "make_or_nothing"]

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class DiskFullError(OSError):
    """There is no room. Nothing was written; everything is as before."""


def append_or_nothing(
    files: Files, path: str, handle: FileHandle, size_bytes: int, *parts: bytes | memoryview
) -> None:
    """Append to a file of `size_bytes`.

    Raises:
        DiskFullError: there was no room, and the file is as before.
        OSError: nothing is known about what was written.
    """
    try:
        handle.append(*parts)
    except OSError as error:
        if error.errno in _FULL:
            handle.truncate(size_bytes)
            if files.size(path) == size_bytes:
                raise _full(error, path) from error
        raise


def make_or_nothing(
    files: Files, path: str, data: bytes | None = None, *, private: bool = False
) -> FileHandle:
    """A new file; with this content, in place of what may be there, if any is given.

    Raises:
        DiskFullError: there was no room, and there is no such file.
        OSError: nothing is known about it.
    """
    handle: FileHandle | None = None
    try:
        handle = files.open(path, create=True, private=private)
        if data is not None:
            handle.truncate(0)
            handle.append(data)
    except OSError as error:
        if handle is not None:
            handle.close()
        if error.errno not in _FULL:
            raise
        if files.exists(path):
            files.remove(path)
        raise _full(error, path) from error
    return handle


def _full(error: OSError, path: str) -> DiskFullError:
    return DiskFullError(error.errno, error.strerror or "No space left on device", path)
