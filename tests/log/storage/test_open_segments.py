"""However many segments a partition has, few of their files are open."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from millstream.log.limits import OPEN_SEGMENTS_MAX
from millstream.log.storage.files import RealFiles, open_descriptors
from millstream.log.storage.log_dir import LogDir
from millstream.log.storage.partition import Partition
from millstream.log.testing.sim_files import SimFiles
from shared.partitions import (
    NOW_MS,
    PARTITION,
    SMALL,
    batch,
    check_indexes,
    end,
    flush,
    new_partition,
    open_log,
    read_all,
    send,
    values,
)

COUNT = 200
FILES_OF_A_SEGMENT = 4
SLACK = 4  # the active segment's


def text(number: int) -> bytes:
    return b"%04d" % number + b"." * 400


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_few_files_are_open(tmp_path: Path, durability: str) -> None:
    files, root = RealFiles(), str(tmp_path / "log")
    config = replace(SMALL, retention_ms=10_000)
    before = open_descriptors() or 0
    most = before + OPEN_SEGMENTS_MAX * FILES_OF_A_SEGMENT + SLACK

    def check() -> None:
        assert (open_descriptors() or 0) <= most

    log_dir, partition = new_partition(files, root, config=config, durability=durability)
    expected = [text(number) for number in range(COUNT)]
    for number, value in enumerate(expected):
        partition.append(batch([value], timestamp=NOW_MS + number), NOW_MS)
        if number % 5 == 0:
            flush(partition)
            check()
    flush(partition)
    assert len(partition._segments) > COUNT / 2
    for _ in range(2):
        assert values(partition) == expected
        check()
        assert [partition.offset_for_time(NOW_MS + number) for number in range(COUNT)] == list(
            range(COUNT)
        )
        check()
        assert partition.apply_retention(NOW_MS) == 0
        check()
    log_dir.close()
    log_dir = open_log(files, root, config=config, durability=durability)
    partition = log_dir.partitions[PARTITION]
    assert values(partition) == expected
    check()
    assert partition.apply_retention(NOW_MS + 20_000) > COUNT / 2
    log_dir.checkpoint()
    log_dir.close()
    assert (open_descriptors() or 0) == before


@pytest.mark.parametrize("gone", ["nothing", "checkpoints", "snapshots"])
def test_few_files_are_open_during_recovery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    files, root = RealFiles(), str(tmp_path / "log")
    log_dir, partition = new_partition(files, root)
    for number in range(COUNT):
        partition.append(batch([text(number)]), NOW_MS)
        if number == COUNT // 2:
            flush(partition)
            log_dir.checkpoint()
    flush(partition)
    log_dir.close(clean=False)
    for path in tmp_path.rglob("*checkpoint" if gone == "checkpoints" else "*.snapshot"):
        if gone != "nothing":
            path.unlink()
    most = (open_descriptors() or 0) + FILES_OF_A_SEGMENT + SLACK
    original = os.open

    def counting(path: str, *arguments: int) -> int:
        assert (open_descriptors() or 0) <= most
        return original(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", counting)
        log_dir = open_log(files, root)
    assert values(log_dir.partitions[PARTITION]) == [text(number) for number in range(COUNT)]
    log_dir.close()


def test_what_is_not_synced_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handle that is opened anew after a failed write-back would not hear of the failure."""
    files, root = RealFiles(), str(tmp_path / "log")
    log_dir, partition = new_partition(files, root)
    for number in range(60):
        partition.append(batch([text(number)]), NOW_MS)
    opened: list[str] = []
    original = os.open

    def noted(path: str, *arguments: int) -> int:
        opened.append(path)
        return original(path, *arguments)

    running = partition.start_flush()
    assert running is not None
    monkeypatch.setattr(os, "open", noted)
    running.run()
    assert [path for path in opened if path.endswith(".log")] == []
    partition.finish_flush(running, None)
    assert values(partition) == [text(number) for number in range(60)]
    log_dir.close()


def aborted_behind_many_segments(files: SimFiles) -> tuple[LogDir, Partition]:
    log_dir, partition = new_partition(files)
    for number in range(OPEN_SEGMENTS_MAX * 2):
        partition.append(batch([text(number)]), NOW_MS)
    send(partition, 1, 0, 0, b"aborted")
    flush(partition)
    return log_dir, partition


def check_the_indexes_are_synced(files: SimFiles, log_dir: LogDir) -> None:
    """The active segment is closed; before it is flushed somebody reads all the others."""
    (partition,) = log_dir.partitions.values()
    before = partition._segments.active
    partition.append(batch([b"." * 600]), NOW_MS)
    assert partition._segments.active is not before
    read_all(partition)
    flush(partition)
    log_dir.checkpoint()
    disk = files.after_crash("dropped", "dropped")
    (partition,) = open_log(disk).partitions.values()
    check_indexes(partition)
    assert b"aborted" not in {read.value for read in read_all(partition)}


def test_a_segment_that_was_written_to_during_a_flush_stays_open() -> None:
    files = SimFiles()
    log_dir, partition = aborted_behind_many_segments(files)
    partition.append(batch([b"more"]), NOW_MS)
    running = partition.start_flush()
    assert running is not None
    end(partition, 1, 0, commit=False)
    running.run()
    partition.finish_flush(running, None)
    check_the_indexes_are_synced(files, log_dir)


def test_a_segment_that_was_recovered_stays_open() -> None:
    files = SimFiles()
    _, partition = aborted_behind_many_segments(files)
    end(partition, 1, 0, commit=False)
    flush(partition)
    again = files.restart()
    check_the_indexes_are_synced(again, open_log(again))
