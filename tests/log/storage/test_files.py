"""The real, the in-memory and the simulated disk keep the same rules."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from millstream.log.errors import LogLockedError
from millstream.log.storage import files as files_module
from millstream.log.storage.files import Files, RealFiles, parent, replace_file
from millstream.log.storage.memory_files import MemoryFiles

Disk = tuple[Files, str]


def test_append_read_and_size(disk: Disk) -> None:
    files, folder = disk
    handle = files.open(f"{folder}/a", create=True)
    handle.append(b"one", memoryview(b"two")[1:], b"")
    handle.append(b"three")
    assert handle.size() == files.size(f"{folder}/a") == 10
    assert handle.read(2, 4) == b"ewot"
    assert handle.read(8, 100) == b"ee"
    assert handle.read(10, 5) == handle.read(99, 5) == b""
    handle.fsync()
    handle.close()
    handle.close()
    assert files.read_whole(f"{folder}/a") == b"onewothree"


def test_when_a_file_changed(disk: Disk) -> None:
    files, folder = disk
    before_ms = time.time_ns() // 1_000_000 - 20  # a file system's clock ticks coarsely
    handle = files.open(f"{folder}/a", create=True)
    handle.append(b"x")
    first_ms = files.modified_ms(f"{folder}/a")
    assert before_ms <= first_ms <= time.time_ns() // 1_000_000
    if isinstance(files, RealFiles):
        os.utime(f"{folder}/a", (5, 5))
    else:
        assert isinstance(files, MemoryFiles)
        files.wall_ms = lambda: 5_000
        files.open(f"{folder}/b", create=True).append(b"x")
        files.rename(f"{folder}/b", f"{folder}/a")
    assert files.modified_ms(f"{folder}/a") == 5_000
    with pytest.raises(FileNotFoundError):
        files.modified_ms(f"{folder}/none")


def test_a_file_goes_on_where_it_ended(disk: Disk) -> None:
    files, folder = disk
    files.open(f"{folder}/a", create=True).append(b"one")
    handle = files.open(f"{folder}/a", create=True)
    assert handle.size() == 3
    handle.append(b"two")
    assert files.open(f"{folder}/a").read(0, 99) == b"onetwo"


def test_truncate_then_append(disk: Disk) -> None:
    files, folder = disk
    handle = files.open(f"{folder}/a", create=True)
    handle.append(b"0123456789")
    handle.truncate(4)
    assert (handle.size(), handle.read(0, 99)) == (4, b"0123")
    handle.append(b"ab")
    assert handle.read(0, 99) == b"0123ab"


def test_overwrite_keeps_the_size(disk: Disk) -> None:
    files, folder = disk
    handle = files.open(f"{folder}/a", create=True)
    handle.append(b"0123456789")
    handle.overwrite(3, b"xyz")
    assert handle.read(0, 99) == b"012xyz6789"
    with pytest.raises(AssertionError):
        handle.overwrite(8, b"xyz")


def test_an_open_handle_outlives_its_name(disk: Disk) -> None:
    files, folder = disk
    handle = files.open(f"{folder}/a", create=True)
    handle.append(b"one")
    files.remove(f"{folder}/a")
    assert not files.exists(f"{folder}/a")
    handle.append(b"two")
    assert handle.read(0, 99) == b"onetwo"
    handle.fsync()


def test_rename_replaces(disk: Disk) -> None:
    files, folder = disk
    files.open(f"{folder}/a", create=True).append(b"new")
    files.open(f"{folder}/b", create=True).append(b"old")
    files.rename(f"{folder}/a", f"{folder}/b")
    assert files.list_dir(folder) == ["b"]
    assert files.read_whole(f"{folder}/b") == b"new"


def test_a_folder_is_renamed_with_what_is_in_it(disk: Disk) -> None:
    files, folder = disk
    files.make_dir(f"{folder}/a")
    files.open(f"{folder}/a/file", create=True).append(b"x")
    files.rename(f"{folder}/a", f"{folder}/b")
    assert files.read_whole(f"{folder}/b/file") == b"x"


def test_names(disk: Disk) -> None:
    files, folder = disk
    files.make_dir(f"{folder}/b")
    files.open(f"{folder}/a", create=True)
    files.open(f"{folder}/C", create=True)
    assert files.list_dir(folder) == ["C", "a", "b"]
    assert files.list_dir(f"{folder}/b") == []
    assert files.exists(f"{folder}/a")
    assert files.exists(f"{folder}/b")
    assert files.is_dir(f"{folder}/b")
    assert not files.is_dir(f"{folder}/a")
    assert not files.is_dir(f"{folder}/none")
    assert not files.exists(f"{folder}/a/below")
    files.remove_dir(f"{folder}/b")
    assert not files.exists(f"{folder}/b")
    files.fsync_dir(folder)


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (lambda files, folder: files.open(f"{folder}/none"), errno.ENOENT),
        (lambda files, folder: files.open(f"{folder}/none/a", create=True), errno.ENOENT),
        (lambda files, folder: files.open(f"{folder}/file/a", create=True), errno.ENOTDIR),
        (lambda files, folder: files.open(f"{folder}/full"), errno.EISDIR),
        (lambda files, folder: files.size(f"{folder}/none"), errno.ENOENT),
        (lambda files, folder: files.read_whole(f"{folder}/none"), errno.ENOENT),
        (lambda files, folder: files.list_dir(f"{folder}/none"), errno.ENOENT),
        (lambda files, folder: files.list_dir(f"{folder}/file"), errno.ENOTDIR),
        (lambda files, folder: files.make_dir(f"{folder}/full"), errno.EEXIST),
        (lambda files, folder: files.make_dir(f"{folder}/none/a"), errno.ENOENT),
        (lambda files, folder: files.remove(f"{folder}/none"), errno.ENOENT),
        (lambda files, folder: files.remove_dir(f"{folder}/full"), errno.ENOTEMPTY),
        (lambda files, folder: files.remove_dir(f"{folder}/file"), errno.ENOTDIR),
        (lambda files, folder: files.rename(f"{folder}/none", f"{folder}/a"), errno.ENOENT),
        (lambda files, folder: files.rename(f"{folder}/empty", f"{folder}/full"), errno.ENOTEMPTY),
        (lambda files, folder: files.rename(f"{folder}/full", f"{folder}/file"), errno.ENOTDIR),
        (lambda files, folder: files.rename(f"{folder}/file", f"{folder}/full"), errno.EISDIR),
        (lambda files, folder: files.fsync_dir(f"{folder}/none"), errno.ENOENT),
        (lambda files, folder: files.fsync_dir(f"{folder}/file"), errno.ENOTDIR),
    ],
)
def test_what_cannot_be_done(
    disk: Disk, operation: Callable[[Files, str], object], code: int
) -> None:
    files, folder = disk
    files.open(f"{folder}/file", create=True)
    files.make_dir(f"{folder}/full")
    files.make_dir(f"{folder}/empty")
    files.open(f"{folder}/full/file", create=True)
    with pytest.raises(OSError) as raised:
        operation(files, folder)
    assert raised.value.errno == code


def test_replace_file(disk: Disk) -> None:
    files, folder = disk
    replace_file(files, f"{folder}/a", b"first, and long")
    replace_file(files, f"{folder}/a", b"second")
    assert files.read_whole(f"{folder}/a") == b"second"
    assert files.list_dir(folder) == ["a"]


def test_a_lock_has_one_holder(disk: Disk) -> None:
    files, folder = disk
    lock = files.lock(f"{folder}/.lock")
    with pytest.raises(LogLockedError) as raised:
        files.lock(f"{folder}/.lock")
    message = str(raised.value)
    assert str(os.getpid()) in message
    assert folder in message
    assert "another directory" in message
    assert "stop that process" in message
    lock.release()
    lock.release()
    files.lock(f"{folder}/.lock").release()


def test_another_process_holds_the_lock(tmp_path: Path) -> None:
    program = (
        "import sys; from millstream.log.storage.files import RealFiles\n"
        "lock = RealFiles().lock(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    )
    path = str(tmp_path / ".lock")
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LogLockedError, match=f"process {process.pid}\\."):
            RealFiles().lock(path)
        process.kill()
        process.wait()
        # The kernel drops the lock of a process that is gone, whatever it left in the file.
        RealFiles().lock(path).release()


def test_short_writes_and_reads_are_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_pwritev, real_pwrite, real_pread = os.pwritev, os.pwrite, os.pread
    handle = RealFiles().open(str(tmp_path / "a"), create=True)
    monkeypatch.setattr(
        files_module.os, "pwritev", lambda fd, parts, at: real_pwritev(fd, [parts[0][:3]], at)
    )
    monkeypatch.setattr(files_module.os, "pwrite", lambda fd, d, at: real_pwrite(fd, d[:2], at))
    monkeypatch.setattr(
        files_module.os, "pread", lambda fd, size, at: real_pread(fd, min(size, 4), at)
    )
    handle.append(b"0123456", b"789", b"abcdef")
    assert handle.size() == 16
    assert handle.read(1, 14) == b"123456789abcde"
    assert handle.read(9, 100) == b"9abcdef"


def test_a_failed_append_does_not_move_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = RealFiles().open(str(tmp_path / "a"), create=True)
    handle.append(b"whole")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files_module.os, "pwritev", full)
        with pytest.raises(OSError, match="No space"):
            handle.append(b"more")
    assert handle.size() == 5


def test_exists_does_not_hide_a_failing_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: str) -> os.stat_result:
        raise OSError(errno.EIO, "Input/output error", path)

    monkeypatch.setattr(files_module.os, "lstat", failing)
    with pytest.raises(OSError, match="Input/output"):
        RealFiles().exists(str(tmp_path / "a"))


@pytest.mark.parametrize(
    ("path", "folder"),
    [("/a/b", "/a"), ("/a", "/"), ("/", "/"), ("a/b/", "a"), ("a", "."), (".", ".")],
)
def test_parent(path: str, folder: str) -> None:
    assert parent(path) == folder
