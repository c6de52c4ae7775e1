"""The crash sweep of a partition: a workload, what it was promised, and how a disk is judged by it.

`History` writes down what the workload tried, in the order of the log, and what it was told: which
offsets were acknowledged, where the log start offset was said to be for good. After a crash the log
must be a beginning of what was tried that holds all that was acknowledged, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
from shared.partitions import (
    NOW_MS,
    PARTITION,
    Read,
    batch,
    check_indexes,
    flush,
    new_partition,
    open_log,
    read_all,
)

AFTERWARDS = 12
"""Batches written after a recovery: more than any crash can have taken."""


class Tried(NamedTuple):
    """A batch that was handed to the partition. `commit` is None for data."""

    base_offset: int
    producer_id: int
    epoch: int
    values: tuple[bytes, ...]
    transactional: bool = False
    commit: bool | None = None

    @property
    def next_offset(self) -> int:
        return self.base_offset + len(self.values)


@dataclass
class History:
    """What was tried, and what was promised."""

    tried: list[Tried] = field(default_factory=list)
    created: bool = False
    acknowledged: int = 0
    log_start_tried: int = 0
    log_start_promised: int = 0
    sent: list[tuple[int, bytes]] = field(default_factory=list)
    """Base offset and bytes of the batches of producer 1, which has no transactions."""

    @property
    def next_offset(self) -> int:
        return self.tried[-1].next_offset if self.tried else 0

    def ends(self) -> set[int]:
        """Offsets where the log may end."""
        return {0, *(tried.next_offset for tried in self.tried)}

    def uncommitted(self, start: int, stop: int) -> list[Read]:
        """What the records from `start` to `stop` are."""
        return [
            Read(tried.base_offset + i, tried.producer_id, value)
            for tried in self.tried
            for i, value in enumerate(tried.values)
            if tried.commit is None and start <= tried.base_offset + i < stop
        ]

    def committed(self, start: int, stop: int) -> tuple[list[Read], int]:
        """What a read_committed reader gets of a log that ends at `stop`, and where it stops."""
        outcome: dict[int, bool] = {}
        begun: dict[int, list[int]] = {}
        for tried in self.tried:
            if tried.base_offset >= stop:
                break
            if tried.commit is not None:
                for offset in begun.pop(tried.producer_id, []):
                    outcome[offset] = tried.commit
            elif tried.transactional:
                begun.setdefault(tried.producer_id, []).append(tried.base_offset)
        stable = min((offsets[0] for offsets in begun.values()), default=stop)
        wanted = {
            tried.base_offset + i
            for tried in self.tried
            for i in range(len(tried.values))
            if outcome.get(tried.base_offset, not tried.transactional)
        }
        visible = [
            read for read in self.uncommitted(start, min(stop, stable)) if read.offset in wanted
        ]
        return visible, max(stable, start)


class Producing:
    """A workload's hand on one partition: does things and writes them down."""

    def __init__(self, history: History, partition: Partition) -> None:
        self.history = history
        self.partition = partition
        self.sequences: dict[tuple[int, int], int] = {}

    def send(
        self, producer_id: int, epoch: int, count: int, *, transactional: bool = False
    ) -> bytes:
        key = (producer_id, epoch)
        sequence = self.sequences.get(key, 0)
        base = self.history.next_offset
        values = tuple(b"%d of producer %d" % (base + i, producer_id) for i in range(count))
        data = batch(
            list(values),
            producer_id=producer_id,
            epoch=epoch,
            sequence=sequence,
            transactional=transactional,
            timestamp=NOW_MS + (base * 37) % 100,
        )
        self.history.tried.append(Tried(base, producer_id, epoch, values, transactional))
        if producer_id == 1:
            self.history.sent.append((base, data))
        info = self.partition.append(data, NOW_MS)
        assert (info.base_offset, info.duplicate) == (base, False)
        self.sequences[key] = sequence + count
        return data

    def end(self, producer_id: int, epoch: int, *, commit: bool) -> None:
        base = self.history.next_offset
        self.history.tried.append(Tried(base, producer_id, epoch, (b"",), True, commit))
        offset = self.partition.append_marker(
            producer_id, epoch, commit=commit, coordinator_epoch=0, now_ms=NOW_MS
        )
        assert offset == base

    def again(self, data: bytes, base_offset: int) -> None:
        """A retry: the answer to the first attempt was lost."""
        info = self.partition.append(data, NOW_MS)
        assert (info.base_offset, info.duplicate) == (base_offset, True)

    def flush(self) -> None:
        flush(self.partition)
        self.history.acknowledged = max(self.history.acknowledged, self.partition.high_watermark)
        if self.partition.failed:
            # Nothing after this may be taken: the append says so, and the workload ends.
            self.partition.append(batch([b"refused"]), NOW_MS)
            raise AssertionError("a partition took a write after its fsync had failed")
        assert self.partition.high_watermark == self.partition.log_end_offset
        self.check_reads()

    def check_reads(self) -> None:
        """What is readable now is what was tried, committed and durable."""
        end, start = self.partition.high_watermark, self.partition.log_start_offset
        assert read_all(self.partition, "read_uncommitted") == self.history.uncommitted(start, end)
        visible, stable = self.history.committed(start, end)
        assert self.partition.last_stable_offset == stable
        assert read_all(self.partition) == visible


