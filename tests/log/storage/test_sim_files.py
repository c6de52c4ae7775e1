"""The simulated disk does what its fault model says, every kind of fault of it."""

from __future__ import annotations

from random import Random

import pytest

from millstream.log.storage.files import replace_file
from millstream.log.testing.sim_files import CONTENTS, Crash, Operation, SimFiles, disk_error
from millstream.log.testing.sim_nodes import SimFile


def synced_then_written(synced: bytes, written: bytes) -> SimFile:
    file = SimFile()
    file.append(synced)
    file.sync()
    file.append(written)
    return file


def outcomes(file: SimFile, contents: str) -> set[bytes]:
    return {file.after_crash(contents, Random(seed)) for seed in range(200)}


def test_what_a_power_loss_leaves_of_un_synced_bytes() -> None:
    file = synced_then_written(b"SAFE", b"abc")
    assert outcomes(file, "kept") == {b"SAFEabc"}
    assert outcomes(file, "dropped") == {b"SAFE"}
    assert outcomes(file, "cut") == {b"SAFE", b"SAFEa", b"SAFEab", b"SAFEabc"}
    assert outcomes(file, "zeroed") == {
        b"SAFE\0\0\0",
        b"SAFEa\0\0",
        b"SAFEab\0",
        b"SAFEabc",
    }
    garbage = outcomes(file, "garbage")
    assert all(left.startswith(b"SAFE") and len(left) == 7 for left in garbage)
    assert b"SAFESAF" in garbage  # what lay there before may be a batch of the same file
    assert len(garbage) > 10
    assert b"SAFE\0bc" in outcomes(file, "holes")
    assert b"SAFEa\0c" in outcomes(file, "holes")
    mixed = outcomes(file, "mixed")
    assert {b"SAFE", b"SAFEabc", b"SAFEa", b"SAFEa\0\0", b"SAFE\0bc"} <= mixed


@pytest.mark.parametrize("contents", CONTENTS)
def test_synced_bytes_survive(contents: str) -> None:
    assert outcomes(synced_then_written(b"SAFE", b""), contents) == {b"SAFE"}
    longer = outcomes(synced_then_written(b"SAFE", b"abc"), contents)
    assert all(left.startswith(b"SAFE") for left in longer)


def test_a_truncation_may_be_lost() -> None:
    file = synced_then_written(b"0123456789", b"")
    file.truncate(4)
    assert outcomes(file, "dropped") == {b"0123456789"}
    assert outcomes(file, "kept") == {b"0123"}
    file.append(b"ab")
    assert outcomes(file, "cut") == {b"0123456789", b"0123a56789", b"0123ab6789"}
    file.sync()
    assert outcomes(file, "mixed") == {b"0123ab"}


def test_after_a_failed_fsync_only_writing_again_helps() -> None:
    file = synced_then_written(b"SAFE", b"abc")
    file.lose()
    file.sync()
    assert bytes(file.content) == b"SAFEabc"
    assert outcomes(file, "kept") == {b"SAFE\0\0\0"}
    file.overwrite(4, b"abc")
    assert outcomes(file, "dropped") == {b"SAFE\0\0\0"}
    file.sync()
    assert outcomes(file, "dropped") == {b"SAFEabc"}


def test_what_a_failed_fsync_lost_can_be_cut_off() -> None:
    file = synced_then_written(b"SAFE", b"abcdef")
    file.lose()
    file.truncate(6)
    file.append(b"new")
    file.sync()
    assert outcomes(file, "kept") == {b"SAFE\0\0new"}


def disk_with_names() -> SimFiles:
    files = SimFiles()
    for name in ("stays", "goes", "moves"):
        files.open(f"/{name}", create=True)
    files.fsync_dir("/")
    files.open("/new", create=True)
    files.remove("/goes")
    files.rename("/moves", "/moved")
    return files


def test_names_are_lost_until_the_folder_is_synced() -> None:
    files = disk_with_names()
    assert files.list_dir("/") == ["moved", "new", "stays"]
    assert files.after_crash("kept", "kept").list_dir("/") == ["moved", "new", "stays"]
    assert files.after_crash("kept", "dropped").list_dir("/") == ["goes", "moves", "stays"]
    files.fsync_dir("/")
    assert files.after_crash("kept", "dropped").list_dir("/") == ["moved", "new", "stays"]


