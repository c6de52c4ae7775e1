"""The folder of a log: its lock, its files, what a start reads, how partitions come and go."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from millstream.log.errors import CorruptRecordError, LogLockedError, StorageError
from millstream.log.record import TopicPartition
from millstream.log.storage.files import Files, RealFiles
from millstream.log.storage.log_dir import LogDir
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.storage.partition import Partition
from millstream.log.testing.sim_files import Crash, Operation, SimFiles, disk_error
from shared.partitions import (
    FOLDER,
    NOW_MS,
    PARTITION,
    ROOT,
    SMALL,
    TOPIC,
    batch,
    check_indexes,
    delete_topic,
    flush,
    new_partition,
    open_log,
    read_all,
)

COUNT = 60


def fill(partition: Partition, count: int = COUNT) -> None:
    start = partition.log_end_offset
    for i in range(start, start + count):
        partition.append(batch([b"%d" % i], timestamp=NOW_MS + i), NOW_MS)
    flush(partition)


def values(partition: Partition) -> list[bytes]:
    return [read.value for read in read_all(partition)]


def test_a_log_on_every_disk(disk: tuple[Files, str]) -> None:
    files, folder = disk
    root = f"{folder}/deep/log"
    log_dir, partition = new_partition(files, root)
    fill(partition)
    log_dir.close()
    log_dir = open_log(files, root)
    partition = log_dir.partitions[PARTITION]
    fill(partition)
    log_dir.close(clean=False)
    log_dir = open_log(files, root)
    assert values(log_dir.partitions[PARTITION]) == [b"%d" % i for i in range(2 * COUNT)]
    check_indexes(log_dir.partitions[PARTITION])
    log_dir.close()


def test_files_are_where_kafka_has_them() -> None:
    files = MemoryFiles()
    log_dir, partition = new_partition(files)
    fill(partition, 15)
    sent = batch([b"no"], producer_id=1, epoch=0, sequence=0, transactional=True)
    partition.append(sent, NOW_MS)
    partition.append_marker(1, 1, commit=False, coordinator_epoch=0, now_ms=NOW_MS)
    log_dir.close()
    assert files.list_dir(ROOT) == [
        ".kafka_cleanshutdown",
        ".lock",
        "log-start-offset-checkpoint",
        "meta.properties",
        "orders-0",
        "recovery-point-offset-checkpoint",
        "replication-offset-checkpoint",
    ]
    second = partition._segments.active.base_offset
    assert files.list_dir(FOLDER) == [
        "00000000000000000000.index",
        "00000000000000000000.log",
        "00000000000000000000.timeindex",
        f"{second:020d}.index",
        f"{second:020d}.log",
        f"{second:020d}.snapshot",
        f"{second:020d}.timeindex",
        f"{second:020d}.txnindex",
        "00000000000000000017.snapshot",
        "leader-epoch-checkpoint",
        "partition.metadata",
    ]
    assert files.read_whole(f"{ROOT}/recovery-point-offset-checkpoint") == b"0\n1\norders 0 17\n"
    assert files.read_whole(f"{ROOT}/replication-offset-checkpoint") == b"0\n1\norders 0 17\n"
    assert files.read_whole(f"{ROOT}/log-start-offset-checkpoint") == b"0\n1\norders 0 0\n"
    assert files.read_whole(f"{ROOT}/.kafka_cleanshutdown") == b'{"version":0,"brokerEpoch":-1}'
    assert b"topic_id: mD3CLkLrRUaWSiLQkBNZCg" in files.read_whole(f"{FOLDER}/partition.metadata")
    found: list[str] = []
    log_dir = LogDir.open(files, ROOT, durability="fsync", now_ms=NOW_MS)
    log_dir.load({}, lambda _, topic_id: found.append(topic_id) or "put aside")
    assert found == ["mD3CLkLrRUaWSiLQkBNZCg"]


def test_a_clean_start_reads_only_the_end() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files)
    fill(partition, 300)
    segments = list(partition._segments)
    log_dir.close()
    again = files.restart()
    log_dir = open_log(again)
    assert log_dir.partitions[PARTITION].log_end_offset == 300
    touched = {each.path for each in again.operations if each.kind in {"read", "size"}}
    assert touched <= {
        path for segment in segments[-1:] for path in (segment.path, segment.index.stored.path)
    }
    in_folder = [each for each in again.operations if each.path.startswith(FOLDER)]
    assert len(in_folder) < 15, "the cost of a clean start must not grow with the log"
    check_indexes(log_dir.partitions[PARTITION])


def test_a_clean_start_goes_on_with_the_indexes() -> None:
    files = SimFiles()
    log_dir, _ = new_partition(files, config=replace(SMALL, segment_bytes=1 << 20))
    for _ in range(5):
        fill(log_dir.partitions[PARTITION], 7)
        log_dir.close()
        files = files.restart()
        log_dir = open_log(files, config=replace(SMALL, segment_bytes=1 << 20))
        check_indexes(log_dir.partitions[PARTITION])
    assert log_dir.partitions[PARTITION].offset_for_time(NOW_MS + 20) == 20


def test_the_mark_of_a_clean_stop_is_gone_before_anything_is_written() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files)
    fill(partition)
    log_dir.close()
    again = files.restart()
    open_log(again).partitions[PARTITION].append(batch([b"x"]), NOW_MS)
    assert not again.after_crash("dropped", "dropped").exists(f"{ROOT}/.kafka_cleanshutdown")
    writes = [each.kind for each in again.operations if each.is_write]
    assert writes[:3] == ["lock", "remove", "fsync_dir"]


def test_no_mark_after_a_failure() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files)
    partition.append(batch([b"x"]), NOW_MS)

    def fail(operation: Operation) -> OSError | None:
        return disk_error("EIO", operation.path) if operation.path.endswith(".log") else None

    files.on_operation = fail
    flush(partition)
    files.on_operation = None
    with pytest.raises(StorageError, match="takes no more writes"):
        log_dir.close()
    assert not files.exists(f"{ROOT}/.kafka_cleanshutdown")
    open_log(files).close()


def test_one_process_owns_the_folder() -> None:
    files = MemoryFiles()
    log_dir, _ = new_partition(files)
    with pytest.raises(LogLockedError, match=ROOT):
        open_log(files)
    log_dir.close()
    log_dir.close()
    open_log(files)


@pytest.mark.parametrize("path", ["/proc/none/log", "/dev/null/log", "/dev/null"])
def test_a_folder_that_cannot_be_written(path: str) -> None:
    with pytest.raises(StorageError, match=f"{path} could not be read or written: .*this user"):
        LogDir.open(RealFiles(), path, durability="fsync", now_ms=NOW_MS)


def test_a_failed_load_gives_the_lock_back() -> None:
    files = MemoryFiles()
    log_dir, _ = new_partition(files)
    log_dir.close()
    files.open(f"{ROOT}/log-start-offset-checkpoint").truncate(1)
    for _ in range(2):
        with pytest.raises(StorageError, match="log-start-offset-checkpoint is damaged"):
            open_log(files)


def test_a_new_partition_is_there_for_good() -> None:
    files = SimFiles()
    new_partition(files)
    disk = files.after_crash("dropped", "dropped")
    assert open_log(disk).partitions[PARTITION].log_end_offset == 0


def test_a_partition_that_was_never_finished_goes_away() -> None:
    files = SimFiles()
    log_dir, _ = new_partition(files)
    files.make_dir(f"{ROOT}/orders-1")
    files.open(f"{ROOT}/orders-1/00000000000000000000.log", create=True)
    log_dir = open_log(files.restart())
    assert list(log_dir.partitions) == [PARTITION]
    assert not files.exists(f"{ROOT}/orders-1")


def test_creation_that_failed_can_be_tried_again() -> None:
    """At every operation of it, without a restart in between."""
    for number in range(100):
        files = SimFiles()
        log_dir = open_log(files)
        start = len(files.operations)

        def fail(operation: Operation, at: int = start + number) -> OSError | None:
            return disk_error("ENOSPC", operation.path) if operation.number == at else None

        files.on_operation = fail
        try:
            log_dir.create_partition(PARTITION, SMALL, topic_id="a", now_ms=NOW_MS)
        except StorageError:
            assert PARTITION not in log_dir.partitions
        else:
            assert number > 10
            return
        files.on_operation = None
        partition = log_dir.create_partition(PARTITION, SMALL, topic_id="b", now_ms=NOW_MS)
        fill(partition, 3)
        disk = files.after_crash("dropped", "dropped")
        assert len(values(open_log(disk).partitions[PARTITION])) == 3


def test_closing_again_writes_nothing_for_what_was_not_written_to() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files)
    fill(partition)
    other = TopicPartition(TOPIC, 1)
    log_dir.create_partition(other, SMALL, topic_id="a", now_ms=NOW_MS)
    log_dir.close()
    again = files.restart()
    log_dir = open_log(again)
    start = len(again.operations)
    log_dir.close()
    assert not [each for each in again.operations[start:] if "/orders-" in each.path]
    log_dir = open_log(again.after_crash("dropped", "dropped"))
    assert log_dir.partitions[PARTITION].log_end_offset == COUNT
    check_indexes(log_dir.partitions[PARTITION])
    fill(log_dir.partitions[other])
    check_indexes(log_dir.partitions[other])


def test_a_failed_load_closes_its_files(tmp_path: Path) -> None:
    root = str(tmp_path / "log")
    log_dir, partition = new_partition(RealFiles(), root)
    fill(partition)
    log_dir.checkpoint()
    log_dir.close(clean=False)
    path = Path(partition._segments.active.path)
    path.write_bytes(b"damage")
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with pytest.raises(CorruptRecordError):
            open_log(RealFiles(), root)
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_records_without_metadata_are_not_thrown_away() -> None:
    files = SimFiles()
    _, partition = new_partition(files)
    fill(partition)
    files.remove(f"{FOLDER}/partition.metadata")
    with pytest.raises(StorageError, match=r"orders-0 holds records, but its partition\.metadata"):
        open_log(files.restart())
    assert files.exists(partition._segments.active.path)


def test_a_topic_nobody_knows_is_put_aside(caplog: pytest.LogCaptureFixture) -> None:
    files = SimFiles()
    _, partition = new_partition(files)
    fill(partition, 3)
    for number in range(2):
        again = files.restart()
        log_dir = LogDir.open(again, ROOT, durability="fsync", now_ms=NOW_MS)
        with caplog.at_level(logging.WARNING):
            log_dir.load({})
        assert log_dir.partitions == {}
        assert f"{FOLDER}.{number}-stray" in caplog.text
        assert again.exists(f"{FOLDER}.{number}-stray/00000000000000000000.log")
        log_dir.create_partition(PARTITION, SMALL, topic_id="b", now_ms=NOW_MS)


def test_other_folders_are_left_alone() -> None:
    files = SimFiles()
    new_partition(files)
    for name in ("state", "mine-delete", "orders"):
        files.make_dir(f"{ROOT}/{name}")
    open_log(files.restart())
    assert {"state", "mine-delete", "orders"} < set(files.list_dir(ROOT))


def test_delete_topic() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files)
    other = TopicPartition("others", 0)
    for each in (TopicPartition(TOPIC, 1), other):
        log_dir.create_partition(each, SMALL, topic_id=each.topic, now_ms=NOW_MS)
    fill(partition)
    delete_topic(log_dir)
    assert list(log_dir.partitions) == [other]
    assert [name for name in files.list_dir(ROOT) if files.is_dir(f"{ROOT}/{name}")] == ["others-0"]
    disk = files.after_crash("kept", "dropped")
    assert not disk.exists(FOLDER)
    assert b"orders" not in disk.read_whole(f"{ROOT}/recovery-point-offset-checkpoint")


def test_a_topic_of_the_same_name_begins_empty() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files)
    fill(partition)
    partition.delete_records(30)
    log_dir.checkpoint()
    delete_topic(log_dir)
    log_dir.create_partition(PARTITION, SMALL, topic_id="b", now_ms=NOW_MS)
    again = open_log(files.after_crash("dropped", "dropped")).partitions[PARTITION]
    assert (again.log_start_offset, again.log_end_offset) == (0, 0)


def test_old_checkpoint_entries_do_not_wait_for_a_new_topic() -> None:
    """The crash came after the folder was gone, before the checkpoints said so."""
    files = SimFiles()
    log_dir, partition = new_partition(files)
    fill(partition)
    log_dir.close()
    files.rename(FOLDER, f"{FOLDER}.x-delete")
    files.fsync_dir(ROOT)
    log_dir = open_log(files.restart())
    assert not files.exists(f"{FOLDER}.x-delete")
    log_dir.create_partition(PARTITION, SMALL, topic_id="b", now_ms=NOW_MS)
    again = open_log(files.after_crash("dropped", "dropped")).partitions[PARTITION]
    assert again.log_end_offset == 0


def test_deleting_a_topic_while_it_is_flushed() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files)
    partition.append(batch([b"x"]), NOW_MS)
    running = partition.start_flush()
    assert running is not None
    delete_topic(log_dir)
    running.run()
    partition.finish_flush(running, None)
    assert partition.high_watermark == 1


def test_deleted_records_go_with_the_checkpoint() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files)
    fill(partition)
    before = files.list_dir(FOLDER)
    middle = list(partition._segments)[3].base_offset
    partition.delete_records(middle + 1)
    assert files.list_dir(FOLDER) == before
    lost = open_log(files.after_crash("dropped", "dropped")).partitions[PARTITION]
    assert lost.log_start_offset == 0
    assert values(lost) == [b"%d" % i for i in range(COUNT)]
    log_dir.checkpoint()
    left = [name for name in files.list_dir(FOLDER) if name[0] == "0"]
    assert left[0].startswith(f"{middle:020d}")
    for disk in (files.after_crash("dropped", "dropped"), files.restart()):
        again = open_log(disk).partitions[PARTITION]
        assert again.log_start_offset == middle + 1
        assert values(again) == [b"%d" % i for i in range(middle + 1, COUNT)]


def test_no_segment_is_removed_before_the_log_start_offset_is_durable() -> None:
    files = SimFiles()
    log_dir, partition = new_partition(files)
    fill(partition)
    partition.delete_records(COUNT)
    start = len(files.operations)
    log_dir.checkpoint()
    kinds = [(each.kind, each.path) for each in files.operations[start:]]
    first_removed = next(i for i, (kind, _) in enumerate(kinds) if kind == "remove")
    written = kinds.index(("rename", f"{ROOT}/log-start-offset-checkpoint.tmp"))
    assert written < kinds.index(("fsync_dir", ROOT), written) < first_removed


def test_a_partition_that_is_there_has_all_its_files() -> None:
    """Its metadata comes last; a power loss must not keep that name and lose an earlier one."""
    for point in range(60):
        for seed in range(40):
            files = SimFiles(crash_at=point)
            with suppress(Crash):
                log_dir = LogDir.open(files, "log", durability="fsync", now_ms=NOW_MS)
                log_dir.load({})
                log_dir.create_partition(PARTITION, SMALL, topic_id="a", now_ms=NOW_MS)
            names = files.after_crash("mixed", "mixed", seed=seed).contents()
            there = {path.rpartition("/")[2] for path, _ in names if f"/{PARTITION}/" in path}
            if "partition.metadata" in there:
                assert {"leader-epoch-checkpoint", f"{0:020}.log"} <= there
