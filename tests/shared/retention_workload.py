"""A workload whose old segments go: by size, by time, the active one too, and by delete_records."""

from __future__ import annotations

from dataclasses import replace

from millstream.log.storage.log_dir import LogDir
from millstream.log.testing.sim_files import SimFiles
from shared.partition_workload import History, Producing
from shared.partitions import NOW_MS, PARTITION, SMALL, new_partition, open_log

BY_SIZE = replace(SMALL, retention_ms=-1, retention_bytes=500)
BY_TIME = replace(SMALL, retention_ms=1000)
LATER_MS = NOW_MS + 60_000


def retention_workload(files: SimFiles, history: History) -> None:
    """Retention with and without a flush and a checkpoint behind it, and a clean restart."""
    log_dir, partition = new_partition(files, config=BY_SIZE)
    history.created = True
    producing = Producing(history, partition)
    some_segments(producing)
    by_size(log_dir, producing)
    everything(log_dir, producing)
    after_deletion(log_dir, producing)
    log_dir.close()
    history.log_start_promised = history.log_start_tried
    log_dir = open_log(files, config=BY_TIME)
    producing.partition = log_dir.partitions[PARTITION]
    history.acknowledged = producing.partition.log_end_offset
    after_restart(log_dir, producing)


def retain(producing: Producing, now_ms: int) -> int:
    """Apply retention; what it did must be what can be read now."""
    before = producing.partition.log_start_offset
    dropped = producing.partition.apply_retention(now_ms)
    start = producing.partition.log_start_offset
    assert (start > before) == (dropped > 0)
    producing.history.log_start_tried = max(producing.history.log_start_tried, start)
    producing.check_reads()
    return dropped


def checkpoint(log_dir: LogDir, producing: Producing) -> None:
    """From now on what was deleted stays deleted."""
    log_dir.checkpoint()
    producing.history.log_start_promised = producing.partition.log_start_offset


def some_segments(producing: Producing) -> None:
    """Batches of an idempotent producer, and a transaction that stays open."""
    for count in (2, 3, 1):
        producing.send(1, 0, count)
    producing.send(2, 0, 2, transactional=True)
    producing.flush()
    for count in (2, 1, 3, 2, 2, 1, 4):
        producing.send(1, 0, count)
        producing.flush()
    producing.send(3, 5, 1, transactional=True)
    producing.end(3, 6, commit=False)
    producing.flush()


def by_size(log_dir: LogDir, producing: Producing) -> None:
    """Some go; more is written before that is for good."""
    assert retain(producing, NOW_MS) > 0
    producing.send(1, 0, 2)
    checkpoint(log_dir, producing)
    producing.flush()
    for count in (3, 3, 2, 3):
        producing.send(1, 0, count)
    retain(producing, NOW_MS)  # with batches that are not flushed, and a segment that was closed
    checkpoint(log_dir, producing)
    producing.flush()
    checkpoint(log_dir, producing)


def everything(log_dir: LogDir, producing: Producing) -> None:
    """All are too old, the active one too, twice: the transaction is still open, and producer 1
    goes on where it was."""
    partition = producing.partition
    partition.config = BY_TIME
    producing.send(1, 0, 1)
    retain(producing, LATER_MS)  # what is not flushed stays
    assert partition.log_start_offset <= partition.high_watermark < partition.log_end_offset
    producing.flush()
    assert retain(producing, LATER_MS) > 0
    assert partition.log_start_offset == partition.log_end_offset
    checkpoint(log_dir, producing)  # the new segment is not on the disk yet
    producing.flush()
    checkpoint(log_dir, producing)
    producing.send(1, 0, 2)
    producing.flush()
    assert retain(producing, LATER_MS) > 0
    producing.send(1, 0, 1)
    producing.flush()
    checkpoint(log_dir, producing)
    producing.end(2, 1, commit=True)
    producing.flush()


def after_deletion(log_dir: LogDir, producing: Producing) -> None:
    """Records deleted by offset, then by age."""
    for count in (2, 4, 3, 4, 2, 1):
        producing.send(1, 0, count)
    producing.send(2, 1, 2, transactional=True)
    producing.flush()
    before = producing.partition.log_start_offset + 4
    producing.history.log_start_tried = before
    producing.partition.delete_records(before)
    checkpoint(log_dir, producing)
    producing.partition.config = BY_SIZE
    retain(producing, LATER_MS)
    checkpoint(log_dir, producing)


def after_restart(log_dir: LogDir, producing: Producing) -> None:
    """Everything goes again, at once after the start."""
    producing.check_reads()
    assert retain(producing, LATER_MS) > 0
    checkpoint(log_dir, producing)
    producing.send(1, 0, 2)
    producing.flush()
    checkpoint(log_dir, producing)
    producing.end(2, 2, commit=False)
    producing.send(1, 0, 1)
    producing.flush()
