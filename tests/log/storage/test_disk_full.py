"""A disk that fills up: what it has no room for is refused, nothing else is lost, and what is freed
is used again without opening the log anew."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from millstream.log.errors import StorageError
from millstream.log.storage.disk_full import DiskFullError, append_or_nothing, make_or_nothing
from millstream.log.storage.files import RealFiles
from millstream.log.testing.sim_files import Operation, SimFiles, disk_error
from shared.partitions import (
    FOLDER,
    NOW_MS,
    PARTITION,
    batch,
    check_indexes,
    end,
    flush,
    new_partition,
    open_log,
    values,
)

NEEDS_ROOM = {"append", "create", "make_dir"}
COUNT = 24


def text(number: int) -> bytes:
    return b"%04d" % number + b"." * 90


def refuse(files: SimFiles, write_number: int) -> None:
    """This one operation finds no room."""

    def full(operation: Operation) -> OSError | None:
        due = operation.is_write and operation.write_number == write_number
        return disk_error("ENOSPC", operation.path) if due else None

    files.on_operation = full


def fill_up(files: SimFiles, *, room: int = 0) -> None:
    """From now on there is room for so many writes more."""
    writes = [0]

    def full(operation: Operation) -> OSError | None:
        if operation.kind not in NEEDS_ROOM:
            return None
        writes[0] += 1
        return disk_error("ENOSPC", operation.path) if writes[0] > room else None

    files.on_operation = full


def workload(files: SimFiles, at: int | None) -> tuple[list[bytes], int, bool]:
    """Append and roll, with an idempotent producer and aborted transactions; flush now and then.
    What was refused is sent again. Returns what was written, how often it was refused, and whether
    the refusal hit an fsync or something else that cannot be taken back."""
    partition = new_partition(files)[1]
    start, sent, refused = files.writes, [], 0
    if at is not None:
        refuse(files, start + at)
    for number in range(COUNT):
        for _ in range(2):
            try:
                if number % 6 == 5:
                    end(partition, 7, 0, commit=False)
                else:
                    in_transaction = number % 6 in (3, 4)
                    partition.append(
                        batch(
                            [text(number)],
                            producer_id=7 if in_transaction else 3,
                            epoch=0,
                            sequence=len([n for n in range(number) if is_of(n, in_transaction)]),
                            transactional=in_transaction,
                        ),
                        NOW_MS,
                    )
                    sent.append(text(number))
            except StorageError as error:
                refused += 1
                assert ("disk is full" in str(error)) is not partition.failed  # noqa: PT017
                if partition.failed:
                    return sent, refused, True
                continue
            break
        if number % 3 == 2:
            flush(partition)
            if partition.failed:
                return sent, refused, True
    flush(partition)
    return sent, refused, partition.failed


def is_of(number: int, in_transaction: bool) -> bool:
    return number % 6 != 5 and (number % 6 in (3, 4)) is in_transaction


def test_room_is_missing_once_at_every_write() -> None:
    at, gone_on = 0, 0
    while True:
        files = SimFiles()
        sent, refused, failed = workload(files, at)
        files.on_operation = None
        if not refused and not failed:
            break
        if not failed:
            gone_on += 1
            assert len(sent) == COUNT - COUNT // 6
            for disk in (files.restart(), files.after_crash("dropped", "dropped")):
                partition = open_log(disk).partitions[PARTITION]
                assert values(partition, "read_uncommitted") == sent
                check_indexes(partition)
        at += 1
    assert gone_on > 30


@pytest.mark.parametrize("room", range(6))
def test_a_full_disk_takes_writes_again_when_there_is_room(room: int) -> None:
    """However far a roll got before there was no more room for it."""
    files = SimFiles()
    log_dir, partition = new_partition(files)
    sent = []
    for number in range(7 + room):
        partition.append(batch([text(number)]), NOW_MS)
        sent.append(text(number))
    flush(partition)
    fill_up(files, room=room)
    for number in range(100, 120):
        try:
            partition.append(batch([text(number)]), NOW_MS)
        except StorageError as error:
            assert f"room under {FOLDER}" in str(error)  # noqa: PT017 - it may also be written
        else:
            sent.append(text(number))
    flush(partition)
    assert not partition.failed
    assert values(partition) == sent
    files.on_operation = None
    for number in range(200, 220):
        partition.append(batch([text(number)]), NOW_MS)
        sent.append(text(number))
    flush(partition)
    assert values(partition) == sent
    log_dir.checkpoint()
    lost = open_log(files.after_crash("dropped", "dropped")).partitions[PARTITION]
    assert values(lost) == sent
    log_dir.close()
    again = open_log(files.after_crash("dropped", "dropped")).partitions[PARTITION]
    assert values(again) == sent
    check_indexes(again)


def test_after_a_failed_fsync_of_a_full_disk_writes_are_refused() -> None:
    files = SimFiles()
    partition = new_partition(files)[1]
    partition.append(batch([b"in doubt"]), NOW_MS)
    files.on_operation = lambda each: (
        disk_error("ENOSPC", each.path) if each.kind == "fsync" else None
    )
    flush(partition)
    files.on_operation = None
    assert partition.failed
    with pytest.raises(StorageError, match="takes no more writes"):
        partition.append(batch([b"x"]), NOW_MS)


@pytest.mark.parametrize("kind", ["truncate", "size"])
def test_what_cannot_be_taken_back_for_sure_is_a_failure(kind: str) -> None:
    files = SimFiles()
    partition = new_partition(files)[1]
    partition.append(batch([b"kept"]), NOW_MS)
    flush(partition)

    def fail(operation: Operation) -> OSError | None:
        if operation.kind == "append":
            return disk_error("ENOSPC", operation.path)
        return disk_error("EIO", operation.path) if operation.kind == kind else None

    files.on_operation = fail
    with pytest.raises(StorageError, match="takes no more writes"):
        partition.append(batch([b"torn"]), NOW_MS)
    files.on_operation = None
    assert partition.failed
    assert values(partition) == [b"kept"]


def test_deleting_makes_room_on_a_disk_too_full_for_a_checkpoint() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files)
    for number in range(40):
        partition.append(batch([text(number)]), NOW_MS)
    flush(partition)
    log_dir.checkpoint()
    before = len(files.list_dir(FOLDER))

    def full(operation: Operation) -> OSError | None:
        too_full = operation.kind in NEEDS_ROOM and len(files.list_dir(FOLDER)) > before - 6
        return disk_error("ENOSPC", operation.path) if too_full else None

    files.on_operation = full
    with pytest.raises(StorageError, match="disk is full"):
        partition.append(batch([text(40)]), NOW_MS)
    with pytest.raises(StorageError):
        log_dir.checkpoint()
    partition.delete_records(30)
    log_dir.checkpoint()
    partition.append(batch([text(40)]), NOW_MS)
    flush(partition)
    files.on_operation = None
    expected = [text(number) for number in range(30, 41)]
    assert values(partition) == expected
    assert (
        values(open_log(files.after_crash("dropped", "dropped")).partitions[PARTITION]) == expected
    )


def test_a_crash_while_room_is_made_leaves_no_gap() -> None:
    """Segments go from the oldest on, each for good before the next."""
    crash_at, judged = 0, 0
    while True:
        files = SimFiles()
        log_dir, partition = new_partition(files)
        for number in range(40):
            partition.append(batch([text(number)]), NOW_MS)
        flush(partition)
        log_dir.checkpoint()
        partition.delete_records(30)
        refuse(files, files.writes)
        files.crash_at = files.writes + 1 + crash_at
        try:
            log_dir.checkpoint()
        except BaseException:  # noqa: BLE001 - a Crash is no Exception
            assert files.crashed
        else:
            break
        for seed in range(4):
            disk = files.after_crash("dropped", "mixed", seed=seed)
            left = values(open_log(disk).partitions[PARTITION])
            assert left == [text(number) for number in range(40 - len(left), 40)]
            assert len(left) >= 10
            judged += 1
        crash_at += 1
    assert judged > 60


# The real disk


def test_a_torn_write_of_a_real_file_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, path = RealFiles(), str(tmp_path / "file")
    handle = make_or_nothing(files, path, b"whole")
    writev, full = os.pwritev, OSError(errno.ENOSPC, "No space left on device")

    def short(fd: int, parts: list[bytes], position: int) -> int:
        return writev(fd, [b"".join(parts)[:3]], position)

    def refused(*_arguments: object) -> int:
        raise full

    monkeypatch.setattr(os, "pwritev", short)
    monkeypatch.setattr(os, "pwrite", refused)
    with pytest.raises(DiskFullError):
        append_or_nothing(files, path, handle, 5, b"0123", b"456")
    assert files.read_whole(path) == b"whole"
    monkeypatch.undo()
    append_or_nothing(files, path, handle, 5, b"!")
    assert files.read_whole(path) == b"whole!"
    handle.close()


def test_a_real_file_that_cannot_be_made_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, path = RealFiles(), str(tmp_path / "file")

    def refused(*_arguments: object) -> int:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "pwritev", refused)
    with pytest.raises(DiskFullError, match="quota"):
        make_or_nothing(files, path, b"x")
    assert not files.exists(path)
