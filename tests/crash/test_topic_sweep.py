"""A topic is deleted and made again under the same name, and the machine stops at every operation.

Either the old topic is there, whole, or none, or the new one: never records of one in the other,
and never checkpoints of one applied to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from millstream.log.record import TopicPartition
from millstream.log.storage.log_dir import LogDir
from millstream.log.testing.sim_files import Crash, SimFiles
from shared.partition_sweep import DISKS, at
from shared.partitions import (
    NOW_MS,
    PARTITION,
    SMALL,
    TOPIC,
    batch,
    delete_topic,
    flush,
    open_log,
    read_all,
)

SECOND = TopicPartition(TOPIC, 1)
KEPT_FROM = 15
OLD = [b"old %d" % i for i in range(25)]
NEW = [b"new %d" % i for i in range(4)]


@dataclass
class Promises:
    """What was said to be done. From `deleting` to `deleted` anything of the old topic may go."""

    old: bool = False
    deleting: bool = False
    deleted: bool = False
    new: int = 0


def create(log_dir: LogDir, topic_id: str) -> None:
    for each in (PARTITION, SECOND):
        log_dir.create_partition(each, SMALL, topic_id=topic_id, now_ms=NOW_MS)


def workload(files: SimFiles, promises: Promises) -> None:
    log_dir = open_log(files)
    create(log_dir, "a")
    partition = log_dir.partitions[PARTITION]
    for value in OLD:
        partition.append(batch([value]), NOW_MS)
    flush(partition)
    promises.old = True
    partition.delete_records(KEPT_FROM)
    log_dir.checkpoint()
    promises.deleting = True
    delete_topic(log_dir)
    promises.deleted = True
    create(log_dir, "b")
    partition = log_dir.partitions[PARTITION]
    for value in NEW:
        partition.append(batch([value]), NOW_MS)
        flush(partition)
        promises.new += 1


def judge(files: SimFiles, promises: Promises) -> None:
    log_dir = open_log(files)
    assert not [name for name in files.list_dir("/data/log") if name.endswith("-delete")]
    partition = log_dir.partitions.get(PARTITION)
    values = [] if partition is None else [read.value for read in read_all(partition)]
    if promises.deleted:
        assert len(values) >= promises.new
        assert values == NEW[: len(values)]
    elif promises.old and not promises.deleting:
        assert values in (OLD, OLD[KEPT_FROM:])
    elif values:
        assert values == OLD[KEPT_FROM:] or values == OLD[: len(values)]
    if partition is None:
        assert promises.new == 0
        log_dir.create_partition(PARTITION, SMALL, topic_id="c", now_ms=NOW_MS)
        disk = files.after_crash("dropped", "dropped")
        again = open_log(disk).partitions[PARTITION]
        assert (again.log_start_offset, again.log_end_offset) == (0, 0)


def test_a_topic_that_is_deleted_and_made_again() -> None:
    crash_at, judged = 0, 0
    while True:
        files, promises = SimFiles(crash_at=crash_at), Promises()
        try:
            workload(files, promises)
        except Crash:
            crash_at += 1
        else:
            assert judged > 500
            return
        for disk in DISKS:
            try:
                judge(files.after_crash(*disk[:2], seed=disk.seed), promises)
            except Exception as error:
                raise AssertionError(f"{at(files, disk)}: {error}") from error
            judged += 1
        judge(files.restart(), promises)
