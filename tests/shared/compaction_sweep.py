"""The crash sweep of compaction: a workload that compacts, stopped at every operation.

After a crash each group of segments is as it was or as compaction made it, nothing that was removed
for good comes back, and what `shared.compacting.Written` demands holds as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

from millstream.log.errors import StorageError
from millstream.log.storage.log_dir import LogDir
from millstream.log.testing.sim_files import Crash, SimFiles
from shared.compacting import COMPACTED, RETENTION_MS, Keyed, Writing, Written
from shared.partition_sweep import Failure, at, judge_disks
from shared.partitions import (
    FOLDER,
    NOW_MS,
    PARTITION,
    check_indexes,
    flush,
    new_partition,
    open_log,
)
from shared.sweeping import distinct, noting

CONFIG = replace(COMPACTED, segment_bytes=1024)


@dataclass
class Promised:
    """What a workload was told, beside what it wrote."""

    written: Written = field(default_factory=Written)
    created: bool = False
    acknowledged: int = 0
    settled: tuple[int, frozenset[int]] = (0, frozenset())
    """Up to here compaction is there for good, and this is what it left."""
    failures: int = 0


class Work:
    """A workload's hand on the log: writes, compacts, restarts."""

    def __init__(self, files: SimFiles, promised: Promised) -> None:
        self.promised = promised
        self.files = files
        self.log_dir, partition = new_partition(files, config=CONFIG)
        promised.created = True
        self.writing = Writing(promised.written, partition)
        self.number = 0

    def write(self, count: int, *, tombstones: bool = False) -> None:
        for _ in range(count):
            self.number += 1
            value = None if tombstones and self.number % 3 == 0 else b"%d" % self.number * 40
            record = Keyed(b"key %d" % (self.number % 4), value, NOW_MS + self.number)
            self.writing.send([record, record._replace(key=b"often")], producer_id=1, epoch=0)

    def transact(self, producer_id: int, epoch: int, *, commit: bool) -> None:
        self.number += 1
        records = [Keyed(b"key %d" % (self.number % 4), b"%d" % self.number * 30)]
        self.writing.send(records, producer_id=producer_id, epoch=epoch, transactional=True)
        self.write(2)
        self.writing.end(producer_id, epoch + 1, commit=commit)

    def flush(self) -> None:
        partition = self.writing.partition
        flush(partition)
        self.promised.acknowledged = max(self.promised.acknowledged, partition.high_watermark)

    def checkpoint(self) -> None:
        """A checkpoint may fail and be tried again, as the broker does."""
        partition = self.writing.partition
        partition.seal()
        self.flush()
        settling = partition.settling
        for _ in range(2):
            try:
                self.log_dir.checkpoint()
            except StorageError:
                self.promised.failures += 1
            else:
                break
        if partition.failed or partition.settling is not None:
            return
        if settling is not None and settling.clean_offset is not None:
            seen = self.promised.written.check(partition)
            end = settling.clean_offset
            self.promised.settled = end, frozenset(each for each in seen if each < end)

    def compact(self, now_ms: int, *, dedupe_buffer_bytes: int = 1 << 20) -> None:
        self.checkpoint()
        self.write(8)  # closed and durable, but above the recovery point on disk
        self.flush()
        stats = self.writing.compact(now_ms, dedupe_buffer_bytes=dedupe_buffer_bytes)
        if not self.writing.partition.failed:
            assert stats is not None
            self.promised.failures += stats.outcome == "failed"
            self.promised.written.check(self.writing.partition)
        self.write(1)  # the partition goes on between the two
        self.flush()
        self.promised.settled = 0, frozenset()
        self.checkpoint()

    def restart(self) -> None:
        self.log_dir.close()
        self.promised.acknowledged = self.writing.partition.log_end_offset
        self.log_dir = open_log(self.files, config=CONFIG)
        self.writing.partition = self.log_dir.partitions[PARTITION]


def workload(files: SimFiles, promised: Promised) -> None:
    """Compact three times: most of it goes, then markers and tombstones, then groups merge."""
    work = Work(files, promised)
    work.writing.send([Keyed(b"gone", b"value"), Keyed(b"gone", None)], producer_id=1, epoch=0)
    work.write(6, tombstones=True)
    work.transact(2, 0, commit=True)
    work.transact(3, 0, commit=False)
    work.write(4)
    work.compact(NOW_MS)
    work.write(6, tombstones=True)
    work.transact(3, 1, commit=False)
    work.write(6)
    work.compact(NOW_MS + 1, dedupe_buffer_bytes=600)
    work.restart()
    work.write(8)
    work.compact(NOW_MS + 1 + RETENTION_MS)


def judge(files: SimFiles, promised: Promised) -> None:
    """Open what a crash left and hold it against what was promised; then crash again."""
    log_dir = open_log(files, config=CONFIG)
    partition = log_dir.partitions.get(PARTITION)
    if partition is None:
        assert not promised.created, "an acknowledged partition is gone"
        return
    end = partition.log_end_offset
    assert end >= promised.acknowledged, "acknowledged records are gone"
    assert end in {0, *(each.next_offset for each in promised.written.batches)}
    seen = promised.written.check(partition)
    clean_end, left = promised.settled
    back = {offset for offset in seen if offset < clean_end} - left
    assert not back, f"offsets {sorted(back)} came back after their compaction was settled"
    keys = [record.key for offset, record in seen.items() if offset < partition.clean_offset]
    assert len(keys) == len(set(keys)), "what is said to be clean is not"
    check_indexes(partition, check_aborted=False)
    check_files(files)
    writing = Writing(promised.written, partition)
    writing.check_producers()
    again = files.after_crash("dropped", "dropped")
    log_dir = open_log(again, config=CONFIG)
    partition = log_dir.partitions[PARTITION]
    assert promised.written.check(partition) == seen, "a second recovery found something else"
    check_goes_on(log_dir, again, promised)


