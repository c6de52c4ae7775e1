"""Compaction held against a model: whatever is written, whenever it is compacted and reopened.

What must hold is said by `shared.compacting.Written.check`; it is looked at after every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millstream.log.storage.partition import Partition
from millstream.log.testing.sim_files import SimFiles
from shared.compacting import COMPACTED, RETENTION_MS, Keyed, Writing, Written, read_from
from shared.partitions import NOW_MS, PARTITION, flush, new_partition, open_log

KEYS = [
    b"a",
    b"b",
    b"c",
    b"a key that is longer than sixteen bytes",
    b"another one of more than 16",
]


class Trial:
    """One partition through some steps; what is random in a step comes from its seed."""

    def __init__(self, segment_bytes: int) -> None:
        self.config = replace(COMPACTED, segment_bytes=segment_bytes)
        self.files = SimFiles()
        self.log_dir, partition = new_partition(self.files, config=self.config)
        self.written = Written()
        self.writing = Writing(self.written, partition)
        self.now_ms = NOW_MS
        self.number = 0
        self.epochs = {10: 0, 11: 0}
        self.open: set[int] = set()

    @property
    def partition(self) -> Partition:
        return self.writing.partition

    def write(self, random: Random) -> None:
        for _ in range(random.randint(1, 15)):
            if random.random() < 0.5:
                self.write_in_transaction(random)
                continue
            producer_id = random.choice([-1, 1, 2])
            self.writing.send(
                self.records(random),
                producer_id=producer_id,
                epoch=0 if producer_id >= 0 else -1,
                compression=random.choice([0, 0, 1, 4]),
            )

    def write_in_transaction(self, random: Random) -> None:
        producer_id = random.choice([10, 11])
        self.writing.send(
            self.records(random),
            producer_id=producer_id,
            epoch=self.epochs[producer_id],
            transactional=True,
        )
        self.open.add(producer_id)
        if random.random() < 0.6:
            self.end_transaction(producer_id, random)

    def end_transaction(self, producer_id: int, random: Random) -> None:
        self.open.discard(producer_id)
        self.epochs[producer_id] += 1
        self.writing.end(producer_id, self.epochs[producer_id], commit=random.random() < 0.5)

    def end_transactions(self, random: Random) -> None:
        for producer_id in sorted(self.open):
            self.end_transaction(producer_id, random)

    def let_time_pass(self, random: Random) -> None:
        self.now_ms += random.choice([1, RETENTION_MS // 2, RETENTION_MS, 3 * RETENTION_MS])

    def compact(self, random: Random) -> None:
        self.partition.seal()
        flush(self.partition)
        self.log_dir.checkpoint()
        limit = self.partition.checkpointed_recovery_point
        above = self.read(limit)
        dedupe_buffer_bytes = random.choice([1, 600, 1 << 20, 1 << 20])
        stats = self.writing.compact(self.now_ms, dedupe_buffer_bytes=dedupe_buffer_bytes)
        if stats is not None:
            assert stats.outcome == "cleaned"
            assert stats.clean_offset > stats.first_dirty
            if dedupe_buffer_bytes > 1000:
                assert not stats.map_was_full
                self.check_only_the_newest(stats.clean_offset)
            self.check_ends()
        assert self.read(limit) == above
        if random.random() < 0.7:
            self.log_dir.checkpoint()
            names = self.files.list_dir(self.partition.folder)
            assert not [name for name in names if name.endswith((".cleaned", ".swap"))]

    def reopen(self, random: Random) -> None:
        flush(self.partition)
        before = self.read(0)
        is_clean = random.random() < 0.5
        unsettled = self.partition.settling is not None
        if is_clean:
            self.log_dir.close()
            self.files = self.files.restart()
        else:
            self.files = self.files.after_crash("mixed", "mixed", seed=random.randint(0, 99))
        self.log_dir = open_log(self.files, config=self.config)
        self.writing.partition = self.log_dir.partitions[PARTITION]
        if is_clean or not unsettled:
            assert self.read(0) == before
        self.writing.check_producers()

    def delete_records(self, random: Random) -> None:
        start = self.partition.log_start_offset
        span = self.partition.last_stable_offset - start
        self.partition.delete_records(start + int(random.random() * span / 4))
        self.log_dir.checkpoint()

    def read_somewhere(self, random: Random) -> None:
        offset = random.randint(self.partition.log_start_offset, self.partition.high_watermark)
        wanted = {at: each for at, each in self.read(0).items() if at >= offset}
        assert read_from(self.partition, offset, size_bytes=100) == wanted

    def records(self, random: Random) -> list[Keyed]:
        records = []
        for _ in range(random.randint(1, 5)):
            self.number += 1
            value = None if random.random() < 0.25 else b"value %d" % self.number
            headers = (("h", b"%d" % self.number),) if self.number % 3 == 0 else ()
            time = NOW_MS + (self.number * 7) % 50
            records.append(Keyed(random.choice(KEYS), value, time, headers))
        return records

    def read(self, offset: int) -> dict[int, Keyed]:
        return read_from(self.partition, max(offset, self.partition.log_start_offset))

    def check_ends(self) -> None:
        """A segment's last batch says where it ends: a start after a crash goes by that."""
        for segment, end in self.partition._segments.with_ends(self.partition.log_end_offset):
            if segment.size_bytes:
                assert [header.last_offset for _, header in segment.batches()][-1] == end - 1

    def check_only_the_newest(self, end: int) -> None:
        keys = [record.key for offset, record in self.read(0).items() if offset < end]
        assert len(keys) == len(set(keys)), "a key is there twice below the clean offset"


Step = Callable[[Trial, Random], None]
STEPS: list[Step] = [
    Trial.write,
    Trial.compact,
    Trial.end_transactions,
    Trial.let_time_pass,
    Trial.reopen,
    Trial.delete_records,
    Trial.read_somewhere,
]
WEIGHTED = [*STEPS, Trial.write, Trial.write, Trial.compact, Trial.compact, Trial.end_transactions]


def run(segment_bytes: int, steps: list[tuple[Step, int]]) -> None:
    trial = Trial(segment_bytes)
    for step, seed in steps:
        step(trial, Random(seed))
        flush(trial.partition)
        trial.written.check(trial.partition)
    trial.log_dir.close()


TRIALS = given(
    segment_bytes=st.sampled_from([1024, 1500, 4096]),
    steps=st.lists(
        st.tuples(st.sampled_from(WEIGHTED), st.integers(0, 10_000)), min_size=8, max_size=40
    ),
)
NO_CHECKS = list(HealthCheck)


@settings(max_examples=60, deadline=None, suppress_health_check=NO_CHECKS)
@TRIALS
def test_whatever_is_written(segment_bytes: int, steps: list[tuple[Step, int]]) -> None:
    run(segment_bytes, steps)


@pytest.mark.slow
@settings(max_examples=800, deadline=None, suppress_health_check=NO_CHECKS)
@TRIALS
def test_whatever_is_written_for_longer(segment_bytes: int, steps: list[tuple[Step, int]]) -> None:
    run(segment_bytes, steps)
