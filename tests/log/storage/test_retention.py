"""A partition whose old segments go by age and size; the rules are in test_retention_rules.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from millstream.log.config import TopicConfig
from millstream.log.errors import OffsetOutOfRangeError, StorageError
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.storage.partition import Partition
from millstream.log.testing.sim_files import SimFiles, disk_error
from shared.partitions import (
    FOLDER,
    NOW_MS,
    PARTITION,
    SMALL,
    batch,
    check_indexes,
    flush,
    fresh,
    new_partition,
    offsets,
    open_log,
    send,
    values,
)

DAY_MS = 86_400_000
KEEP_ALL = replace(SMALL, retention_ms=-1)


def filled(config: TopicConfig, count: int = 30, *, step_ms: int = 100) -> Partition:
    """Records a step apart, the last one now, all flushed."""
    partition = fresh(config)
    for i in range(count):
        time = NOW_MS - (count - 1 - i) * step_ms
        partition.append(batch([b"%d" % i], timestamp=time), NOW_MS)
    flush(partition)
    return partition


def test_old_segments_go_and_the_log_begins_later() -> None:
    partition = filled(replace(SMALL, retention_ms=1000))
    bases = [segment.base_offset for segment in partition._segments]
    dropped = partition.apply_retention(NOW_MS)
    assert 0 < dropped < len(bases)
    start = bases[dropped]
    assert partition.log_start_offset == start
    assert values(partition) == [b"%d" % i for i in range(start, 30)]
    # The newest record of the last segment that went is too old, that of the next is not.
    assert NOW_MS - (29 - (start - 1)) * 100 < NOW_MS - 1000
    assert partition._segments.first.largest_timestamp >= NOW_MS - 1000
    assert partition.apply_retention(NOW_MS) == 0
    with pytest.raises(OffsetOutOfRangeError):
        partition.read(start - 1, size_bytes_max=100)
    check_indexes(partition)


def test_size() -> None:
    partition = filled(replace(KEEP_ALL, retention_bytes=1000))
    partition.apply_retention(NOW_MS)
    left = sum(segment.size_bytes for segment in partition._segments)
    assert left >= 1000 > left - partition._segments.first.size_bytes


def test_the_active_segment_is_closed_and_goes_too() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files, config=replace(SMALL, retention_ms=1000))
    for i in range(9):
        partition.append(batch([b"%d" % i], producer_id=1, epoch=0, sequence=i), NOW_MS)
    flush(partition)
    assert partition.apply_retention(NOW_MS + 1000) == 0
    count = len(partition._segments)
    assert partition.apply_retention(NOW_MS + 1001) == count
    assert offsets(partition) == (9, 9, 9, 9)
    assert [segment.base_offset for segment in partition._segments] == [9]
    # The old files stay until the new segment and the producers are on the disk.
    log_dir.checkpoint()
    assert files.exists(f"{FOLDER}/00000000000000000000.log")
    assert partition.unflushed
    flush(partition)
    log_dir.checkpoint()
    assert [name for name in files.list_dir(FOLDER) if name.endswith(".log")] == [
        "00000000000000000009.log"
    ]
    assert (
        partition.append(batch([b"9"], producer_id=1, epoch=0, sequence=9), NOW_MS).base_offset == 9
    )
    assert partition.append(batch([b"8"], producer_id=1, epoch=0, sequence=8), NOW_MS).duplicate
    log_dir.close()
    partition = open_log(files.restart()).partitions[PARTITION]
    assert offsets(partition) == (9, 10, 10, 10)


def test_what_is_not_flushed_stays() -> None:
    partition = filled(replace(SMALL, retention_ms=0))
    partition.append(batch([b"new"], timestamp=1), NOW_MS)
    assert partition.high_watermark == 30
    partition.apply_retention(NOW_MS + DAY_MS)
    assert partition.log_start_offset <= 30
    assert partition.log_end_offset == 31
    flush(partition)
    assert values(partition)[-1] == b"new"


def test_a_record_with_a_time_to_come_keeps_its_segment() -> None:
    config = replace(SMALL, retention_ms=1000, message_timestamp_after_max_ms=2 * DAY_MS)
    partition = fresh(config)
    for i in range(30):
        time = NOW_MS + DAY_MS if i == 15 else NOW_MS
        partition.append(batch([b"%d" % i], timestamp=time), NOW_MS)
    flush(partition)
    partition.apply_retention(NOW_MS + DAY_MS)
    assert partition._segments.first.largest_timestamp == NOW_MS + DAY_MS
    assert 0 < partition.log_start_offset <= 15
    partition.apply_retention(NOW_MS + DAY_MS + 1001)
    assert offsets(partition) == (30, 30, 30, 30)


def test_records_without_a_time_go_by_the_files_time() -> None:
    now = [NOW_MS]
    files = MemoryFiles(wall_ms=lambda: now[0])
    _, partition = new_partition(files, config=replace(SMALL, retention_ms=1000))
    for i in range(30):
        partition.append(_timeless(i), now[0])
        now[0] += 100
    flush(partition)
    last_ms = now[0] - 100
    partition.apply_retention(now[0])
    assert 0 < partition.log_start_offset < 30
    partition.apply_retention(last_ms + 1000)
    assert partition.log_start_offset < 30
    partition.apply_retention(last_ms + 1001)
    assert partition.log_start_offset == 30


def test_an_open_transaction_does_not_hold_retention_back() -> None:
    """As in Kafka; what is known of the transaction is kept."""
    partition = fresh(replace(SMALL, retention_ms=1000))
    for sequence in range(12):
        send(partition, 7, 0, sequence, b"in transaction")
    flush(partition)
    partition.apply_retention(NOW_MS + 2000)
    assert offsets(partition) == (12, 12, 12, 12)
    assert 7 in partition.open_transactions()
    send(partition, 7, 0, 12, b"in transaction")
    flush(partition)
    assert partition.last_stable_offset == 12


def test_a_changed_setting_counts_at_once() -> None:
    partition = filled(KEEP_ALL)
    assert partition.apply_retention(NOW_MS + DAY_MS) == 0
    partition.config = replace(partition.config, retention_ms=1)
    assert partition.apply_retention(NOW_MS + DAY_MS) > 0


def test_a_check_reads_no_records_and_few_files() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files, config=KEEP_ALL)
    for i in range(200):
        partition.append(batch([b"%d" % i], timestamp=NOW_MS + i), NOW_MS + i)
    flush(partition)
    log_dir.close()
    files = files.restart()
    config = replace(SMALL, retention_ms=1000, retention_bytes=100_000)
    partition = open_log(files, config=config).partitions[PARTITION]
    count = len(partition._segments)
    before = len(files.operations)
    partition.apply_retention(NOW_MS)
    first = files.operations[before:]
    assert not [each for each in first if each.kind == "read" and each.path.endswith(".log")]
    assert len([each for each in first if each.kind == "size"]) <= count + 1
    before = len(files.operations)
    for _ in range(10):
        partition.apply_retention(NOW_MS)
    assert files.operations[before:] == []


@pytest.mark.parametrize("kind", ["size", "exists", "modified_ms"])
def test_a_disk_that_does_not_answer_costs_nothing(kind: str) -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files, config=KEEP_ALL)
    for _ in range(30):
        partition.append(_timeless(0), NOW_MS)
    flush(partition)
    log_dir.close()
    files = files.restart()
    config = replace(SMALL, retention_ms=1000, retention_bytes=10_000)
    partition = open_log(files, config=config).partitions[PARTITION]
    files.on_operation = lambda operation: (
        disk_error("EIO", operation.path) if operation.kind == kind else None
    )
    with pytest.raises(StorageError, match="may be readable again"):
        partition.apply_retention(NOW_MS + DAY_MS)
    assert partition.log_start_offset == 0
    files.on_operation = None
    assert not partition.failed
    partition.apply_retention(NOW_MS * 2)
    assert partition.log_start_offset == 30


@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
def test_a_disk_that_takes_nothing_loses_old_segments_but_not_the_active_one(kind) -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files, config=replace(SMALL, retention_ms=1000))
    for i in range(30):
        partition.append(batch([b"%d" % i]), NOW_MS)
    flush(partition)
    files.on_operation = lambda operation: (
        disk_error(kind, operation.path) if operation.kind in ("append", "create") else None
    )
    with pytest.raises(StorageError):
        partition.append(batch([b"too much"]), NOW_MS)
    active = partition._segments.active.base_offset
    if kind == "EIO":
        assert partition.apply_retention(NOW_MS + DAY_MS) > 0
    else:
        with pytest.raises(StorageError, match="disk is full"):
            partition.apply_retention(NOW_MS + DAY_MS)
    files.on_operation = None
    assert partition.failed == (kind == "EIO")
    assert partition.log_start_offset == active
    log_dir.checkpoint()
    assert len([name for name in files.list_dir(FOLDER) if name.endswith(".log")]) == 1


def test_closing_takes_the_files_of_dropped_segments_along() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files, config=replace(SMALL, retention_ms=1000))
    for i in range(30):
        partition.append(batch([b"%d" % i]), NOW_MS)
    flush(partition)
    partition.apply_retention(NOW_MS + 1001)
    log_dir.close()
    assert [name for name in files.list_dir(FOLDER) if name.endswith(".log")] == [
        "00000000000000000030.log"
    ]
    partition = open_log(files.restart()).partitions[PARTITION]
    assert offsets(partition) == (30, 30, 30, 30)


def _timeless(i: int) -> bytes:
    """A record without a time."""
    return batch([b"%d" % i], timestamp=-1)
