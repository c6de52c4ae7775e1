"""Old segments go while the machine is stopped, and the disk fails, at every operation.

The workload (shared/retention_workload.py) drops segments by size and by age, the active one too,
and by delete_records. After every crash the log begins where it may begin and not later, holds what
was acknowledged, has no gap, and knows its producers and open transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytest

from millstream.log.errors import LogError
from millstream.log.record import TopicPartition
from millstream.log.storage import checkpointing, flush, loading, partition, shrinking
from millstream.log.storage.segment import Segment
from shared.partition_sweep import sweep_crashes, sweep_errors
from shared.retention_workload import retention_workload
from shared.sweeping import coarse_first

Patch = pytest.MonkeyPatch


def test_crashes() -> None:
    assert sweep_crashes(work=retention_workload, step=9) > 200


@pytest.mark.slow
def test_every_crash_point() -> None:
    assert sweep_crashes(work=retention_workload) > 2000


@pytest.mark.parametrize(("kind", "step"), [("EIO", 13), ("ENOSPC", 7)])
def test_an_operation_fails(kind: str, step: int) -> None:
    mended = kind == "ENOSPC"
    assert sweep_errors(kind, work=retention_workload, step=step, may_be_mended=mended) > 50


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["EIO", "ENOSPC"])
def test_every_operation_fails(kind: str) -> None:
    mended = kind == "ENOSPC"
    assert sweep_errors(kind, work=retention_workload, may_be_mended=mended) > 300


# The sweep finds bugs: each of these is put in on purpose and must be caught.


def retention_goes_past_the_high_watermark(patch: Patch) -> None:
    real = shrinking.count_expired

    def count_expired(segments: Any, config: Any, _high: int, end: int, *rest: Any) -> int:
        return real(segments, config, end, end, *rest)

    patch.setattr(shrinking, "count_expired", count_expired)


def files_go_before_what_follows_them_is_synced(patch: Patch) -> None:
    def drop(self: flush.Unsynced, segment: Segment) -> None:
        self.forget([segment])
        self._dropped.append(segment)

    patch.setattr(flush.Unsynced, "drop", drop)


def files_go_before_the_log_start_offset_is_written(patch: Patch) -> None:
    real = checkpointing.Checkpoints.write

    def write(
        self: checkpointing.Checkpoints, partitions: Mapping[TopicPartition, partition.Partition]
    ) -> None:
        for each in partitions.values():
            for segment in each.take_dropped():
                segment.remove()
        real(self, partitions)

    patch.setattr(checkpointing.Checkpoints, "write", write)


def the_active_segment_is_closed_without_a_snapshot(patch: Patch) -> None:
    real = shrinking.ShrinkingPartition.apply_retention

    def apply_retention(self: partition.Partition, now_ms: int) -> int:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(partition.Partition, "_write_snapshot", lambda _self: None)
            return real(self, now_ms)

    patch.setattr(shrinking.ShrinkingPartition, "apply_retention", apply_retention)


def a_start_removes_leftovers_without_their_producers(patch: Patch) -> None:
    patch.setattr(loading.Loading, "_keep_producers", lambda self, count: None)


def a_start_trusts_a_snapshot_that_is_not_synced(patch: Patch) -> None:
    def keep_producers(self: loading.Loading, count: int) -> None:
        if self._segments[count].base_offset not in self._snapshots:
            real(self, count)

    real = loading.Loading._keep_producers
    patch.setattr(loading.Loading, "_keep_producers", keep_producers)


def deleted_records_come_back(patch: Patch) -> None:
    real = checkpointing.encode_offsets
    patch.setattr(checkpointing, "encode_offsets", lambda offsets: real(dict.fromkeys(offsets, 0)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "mutation",
    [
        retention_goes_past_the_high_watermark,
        files_go_before_what_follows_them_is_synced,
        files_go_before_the_log_start_offset_is_written,
        the_active_segment_is_closed_without_a_snapshot,
        a_start_removes_leftovers_without_their_producers,
        a_start_trusts_a_snapshot_that_is_not_synced,
        deleted_records_come_back,
    ],
    ids=lambda mutation: mutation.__name__,
)
def test_the_sweep_catches(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises((AssertionError, LogError)):
        coarse_first(partial(sweep_crashes, work=retention_workload))
