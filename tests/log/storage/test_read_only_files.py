"""The disk for tools that only look: it reads, refuses to write, and keeps owners out meanwhile."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from millstream.log.errors import LogLockedError
from millstream.log.storage.files import Files, ReadOnlyFiles, RealFiles

CHANGES: dict[str, Callable[[Files, str], object]] = {
    "open": lambda files, folder: files.open(f"{folder}/b", create=True),
    "make_dir": lambda files, folder: files.make_dir(f"{folder}/b"),
    "remove": lambda files, folder: files.remove(f"{folder}/a"),
    "remove_dir": lambda files, folder: files.remove_dir(f"{folder}/d"),
    "rename": lambda files, folder: files.rename(f"{folder}/a", f"{folder}/b"),
    "fsync_dir": lambda files, folder: files.fsync_dir(folder),
    "append": lambda files, folder: files.open(f"{folder}/a").append(b"x"),
    "truncate": lambda files, folder: files.open(f"{folder}/a").truncate(0),
}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "a").write_bytes(b"content")
    (tmp_path / "d").mkdir()
    return str(tmp_path)


@pytest.mark.parametrize("name", list(CHANGES))
def test_nothing_is_changed(folder: str, name: str) -> None:
    with pytest.raises(OSError) as raised:
        CHANGES[name](ReadOnlyFiles(), folder)
    assert raised.value.errno in {errno.EROFS, errno.EBADF, errno.EINVAL}
    assert sorted(path.name for path in Path(folder).iterdir()) == ["a", "d"]
    assert ReadOnlyFiles().read_whole(f"{folder}/a") == b"content"


def test_it_reads(folder: str) -> None:
    handle = ReadOnlyFiles().open(f"{folder}/a")
    assert (handle.size(), handle.read(3, 9)) == (7, b"tent")
    handle.close()


def test_several_may_look_and_nobody_may_own_meanwhile(folder: str) -> None:
    path = f"{folder}/.lock"
    ReadOnlyFiles().lock(path).release()
    assert not Path(path).exists()
    owner = RealFiles().lock(path)
    with pytest.raises(LogLockedError, match="in use by process"):
        ReadOnlyFiles().lock(path)
    owner.release()
    first, second = ReadOnlyFiles().lock(path), ReadOnlyFiles().lock(path)
    with pytest.raises(LogLockedError):
        RealFiles().lock(path)
    first.release()
    second.release()
    RealFiles().lock(path).release()