def check_files(files: SimFiles) -> None:
    """Nothing of an unfinished compaction is left, and no index without its segment."""
    names = files.list_dir(FOLDER)
    assert not [name for name in names if name.endswith((".cleaned", ".swap"))]
    logs = {name[:20] for name in names if name.endswith(".log")}
    strays = [name for name in names if name.endswith("index") and name[:20] not in logs]
    assert not strays


def check_goes_on(log_dir: LogDir, files: SimFiles, promised: Promised) -> None:
    """What is there can be written to, and compacted again."""
    partition = log_dir.partitions[PARTITION]
    end = partition.log_end_offset
    there = [each for each in promised.written.batches if each.base_offset < end]
    writing = Writing(Written(there, list(promised.written.tried)), partition)
    for number in range(8):
        record = Keyed(b"key %d" % (number % 2), b"after" * 40)
        writing.send([record], producer_id=9, epoch=0)
    partition.seal()
    flush(partition)
    log_dir.checkpoint()
    stats = writing.compact(NOW_MS + 2)
    assert stats is None or stats.outcome == "cleaned"
    log_dir.checkpoint()
    seen = writing.written.check(partition)
    log_dir.close()
    partition = open_log(files, config=CONFIG).partitions[PARTITION]
    assert writing.written.check(partition) == seen
    check_files(files)


def run_until_crash(crash_at: int) -> tuple[SimFiles, Promised, bool]:
    """Run the workload; the machine stops at this write operation, if it gets that far."""
    files, promised = SimFiles(crash_at=crash_at), Promised()
    try:
        workload(files, promised)
    except Crash:
        return files, promised, True
    return files, promised, False


def crash_points(*, step: int, offset: int) -> Iterator[tuple[SimFiles, Promised]]:
    """The state of the disk at every `step`-th write operation of the workload, from `offset`."""
    crash_at, crashed = offset, True
    while crashed:
        files, promised, crashed = run_until_crash(crash_at)
        yield files, promised
        crash_at += step


def swap_points() -> list[int]:
    """The write operations that put a compaction's files in place."""
    files = SimFiles()
    workload(files, Promised())
    return [
        each.write_number
        for each in files.operations
        if each.path.startswith(FOLDER) and each.kind in ("rename", "remove", "fsync_dir")
    ]


def sweep_crashes(*, step: int = 1, offset: int = 0) -> int:
    """Judge every disk of every `step`-th crash point. Returns how many were judged."""
    return sum(
        judge_disks(files, partial(judge, promised=promised))
        for files, promised in crash_points(step=step, offset=offset)
    )


def sweep_starts(*, step: int = 1, offset: int = 0) -> int:
    """Crash again at every write of the start that finds a swap unfinished: after a power loss, and
    after the process alone was killed."""
    judged = 0
    for crash_at in swap_points()[offset::step]:
        files, promised, _ = run_until_crash(crash_at)
        for number, disk in enumerate(distinct(_disks_of_starts(files))):
            with noting(at(files, f"disk {number} of the starts after it")):
                judge(disk, promised)
            judged += 1
    return judged


def _disks_of_starts(files: SimFiles) -> Iterator[SimFiles]:
    def killed() -> SimFiles:
        disk = SimFiles()
        disk.root = deepcopy(files.root)  # every start finds what the first one found
        return disk

    starts: list[Callable[[], SimFiles]] = [
        killed,
        lambda: files.after_crash("kept", "kept"),
        lambda: files.after_crash("mixed", "mixed", seed=1),
    ]
    for start in starts:
        for crash_again in count():
            damaged = start()
            damaged.crash_at = crash_again
            try:
                open_log(damaged, config=CONFIG)
                break
            except Crash:
                for entries in ("mixed", "dropped"):
                    yield damaged.after_crash("mixed", entries, seed=crash_again)


def sweep_errors(kind: str, *, step: int = 1, offset: int = 0) -> tuple[int, int]:
    """Let every `step`-th operation in turn fail; every other time the power goes then, else the
    process ends. Returns how many failed, and how many of those the partition survived without
    being opened again."""
    number, failed, survived = offset, 0, 0
    while True:
        failure = Failure(kind, number)
        files, promised = SimFiles(on_operation=failure), Promised()
        try:
            workload(files, promised)
            ended = True
        except StorageError:
            ended = False
        if failure.operation is None:
            return failed, survived
        failed, survived = failed + 1, survived + ended
        files.on_operation = None
        lost = failed % 2 == 0
        left = files.after_crash("mixed", "mixed", seed=number) if lost else files.restart()
        with noting(f"{kind}: {failure.operation}; {'power lost' if lost else 'restarted'}"):
            judge(left, promised)
        number += step