def test_each_name_is_lost_on_its_own_and_a_rename_is_one_step() -> None:
    files = disk_with_names()
    left = {
        tuple(files.after_crash("kept", "mixed", seed=seed).list_dir("/")) for seed in range(99)
    }
    assert len(left) == 8
    assert all(("moved" in names) != ("moves" in names) for names in left)
    assert all("stays" in names for names in left)


def test_files_are_not_ordered() -> None:
    files = SimFiles()
    for name in ("one", "two"):
        files.open(name, create=True).append(b"x")
    files.fsync_dir("/")
    left = set()
    for seed in range(99):
        disk = files.after_crash("mixed", "kept", seed=seed)
        left.add((disk.size("one"), disk.size("two")))
    assert {(0, 1), (1, 0), (0, 0), (1, 1)} <= left


def test_the_same_seed_gives_the_same_disk() -> None:
    files = disk_with_names()
    files.open("/stays").append(bytes(range(100)))
    one, two = (files.after_crash(seed=7).contents() for _ in range(2))
    assert one == two
    assert one != files.after_crash(seed=8).contents()


def test_a_crash_stops_everything_and_tears_the_write() -> None:
    files = SimFiles(crash_at=2)
    handle = files.open("a", create=True)
    handle.append(b"0123")
    with pytest.raises(Crash):
        handle.append(b"4567")
    for operation in (handle.fsync, lambda: files.exists("a"), lambda: handle.append(b"x")):
        with pytest.raises(Crash):
            operation()
    handle.close()
    assert files.restart().read_whole("a") == b"012345"
    assert files.writes == 3


def test_reading_is_counted_but_no_place_to_crash() -> None:
    files = SimFiles(crash_at=1)
    handle = files.open("a", create=True)
    assert handle.read(0, 9) == b""
    assert files.list_dir("/") == ["a"]
    assert [operation.kind for operation in files.operations] == ["create", "read", "list_dir"]
    assert [operation.write_number for operation in files.operations] == [0, 1, 1]
    with pytest.raises(Crash):
        handle.append(b"x")


def test_a_killed_process_leaves_its_bytes_un_synced_and_its_lock_free() -> None:
    files = SimFiles()
    files.lock("/.lock")
    files.open("a", create=True).append(b"x")
    again = files.restart()
    again.lock("/.lock")
    assert again.read_whole("a") == b"x"
    assert again.after_crash("dropped", "kept").read_whole("a") == b""


def failing(kind: str) -> SimFiles:
    def fail(operation: Operation) -> OSError | None:
        return disk_error("EIO", operation.path) if operation.kind == kind else None

    return SimFiles(on_operation=fail)


def test_an_error_is_raised_once_asked_for() -> None:
    files = failing("append")
    handle = files.open("a", create=True)
    with pytest.raises(OSError, match="Input/output error"):
        handle.append(b"0123")
    assert files.read_whole("a") == b"01"
    files.on_operation = None
    handle.append(b"x")
    assert files.read_whole("a") == b"01x"


def test_a_failed_fsync_is_not_made_good_by_the_next() -> None:
    files = failing("fsync")
    handle = files.open("a", create=True)
    files.fsync_dir("/")
    handle.append(b"lost")
    with pytest.raises(OSError, match="Input/output error"):
        handle.fsync()
    files.on_operation = None
    handle.append(b"safe")
    handle.fsync()
    assert files.read_whole("a") == b"lostsafe"
    assert files.after_crash("kept", "kept").read_whole("a") == b"\0\0\0\0safe"


def test_a_replaced_file_is_the_old_one_or_the_new_one() -> None:
    for crash_at in range(100):
        files = SimFiles()
        replace_file(files, "/a", b"old")
        files.crash_at = files.writes + crash_at
        try:
            replace_file(files, "/a", b"the new one")
        except Crash:
            left = {files.after_crash(seed=seed).read_whole("/a") for seed in range(50)}
            assert left <= {b"old", b"the new one"}
        else:
            assert crash_at == 6
            assert files.after_crash("dropped", "dropped").read_whole("/a") == b"the new one"
            return
