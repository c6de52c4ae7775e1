"""The users of a log that no process has open: its folder is locked, its records are let be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from millstream.log.storage.files import RealFiles
from millstream.log.storage.log_dir import LogDir

from .store import SECURITY_FILE, SecurityStore

__all__ = ["has_users", "opened_security"]


@contextmanager
def opened_security(folder: str) -> Iterator[SecurityStore]:
    """The users and rules of the log in `folder`, which is made if it is not there.

    Raises:
        LogLockedError: a process has the log open.
        StorageError: the file is damaged, or the disk refuses.
    """
    files = RealFiles()
    log_dir = LogDir.open(files, folder, durability="fsync", now_ms=0)
    try:
        yield SecurityStore(files, folder, _run_here)
    finally:
        log_dir.close(clean=False)


def has_users(folder: str) -> bool:
    """Whether there is something to open, though there may be no log yet."""
    return RealFiles().exists(f"{folder}/{SECURITY_FILE}")


async def _run_here(work: Callable[[], None]) -> None:
    work()
