"""The crash sweep of a partition: stop the workload at every operation, judge every disk.

After a crash the log must be a beginning of what was tried that holds all that was acknowledged,
and nothing else. What was readable once stays; the next crash finds the same; and the log goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from millstream.log.errors import (
    InvalidProducerEpochError,
    LogError,
    OutOfOrderSequenceError,
    StorageError,
)
from millstream.log.storage.log_dir import LogDir
from millstream.log.storage.partition import Partition
from millstream.log.storage.producer_snapshot import encode_snapshot
from millstream.log.testing.sim_files import (
    Contents,
    Crash,
    Entries,
    Operation,
    SimFiles,
    disk_error,
)
from shared.partition_workload import History, workload
from shared.partitions import (
    NOW_MS,
    PARTITION,
    Read,
    batch,
    check_indexes,
    flush,
    open_log,
    read_all,
)
from shared.sweeping import noting

AFTERWARDS = 12
"""Batches written after a recovery: more than any crash can have taken."""


class Disk(NamedTuple):
    """One kind of power loss."""

    contents: Contents
    entries: Entries
    seed: int = 0


DISKS = (
    Disk("kept", "kept"),
    Disk("dropped", "dropped"),
    Disk("dropped", "kept"),
    Disk("kept", "dropped"),
    Disk("cut", "kept"),
    Disk("zeroed", "kept"),
    Disk("garbage", "kept"),
    Disk("garbage", "kept", 1),
    Disk("holes", "mixed"),
    Disk("mixed", "mixed"),
    Disk("mixed", "mixed", 1),
)


class Found(NamedTuple):
    """Everything that can be seen of an open partition."""

    log_start_offset: int
    last_stable_offset: int
    high_watermark: int
    log_end_offset: int
    uncommitted: list[Read]
    committed: list[Read]
    snapshot: bytes


def found(partition: Partition) -> Found:
    return Found(
        partition.log_start_offset,
        partition.last_stable_offset,
        partition.high_watermark,
        partition.log_end_offset,
        read_all(partition, "read_uncommitted", size_bytes_max=5000),
        read_all(partition, size_bytes_max=5000),
        encode_snapshot(partition._producers),
    )


def judge(files: SimFiles, history: History) -> None:
    """Open what a crash left and hold it against what was promised; then crash again."""
    log_dir = open_log(files)
    partition = log_dir.partitions.get(PARTITION)
    if partition is None:
        assert not history.created, "an acknowledged partition is gone"
        return
    first = found(partition)
    check_promises(first, history)
    check_indexes(partition)
    check_producers(partition, history)
    # Whatever was readable must be durable: nothing but synced bytes and names is left, and
    # another recovery finds the same.
    again = files.after_crash("dropped", "dropped")
    log_dir = open_log(again)
    second = found(log_dir.partitions[PARTITION])
    assert second == first, "a second recovery found something else"
    check_goes_on(log_dir, again, first)


def check_promises(first: Found, history: History) -> None:
    end = first.log_end_offset
    assert end >= history.acknowledged, "acknowledged records are gone"
    assert end in history.ends(), "half a batch, or more than was tried"
    assert first.high_watermark == end
    assert history.log_start_promised <= first.log_start_offset <= history.log_start_tried
    assert first.uncommitted == history.uncommitted(first.log_start_offset, end)
    visible, stable = history.committed(first.log_start_offset, end)
    assert first.last_stable_offset == stable
    assert first.committed == visible


def check_producers(partition: Partition, history: History) -> None:
    """Zombies are refused, and a retry of the last batch that is there is told from a gap."""
    end = partition.log_end_offset
    epochs = {each.producer_id: each.epoch for each in history.tried if each.base_offset < end}
    for producer_id, epoch in epochs.items():
        if epoch > 0:
            late = batch([b"late"], producer_id=producer_id, epoch=epoch - 1, sequence=0)
            refused(partition, late, InvalidProducerEpochError)
    there = [sent for sent in history.sent if sent[0] < end]
    if not there:
        return
    base_offset, data = there[-1]
    info = partition.append(data, NOW_MS)
    assert (info.base_offset, info.duplicate) == (base_offset, True)
    gap = batch([b"gap"], producer_id=1, epoch=0, sequence=1000)
    refused(partition, gap, OutOfOrderSequenceError)


def refused(partition: Partition, data: bytes, kind: type[LogError]) -> None:
    try:
        partition.append(data, NOW_MS)
    except kind:
        return
    raise AssertionError(f"{kind.__name__} was not raised")


def check_goes_on(log_dir: LogDir, files: SimFiles, first: Found) -> None:
    """The log takes writes after recovery, past where it once was, and keeps them."""
    partition = log_dir.partitions[PARTITION]
    end = first.log_end_offset
    for sequence in range(AFTERWARDS):
        data = batch([b"after"], producer_id=9, epoch=0, sequence=sequence)
        assert partition.append(data, NOW_MS).base_offset == end + sequence
        if sequence == AFTERWARDS // 2:
            flush(partition)
            log_dir.checkpoint()
    flush(partition)
    wanted = found(partition)
    disk = files.after_crash("dropped", "dropped")
    partition = open_log(disk).partitions[PARTITION]
    assert found(partition) == wanted, "what was written after recovery is not what was found"
    new = [Read(end + i, 9, b"after") for i in range(AFTERWARDS)]
    assert wanted.uncommitted == [*first.uncommitted, *new]
    check_indexes(partition)


Workload = Callable[[SimFiles, History], None]


def run_until_crash(crash_at: int, work: Workload = workload) -> tuple[SimFiles, History, bool]:
    """Run the workload; the machine stops at this write operation, if it gets that far."""
    files, history = SimFiles(crash_at=crash_at), History()
    try:
        work(files, history)
    except Crash:
        return files, history, True
    return files, history, False


def crash_points(
    work: Workload = workload, *, step: int = 1, offset: int = 0
) -> Iterator[tuple[SimFiles, History]]:
    """The state of the disk at every `step`-th write operation of the workload, from `offset`."""
    crash_at = offset
    while True:
        files, history, crashed = run_until_crash(crash_at, work)
        yield files, history
        if not crashed:
            return
        crash_at += step


def at(files: SimFiles, disk: object) -> str:
    """Where a sweep is."""
    return (
        f"write {files.crash_at} ({files.operations[-1].kind} {files.operations[-1].path}), {disk}"
    )


def judge_disks(files: SimFiles, judge_disk: Callable[[SimFiles], None]) -> int:
    """Judge every disk this moment may leave, each once. Returns how many they were."""
    seen = set()
    for disk in DISKS:
        left = files.after_crash(*disk[:2], seed=disk.seed)
        contents = left.contents()
        if contents in seen:
            continue
        seen.add(contents)
        with noting(at(files, disk)):
            judge_disk(left)
    # A process that was killed: the page cache is still there, and may be lost later.
    with noting(at(files, "killed")):
        judge_disk(files.restart())
    return len(seen) + 1


def sweep_crashes(*, work: Workload = workload, step: int = 1, offset: int = 0) -> int:
    """Judge every disk of every `step`-th crash point. Returns how many were judged."""
    return sum(
        judge_disks(files, partial(judge, history=history))
        for files, history in crash_points(work, step=step, offset=offset)
    )


def sweep_recovery(*, step: int) -> int:
    """Crash again at every write of the recovery from every `step`th crash point."""
    judged = 0
    disk = Disk("mixed", "mixed", 2)
    for files, history in crash_points(step=step):
        if not history.created:
            continue
        crash_again = 0
        while True:
            damaged = files.after_crash(*disk[:2], seed=disk.seed)
            damaged.crash_at = crash_again
            try:
                open_log(damaged)
            except Crash:
                for again in (Disk("mixed", "mixed"), Disk("dropped", "kept", 1)):
                    with noting(f"{at(files, disk)}, then recovery {at(damaged, again)}"):
                        judge(damaged.after_crash(*again[:2], seed=again.seed), history)
                    judged += 1
                crash_again += 1
                continue
            break
    return judged


def sweep_errors(
    kind: str = "EIO", *, work: Workload = workload, step: int = 1, may_be_mended: bool = False
) -> int:
    """Let every operation in turn fail; reads too, unless the disk is full. Returns how many.

    `may_be_mended`: a full disk need not be an error, where files of deleted segments make room.
    """
    number = 0
    while True:
        failure = Failure(kind, number)
        files, history = SimFiles(on_operation=failure), History()
        error: LogError | None = None
        try:
            work(files, history)
        except StorageError as raised:
            error = raised
        if failure.operation is None:
            return number // step
        with noting(f"{kind}: {failure.operation}"):
            # No room for a checkpoint: deleted segments make some, and it is written again.
            was_mended = may_be_mended or (
                kind == "ENOSPC" and failure.operation.path.endswith("checkpoint.tmp")
            )
            assert error is not None or was_mended, "the error was swallowed"
            files.on_operation = None
            judge(files.after_crash("mixed", "mixed", seed=number), history)
            # The process goes, the machine stays, and loses its power only later.
            judge(files.restart(), history)
        number += step


class Failure:
    """Lets the operation with this number fail, or with this write number when the disk is full."""

    def __init__(self, kind: str, number: int) -> None:
        self.kind = kind
        self.number = number
        self.operation: Operation | None = None

    def __call__(self, operation: Operation) -> OSError | None:
        number = operation.number
        if self.kind == "ENOSPC":
            number = operation.write_number if operation.is_write else -1
        if number != self.number:
            return None
        self.operation = operation
        return disk_error(self.kind, operation.path)
