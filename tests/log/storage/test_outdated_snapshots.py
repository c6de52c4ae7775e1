"""A snapshot whose log is gone is worth nothing: what it calls open may have ended since."""

from __future__ import annotations

from millstream.log.storage.log_dir import LogDir
from millstream.log.storage.partition import Partition
from millstream.log.testing.sim_files import SimFiles
from shared.partitions import (
    FOLDER,
    NOW_MS,
    PARTITION,
    batch,
    end,
    flush,
    log_file,
    new_partition,
    offsets,
    open_log,
    send,
)


def with_open_transaction(files: SimFiles) -> tuple[LogDir, Partition]:
    """A checkpoint while a transaction is open, and then its marker, which nobody synced."""
    log_dir, partition = new_partition(files, durability="os")
    send(partition, 1, 0, 0, b"a")
    partition.seal()
    flush(partition)
    log_dir.checkpoint()
    end(partition, 1, 0, commit=True)
    return log_dir, partition


def snapshots(files: SimFiles) -> list[str]:
    return [name for name in files.list_dir(FOLDER) if name.endswith(".snapshot")]


def test_when_the_log_begins_anew() -> None:
    files = SimFiles()
    log_dir, partition = with_open_transaction(files)
    partition.append(batch([b"b"]), NOW_MS)
    partition.delete_records(3)
    log_dir.checkpoint()
    disk = files.after_crash("dropped", "kept")
    partition = open_log(disk, durability="os").partitions[PARTITION]
    assert offsets(partition) == (3, 3, 3, 3)
    assert snapshots(disk) == []
    partition.append(batch([b"c"]), NOW_MS)
    partition = open_log(disk.restart(), durability="os").partitions[PARTITION]
    assert offsets(partition) == (3, 4, 4, 4)
    assert partition.open_transactions() == {}


def test_when_the_first_segment_was_not_synced_and_the_second_was() -> None:
    files = SimFiles()
    log_dir, partition = with_open_transaction(files)
    while len(partition._segments) < 2:
        partition.append(batch([b"." * 100]), NOW_MS)
    begin = partition._segments.active.base_offset
    partition.delete_records(begin)
    log_dir.checkpoint()
    files.open(log_file(begin)).fsync()
    disk = files.after_crash("dropped", "kept")
    assert len(snapshots(disk)) == 2
    partition = open_log(disk, durability="os").partitions[PARTITION]
    assert offsets(partition) == (begin, begin + 1, begin + 1, begin + 1)
    assert partition.open_transactions() == {}
    assert snapshots(disk) == [log_file(begin, ".snapshot").rpartition("/")[2]]