def workload(files: SimFiles, history: History) -> None:
    """Produce and transact over several segments, with checkpoints, deletion, a clean restart."""
    log_dir, partition = new_partition(files)
    history.created = True
    producing = Producing(history, partition)
    first_epoch(producing)
    log_dir.checkpoint()
    transactions(producing)
    delete_records(log_dir, producing)
    log_dir.close()
    log_dir = open_log(files)
    producing.partition = log_dir.partitions[PARTITION]
    after_restart(log_dir, producing)


def first_epoch(producing: Producing) -> None:
    """Idempotent batches of one producer, with retries, some flushed one by one, some together."""
    for count in (2, 1, 3):
        base = producing.history.next_offset
        data = producing.send(1, 0, count)
        producing.flush()
        producing.again(data, base)
    for count in (2, 3, 1, 2):
        producing.send(1, 0, count)
    producing.check_reads()
    producing.flush()


def transactions(producing: Producing) -> None:
    """Transactions that commit, abort, overlap and span segments."""
    producing.send(2, 0, 3, transactional=True)
    producing.flush()
    producing.send(3, 5, 2, transactional=True)
    producing.send(1, 0, 2)
    producing.send(2, 0, 2, transactional=True)
    producing.end(2, 1, commit=True)
    producing.check_reads()
    producing.flush()
    producing.send(2, 1, 4, transactional=True)
    producing.send(3, 5, 3, transactional=True)
    producing.flush()
    producing.end(3, 6, commit=False)
    producing.send(1, 0, 1)
    producing.end(2, 2, commit=False)
    producing.check_reads()
    producing.flush()


def delete_records(log_dir: LogDir, producing: Producing) -> None:
    """Raise the log start offset past a segment, and make that durable."""
    producing.send(1, 0, 3)
    producing.flush()
    before = producing.partition._segments._base_offsets[2] + 1
    producing.history.log_start_tried = before
    assert producing.partition.delete_records(before) == before
    producing.send(2, 2, 1, transactional=True)
    log_dir.checkpoint()
    producing.history.log_start_promised = before
    producing.check_reads()


def after_restart(log_dir: LogDir, producing: Producing) -> None:
    """Go on with the transaction that was open at the clean stop, and leave another one open."""
    producing.history.acknowledged = producing.partition.log_end_offset
    producing.check_reads()
    producing.send(1, 0, 2)
    producing.send(2, 2, 2, transactional=True)
    producing.flush()
    producing.end(2, 3, commit=False)
    producing.send(2, 3, 2, transactional=True)
    producing.flush()
    log_dir.checkpoint()
    producing.send(1, 0, 4)
    producing.end(2, 4, commit=True)
    producing.flush()
    producing.send(3, 6, 2, transactional=True)
    producing.flush()


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


def crash_points(work: Workload = workload, *, step: int = 1) -> Iterator[tuple[SimFiles, History]]:
    """The state of the disk at every write operation of the workload."""
    crash_at = 0
    while True:
        files, history, crashed = run_until_crash(crash_at, work)
        yield files, history
        if not crashed:
            return
        crash_at += step


def at(files: SimFiles, disk: object) -> str:
    """Where a sweep is, for messages."""
    return (
        f"write {files.crash_at} ({files.operations[-1].kind} {files.operations[-1].path}), {disk}"
    )


def sweep_crashes(
    disks: tuple[Disk, ...] = DISKS, *, work: Workload = workload, step: int = 1
) -> int:
    """Judge every disk of every crash point. Returns how many were judged."""
    judged = 0
    for files, history in crash_points(work, step=step):
        seen = set()
        for disk in disks:
            left = files.after_crash(*disk[:2], seed=disk.seed)
            if left.contents() in seen:
                continue
            seen.add(left.contents())
            try:
                judge(left, history)
            except Exception as error:
                raise AssertionError(f"{at(files, disk)}: {error}") from error
        # A process that was killed: the page cache is still there, and may be lost later.
        judge(files.restart(), history)
        judged += len(seen) + 1
    return judged


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
                for seed, (contents, entries) in enumerate(
                    (("mixed", "mixed"), ("dropped", "kept"))
                ):
                    try:
                        judge(damaged.after_crash(contents, entries, seed=seed), history)
                    except Exception as error:
                        raise AssertionError(
                            f"{at(files, disk)}, then recovery {at(damaged, contents)}: {error}"
                        ) from error
                    judged += 1
                crash_again += 1
                continue
            break
    return judged


def sweep_errors(kind: str = "EIO", *, step: int = 1) -> int:
    """Let every operation in turn fail; reads too, unless the disk is full. Returns how many."""
    number = 0
    while True:
        failure = Failure(kind, number)
        files, history = SimFiles(on_operation=failure), History()
        error: LogError | None = None
        try:
            workload(files, history)
        except StorageError as raised:
            error = raised
        if failure.operation is None:
            return number // step
        try:
            assert error is not None, "the error was swallowed"
            files.on_operation = None
            judge(files.after_crash("mixed", "mixed", seed=number), history)
            # The process goes, the machine stays, and loses its power only later.
            judge(files.restart(), history)
        except Exception as problem:
            raise AssertionError(f"{failure.operation} failed: {problem}") from problem
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
