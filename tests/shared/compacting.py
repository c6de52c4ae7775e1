"""Compacted partitions in tests: what was written, and what a compaction may and must leave of it.

`Written` is the log as it was handed to the partition, and every compaction that was tried. From
that follows, of a log that ends somewhere: which records must be there, and which may be.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from millstream.log.config import TopicConfig
from millstream.log.format.codec import encode_batch
from millstream.log.record import Headers
from millstream.log.storage.compaction import Compaction, CompactionStats
from millstream.log.storage.partition import Partition
from shared.partitions import NOW_MS, visible_batches

RETENTION_MS = 1000
COMPACTED = TopicConfig(
    cleanup_policy=("compact",),
    segment_bytes=1024,
    index_interval_bytes=150,
    min_cleanable_dirty_ratio=0.0,
    delete_retention_ms=RETENTION_MS,
)
DEDUPE_BYTES = 1 << 20


class Keyed(NamedTuple):
    """A record as it is written and read."""

    key: bytes | None
    value: bytes | None
    timestamp: int = NOW_MS
    headers: Headers = ()


def keyed(
    records: list[Keyed],
    *,
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    transactional: bool = False,
    compression: int = 0,
) -> bytes:
    """A batch of these records."""
    return encode_batch(
        [record.key for record in records],
        [record.value for record in records],
        [record.timestamp for record in records],
        [record.headers for record in records],
        0,
        len(records),
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
        transactional=transactional,
        compression=compression,
    )


def compact(
    partition: Partition, now_ms: int, *, dedupe_buffer_bytes: int = DEDUPE_BYTES
) -> CompactionStats | None:
    """Plan, run and finish; the caller has a checkpoint before and after."""
    compaction = partition.plan_compaction(now_ms, dedupe_buffer_bytes=dedupe_buffer_bytes)
    return None if compaction is None else run_compaction(partition, compaction)


def run_compaction(partition: Partition, compaction: Compaction) -> CompactionStats:
    """What the cleaner does with a plan, with a thread in between."""
    try:
        compaction.run()
    except OSError as error:
        return partition.finish_compaction(compaction, error)
    return partition.finish_compaction(compaction, None)


def read_from(
    partition: Partition, start: int, isolation: str = "read_uncommitted", *, size_bytes: int = 400
) -> dict[int, Keyed]:
    """What a consumer gets from `start` on, by offset. It must get to the end."""
    found: dict[int, Keyed] = {}
    for _, columns in visible_batches(
        partition, start, isolation, size_bytes_max=size_bytes, gaps=True
    ):
        headers = columns.headers or [()] * len(columns.offsets)
        rows = zip(columns.keys, columns.values, columns.timestamps, headers, strict=True)
        for offset, row in zip(columns.offsets, rows, strict=True):
            if offset >= start:
                found[offset] = Keyed(*row)
    return found


class Batch(NamedTuple):
    """A batch that was handed to the partition. `commit` is None for data."""

    base_offset: int
    records: tuple[Keyed, ...]
    producer_id: int
    epoch: int
    transactional: bool
    data: bytes
    commit: bool | None = None

    @property
    def next_offset(self) -> int:
        return self.base_offset + max(len(self.records), 1)


class Tried(NamedTuple):
    """A compaction that was tried: at what time, and up to where."""

    now_ms: int
    end: int


@dataclass
class Written:
    """What was handed to a partition, and which compactions were tried."""

    batches: list[Batch] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)

    @property
    def next_offset(self) -> int:
        return self.batches[-1].next_offset if self.batches else 0

    def records(self, stop: int) -> dict[int, Keyed]:
        """Every record below `stop`."""
        return {
            batch.base_offset + i: record
            for batch in self.batches
            if batch.base_offset < stop
            for i, record in enumerate(batch.records)
        }

    def aborted(self, stop: int) -> tuple[set[int], int]:
        """Offsets of aborted records in a log that ends at `stop`, and its last stable offset."""
        aborted: set[int] = set()
        open_here: dict[int, list[Batch]] = {}
        for batch in self.batches:
            if batch.base_offset >= stop:
                break
            if batch.commit is not None:
                for ended in open_here.pop(batch.producer_id, []):
                    if not batch.commit:
                        aborted |= set(range(ended.base_offset, ended.next_offset))
            elif batch.transactional:
                open_here.setdefault(batch.producer_id, []).append(batch)
        stable = min((batches[0].base_offset for batches in open_here.values()), default=stop)
        return aborted, stable

    def expired(self, offset: int) -> bool:
        """Whether a tombstone at this offset may be gone: one compaction has seen it, and a later
        one came after delete.retention.ms."""
        return any(
            offset < first.end
            and offset < later.end
            and later.now_ms >= first.now_ms + RETENTION_MS
            for i, first in enumerate(self.tried)
            for later in self.tried[i + 1 :]
        )

    def check(self, partition: Partition) -> dict[int, Keyed]:
        """Hold what can be read against what was written. Returns what a consumer gets."""
        start, end = partition.log_start_offset, partition.log_end_offset
        written = {at: each for at, each in self.records(end).items() if at >= start}
        aborted, stable = self.aborted(end)
        assert partition.last_stable_offset == max(stable, start)
        seen = read_from(partition, start)
        for offset, record in seen.items():
            assert record == written.get(offset), f"offset {offset} is not what was written"
        clean_end = max((tried.end for tried in self.tried), default=0)
        newest: dict[bytes | None, int] = {}
        for offset, record in written.items():
            if offset not in aborted and offset < clean_end:
                newest[record.key] = offset
        for offset, record in written.items():
            if offset in seen:
                continue
            assert offset < clean_end, f"offset {offset} is gone, above the clean end {clean_end}"
            gone_for_good = offset in aborted or newest[record.key] > offset
            is_expired = record.value is None and self.expired(offset)
            assert gone_for_good or is_expired, f"offset {offset} is gone"
        self._check_state(written, seen, aborted, stable)
        committed = read_from(partition, start, "read_committed")
        wanted = {at: each for at, each in seen.items() if at not in aborted and at < stable}
        assert committed == wanted
        return seen

    @staticmethod
    def _check_state(
        written: dict[int, Keyed], seen: dict[int, Keyed], aborted: set[int], stable: int
    ) -> None:
        """The table that a reader builds is the one that was written; nothing comes back."""
        wanted: dict[bytes | None, bytes | None] = {}
        found: dict[bytes | None, bytes | None] = {}
        for table, records in ((wanted, written), (found, seen)):
            for offset, record in records.items():
                if offset not in aborted and offset < stable:
                    table[record.key] = record.value
        for table in (wanted, found):
            for key in [key for key, value in table.items() if value is None]:
                del table[key]
        assert found == wanted


class Writing:
    """A hand on one partition: writes, and writes it down."""

    def __init__(self, written: Written, partition: Partition) -> None:
        self.written = written
        self.partition = partition
        self.sequences: dict[tuple[int, int], int] = {}

    def send(
        self,
        records: list[Keyed],
        *,
        producer_id: int = -1,
        epoch: int = -1,
        transactional: bool = False,
        compression: int = 0,
    ) -> None:
        sequence = self.sequences.get((producer_id, epoch), 0) if producer_id >= 0 else -1
        data = keyed(
            records,
            producer_id=producer_id,
            epoch=epoch,
            sequence=sequence,
            transactional=transactional,
            compression=compression,
        )
        base = self.written.next_offset
        self.written.batches.append(
            Batch(base, tuple(records), producer_id, epoch, transactional, data)
        )
        assert self.partition.append(data, NOW_MS).base_offset == base
        self.sequences[producer_id, epoch] = sequence + len(records)

    def end(self, producer_id: int, epoch: int, *, commit: bool) -> None:
        base = self.written.next_offset
        self.written.batches.append(Batch(base, (), producer_id, epoch, True, b"", commit))
        offset = self.partition.append_marker(
            producer_id, epoch, commit=commit, coordinator_epoch=0, now_ms=NOW_MS
        )
        assert offset == base

    def compact(
        self, now_ms: int, *, dedupe_buffer_bytes: int = DEDUPE_BYTES
    ) -> CompactionStats | None:
        """As `compact`, and writes down what is tried before it is."""
        compaction = self.partition.plan_compaction(now_ms, dedupe_buffer_bytes=dedupe_buffer_bytes)
        if compaction is None:
            return None
        self.written.tried.append(Tried(now_ms, compaction.plan.end))
        return run_compaction(self.partition, compaction)

    def check_producers(self) -> None:
        """A retry of each producer's last batch is told from a new one."""
        end = self.partition.log_end_offset
        ended = {
            batch.producer_id: batch.base_offset
            for batch in self.written.batches
            if batch.commit is not None and batch.base_offset < end
        }
        last = {
            batch.producer_id: batch
            for batch in self.written.batches
            if batch.commit is None and batch.producer_id >= 0 and batch.base_offset < end
        }
        for producer_id, batch in last.items():
            if ended.get(producer_id, -1) < batch.base_offset:
                info = self.partition.append(batch.data, NOW_MS)
                assert (info.base_offset, info.duplicate) == (batch.base_offset, True)
