"""A workload on a partition, and what it tried and was told.

`History` writes down what was handed to the partition, in the order of the log, and what it was
told: which offsets were acknowledged, where the log start offset was said to be for good. From that
follows what a log that ends at some offset must show.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from millstream.log.storage.log_dir import LogDir
from millstream.log.storage.partition import Partition
from millstream.log.testing.sim_files import (
    SimFiles,
)
from shared.partitions import (
    NOW_MS,
    PARTITION,
    Read,
    batch,
    flush,
    new_partition,
    open_log,
    read_all,
)


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

    def seal(self) -> None:
        """What a recovery needs that begins here; a checkpoint may say so afterwards."""
        assert self.partition.seal()
        self.flush()
        assert self.partition.recovery_point == self.partition.log_end_offset

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
    producing.seal()
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
    producing.partition.seal()  # and no checkpoint that says so
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
    producing.seal()
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
    producing.seal()
    log_dir.checkpoint()
    producing.send(1, 0, 4)
    producing.partition.seal()
    log_dir.checkpoint()  # nothing of it is on the disk yet: it must not say so
    producing.end(2, 4, commit=True)
    producing.flush()
    producing.send(3, 6, 2, transactional=True)
    producing.flush()
