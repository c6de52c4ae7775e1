"""What is compacted and when, and what becomes of one batch."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, Literal

import pytest

from millstream.log.config import TopicConfig
from millstream.log.errors import CorruptRecordError, OffsetOutOfRangeError
from millstream.log.format.codec import BatchHeader, decode_batch, parse_header
from millstream.log.storage.layout import CLEANER_OFFSETS
from millstream.log.storage.log_dir import LogDir
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.storage.partition import Partition
from millstream.log.storage.segment import Segment
from millstream.log.testing.sim_files import Operation, SimFiles, disk_error
from shared.compacting import (
    COMPACTED,
    DEDUPE_BYTES,
    RETENTION_MS,
    Keyed,
    Writing,
    Written,
    compact,
    keyed,
    read_from,
)
from shared.partitions import FOLDER, NOW_MS, PARTITION, ROOT, flush, new_partition, open_log

DAY_MS = 86_400_000
LARGE = b"v" * 300


class Compacted:
    """A compacted partition, and what a broker does around it."""

    def __init__(self, config: TopicConfig = COMPACTED, *, durability: str = "fsync") -> None:
        self.files = SimFiles()
        self.config = config
        self.durability = durability
        self.log_dir, partition = new_partition(self.files, config=config, durability=durability)
        self.writing = Writing(Written(), partition)

    @property
    def partition(self) -> Partition:
        return self.writing.partition

    def write(self, *records: Keyed | bytes, **named: Any) -> None:
        """One batch; a key alone gets a value that fills a third of a segment."""
        rows = [each if isinstance(each, Keyed) else Keyed(each, LARGE) for each in records]
        self.writing.send(rows, **named)

    def checkpoint(self) -> None:
        self.partition.seal()
        flush(self.partition)
        self.log_dir.checkpoint()

    def close_segment(self) -> None:
        self.partition._close_active()
        self.checkpoint()

    def compact(self, now_ms: int = NOW_MS, dedupe_buffer_bytes: int = DEDUPE_BYTES) -> int:
        """Where it is clean afterwards."""
        self.checkpoint()
        stats = self.writing.compact(now_ms, dedupe_buffer_bytes=dedupe_buffer_bytes)
        self.checkpoint()
        if stats is not None:
            assert stats.outcome == "cleaned"
        return self.partition.clean_offset

    def reopen(self) -> LogDir:
        self.files = self.files.restart()
        self.log_dir = open_log(self.files, config=self.config, durability=self.durability)
        self.writing.partition = self.log_dir.partitions[PARTITION]
        return self.log_dir

    def seen(self) -> list[tuple[int, bytes | None]]:
        flush(self.partition)
        seen = read_from(self.partition, self.partition.log_start_offset)
        return [(offset, record.key) for offset, record in seen.items()]

    def headers(self) -> list[BatchHeader]:
        return [header for segment in self.partition._segments for _, header in segment.batches()]


def test_the_newest_of_each_key_stays() -> None:
    log = Compacted()
    log.write(b"a", b"b")
    log.write(b"a", b"c")
    log.close_segment()
    log.write(b"c")
    assert log.compact() == 4
    assert log.seen() == [(1, b"b"), (2, b"a"), (3, b"c"), (4, b"c")]
    log.close_segment()
    assert log.compact() == 5
    assert log.seen() == [(1, b"b"), (2, b"a"), (4, b"c")]


def test_small_neighbours_are_merged() -> None:
    log = Compacted()
    for _ in range(6):
        log.write(b"a", b"a")
        log.close_segment()
    log.compact()
    assert len(log.partition._segments) == 7
    bases = [segment.base_offset for segment in log.partition._segments]
    log.write(b"a")
    log.close_segment()
    log.compact()
    assert [segment.base_offset for segment in log.partition._segments] == [0, 12, 13]
    names = log.files.list_dir(FOLDER)
    assert [name for name in names if name.endswith(".log")] == [
        f"{offset:020d}.log" for offset in (0, 12, 13)
    ]
    gone = {f"{offset:020d}.snapshot" for offset in bases[1:-1]}
    assert not gone & set(names)
    log.log_dir.close()
    log.reopen()
    assert log.seen() == [(12, b"a")]


def test_the_active_segment_is_left_alone() -> None:
    log = Compacted()
    log.write(b"a")
    log.write(b"a")
    assert log.compact() == 0
    assert log.partition.dirty_ratio(NOW_MS) == 0


def test_nothing_from_the_last_stable_offset_on() -> None:
    log = Compacted()
    log.write(b"a", b"a")
    log.close_segment()
    log.write(Keyed(b"a", b"open"), producer_id=1, epoch=0, transactional=True)
    log.write(b"a", b"a")
    log.close_segment()
    log.write(b"a")
    assert log.compact() == 2
    assert log.seen() == [(1, b"a"), (2, b"a"), (3, b"a"), (4, b"a"), (5, b"a")]
    log.writing.end(1, 1, commit=False)
    log.close_segment()
    assert log.compact() == 7
    assert log.seen() == [(5, b"a")]


def test_nothing_above_the_recovery_point_on_disk() -> None:
    log = Compacted()
    log.write(b"a", b"a")
    log.partition._close_active()
    flush(log.partition)
    assert log.partition.recovery_point == 2
    assert log.partition.plan_compaction(NOW_MS, dedupe_buffer_bytes=DEDUPE_BYTES) is None
    log.log_dir.checkpoint()
    assert log.partition.plan_compaction(NOW_MS, dedupe_buffer_bytes=DEDUPE_BYTES) is not None


def test_a_topic_that_is_not_compacted() -> None:
    log = Compacted(replace(COMPACTED, cleanup_policy=("delete",)))
    log.write(b"a", b"a")
    log.close_segment()
    assert log.compact() == 0
    assert log.partition.dirty_ratio(NOW_MS) == 0
    assert not log.partition.compaction_overdue(NOW_MS + 365 * DAY_MS)
    log.partition.config = replace(COMPACTED, cleanup_policy=("compact", "delete"))
    assert log.compact() == 2


def test_the_dirty_ratio_decides() -> None:
    log = Compacted(replace(COMPACTED, min_cleanable_dirty_ratio=0.5))
    for _ in range(4):
        log.write(b"a", b"b")
        log.close_segment()
    assert log.partition.dirty_ratio(NOW_MS) == 1.0
    assert log.compact() == 8
    assert log.partition.dirty_ratio(NOW_MS) == 0.0
    log.write(b"a")
    log.close_segment()
    assert 0 < log.partition.dirty_ratio(NOW_MS) <= 0.5
    assert log.compact() == 8
    log.write(b"a", b"b")
    log.close_segment()
    assert log.partition.dirty_ratio(NOW_MS) > 0.5
    assert log.compact() == 11


def test_young_records_wait() -> None:
    log = Compacted(replace(COMPACTED, min_compaction_lag_ms=1000))
    log.write(Keyed(b"a", LARGE, NOW_MS), Keyed(b"a", LARGE, NOW_MS))
    log.close_segment()
    log.write(Keyed(b"a", LARGE, NOW_MS + 500))
    log.close_segment()
    assert log.compact(NOW_MS + 999) == 0
    assert log.compact(NOW_MS + 1000) == 2
    assert log.compact(NOW_MS + 1500) == 3


def test_old_records_do_not_wait() -> None:
    config = replace(COMPACTED, min_cleanable_dirty_ratio=1.0, max_compaction_lag_ms=DAY_MS)
    log = Compacted(config)
    log.write(b"a", b"a")
    assert not log.partition.compaction_overdue(NOW_MS + DAY_MS)
    assert log.compact(NOW_MS + DAY_MS) == 0
    assert log.partition.compaction_overdue(NOW_MS + DAY_MS + 1)
    log.compact(NOW_MS + DAY_MS + 1)  # closes the active segment
    assert len(log.partition._segments) == 2
    assert log.compact(NOW_MS + DAY_MS + 1) == 2
    assert log.seen() == [(1, b"a")]
    assert not log.partition.compaction_overdue(NOW_MS + DAY_MS + 1)


def test_a_tombstone_stays_until_its_horizon() -> None:
    log = Compacted()
    log.write(b"a", Keyed(b"a", None), b"b")
    log.close_segment()
    log.compact(NOW_MS)
    assert log.seen() == [(1, b"a"), (2, b"b")]
    assert log.headers()[0].delete_horizon_ms == NOW_MS + RETENTION_MS
    for now_ms, tombstone in (
        (NOW_MS + RETENTION_MS - 1, [(1, b"a")]),
        (NOW_MS + RETENTION_MS, []),
    ):
        log.write(b"c")
        log.close_segment()
        log.compact(now_ms)
        assert log.seen()[:-1] == [*tombstone, (2, b"b")]


def test_the_horizon_is_not_moved_and_times_stay() -> None:
    log = Compacted()
    records = [Keyed(b"a", None, NOW_MS - 5), Keyed(b"b", LARGE, NOW_MS + 70), Keyed(b"c", b"", -1)]
    log.write(*records)
    for now_ms in (NOW_MS, NOW_MS + 500, NOW_MS + 900):
        log.write(b"d")
        log.close_segment()
        log.compact(now_ms)
        header = log.headers()[0]
        assert header.delete_horizon_ms == NOW_MS + RETENTION_MS
        assert header.max_timestamp == NOW_MS + 70
        assert list(read_from(log.partition, 0).values())[:3] == records


@pytest.mark.parametrize("compression", [0, 1, 2, 3, 4])
def test_a_batch_is_rewritten_in_its_own_codec(compression: int) -> None:
    log = Compacted()
    headers = (("h", b"1"), ("h", None))
    first, last = Keyed(b"a", LARGE, NOW_MS, headers), Keyed(b"c", LARGE, NOW_MS + 2, headers)
    log.write(
        first, Keyed(b"b", LARGE, NOW_MS + 9), last, Keyed(b"b", LARGE, NOW_MS + 9),
        producer_id=7, epoch=3, compression=compression,
    )  # fmt: skip
    log.write(b"b")
    log.close_segment()
    before = log.headers()[0]
    log.compact()
    header = log.headers()[0]
    assert (header.base_offset, header.last_offset, header.records_count) == (0, 3, 2)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 3, 0)
    assert header.compression == compression
    assert header.max_timestamp == NOW_MS + 2
    assert header.base_timestamp == before.base_timestamp
    assert list(read_from(log.partition, 0).items())[:2] == [(0, first), (2, last)]


def test_a_batch_of_which_all_stays_is_not_touched() -> None:
    log = Compacted()
    log.write(b"a", b"b", compression=1)
    log.write(b"c")
    log.close_segment()
    segment = log.partition._segments.first
    before = segment.read(0, segment.size_bytes)
    log.write(b"c")
    log.close_segment()
    log.compact()
    segment = log.partition._segments.first
    header = parse_header(before)
    assert segment.read(0, header.size_bytes) == before[: header.size_bytes]


def test_a_segment_of_which_all_stays_is_not_written() -> None:
    log = Compacted()
    log.write(b"a")
    log.close_segment()
    log.write(b"b", b"b", b"b")
    log.close_segment()
    first = log.partition._segments.first
    log.partition.config = replace(log.config, segment_bytes=1024)
    log.compact()
    assert log.partition._segments.first is first


def test_the_last_batch_of_a_producer_keeps_its_sequence() -> None:
    log = Compacted()
    log.write(b"a", producer_id=1, epoch=0)
    log.write(b"a", b"a", producer_id=2, epoch=0)
    log.write(b"a", producer_id=3, epoch=0)
    log.close_segment()
    log.write(b"a", producer_id=3, epoch=0)
    log.close_segment()
    log.compact()
    assert log.seen() == [(4, b"a")]
    assert [(each.producer_id, each.records_count) for each in log.headers()] == [
        (1, 0),
        (2, 0),
        (3, 1),
    ]
    log.log_dir.close(clean=False)
    for name in log.files.list_dir(FOLDER):
        if name.endswith(".snapshot"):  # nothing but the batches is left to tell
            log.files.remove(f"{FOLDER}/{name}")
    log.reopen()
    log.writing.check_producers()


def test_a_producer_that_was_forgotten_keeps_nothing() -> None:
    log = Compacted()
    log.write(b"a", producer_id=1, epoch=0)
    log.write(b"a")
    log.close_segment()
    log.partition.expire_producers(NOW_MS + 1)
    log.compact()
    assert [each.producer_id for each in log.headers()] == [-1]


def test_a_marker_goes_after_its_records_and_its_horizon() -> None:
    log = Compacted()
    log.write(b"a", producer_id=1, epoch=0, transactional=True)
    log.writing.end(1, 1, commit=True)
    log.write(b"b", producer_id=1, epoch=1, transactional=True)
    log.writing.end(1, 2, commit=False)
    log.write(b"a", producer_id=2, epoch=0)
    log.close_segment()

    def markers(now_ms: int) -> list[tuple[int, int | None]]:
        log.write(b"x")
        log.close_segment()
        log.compact(now_ms)
        return [
            (each.base_offset, each.delete_horizon_ms) for each in log.headers() if each.is_control
        ]

    assert markers(NOW_MS) == [(1, None), (3, None)], "their batches were met"
    assert log.seen()[0] == (4, b"a"), "the aborted record is gone at once"
    horizon_ms = NOW_MS + 1 + RETENTION_MS
    assert markers(NOW_MS + 1) == [(1, horizon_ms), (3, horizon_ms)]
    assert markers(horizon_ms - 1) == [(1, horizon_ms), (3, horizon_ms)]
    assert markers(horizon_ms) == [(3, horizon_ms)], "the last marker has the producer's epoch"
    log.partition.expire_producers(NOW_MS + DAY_MS)
    assert markers(horizon_ms + 1) == []


def test_a_marker_stays_while_a_snapshot_waits_for_it() -> None:
    """Recovery may begin with that snapshot, and nothing else says that this has ended."""
    log = Compacted()
    log.write(Keyed(b"a", b"first"), producer_id=1, epoch=0, transactional=True)
    log.write(b"k", b"l")
    log.close_segment()
    begin = log.partition._segments.active.base_offset
    log.writing.end(1, 1, commit=True)
    log.write(Keyed(b"a", b"second"), producer_id=1, epoch=1)
    log.write(b"m", b"n")
    for later_ms in (0, 1, 2 * RETENTION_MS):
        log.write(b"x")
        log.close_segment()
        log.compact(NOW_MS + later_ms)
    log.partition.delete_records(begin)
    log.checkpoint()
    for name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
        log.files.remove(f"{ROOT}/{name}")
    log.reopen()
    assert log.partition._segments.first.base_offset == begin
    assert log.partition.open_transactions() == {}
    assert log.partition.last_stable_offset == log.partition.log_end_offset


def test_an_aborted_record_does_not_replace_another() -> None:
    log = Compacted()
    log.write(Keyed(b"a", b"committed"))
    log.write(Keyed(b"a", b"aborted"), producer_id=1, epoch=0, transactional=True)
    log.writing.end(1, 1, commit=False)
    log.close_segment()
    log.compact()
    assert log.seen() == [(0, b"a")]


def test_records_without_a_key_are_dropped() -> None:
    log = Compacted(replace(COMPACTED, cleanup_policy=("delete",)))
    log.write(Keyed(None, LARGE), b"a")
    log.close_segment()
    log.partition.config = COMPACTED
    log.compact()
    assert log.seen() == [(1, b"a")]


def test_a_full_map_ends_the_first_pass() -> None:
    log = Compacted()
    for number in range(6):
        log.write(b"%d" % number, b"same")
    log.close_segment()
    ends = [log.compact(dedupe_buffer_bytes=600) for _ in range(4)]
    assert ends == sorted(ends)
    assert 0 < ends[0] < ends[-1] == 12
    assert [key for _, key in log.seen()] == [b"0", b"1", b"2", b"3", b"4", b"5", b"same"]


def test_stop_leaves_nothing() -> None:
    log = Compacted()
    log.write(b"a", b"a")
    log.close_segment()
    compaction = log.partition.plan_compaction(NOW_MS, dedupe_buffer_bytes=DEDUPE_BYTES)
    assert compaction is not None
    assert log.partition.plan_compaction(NOW_MS, dedupe_buffer_bytes=DEDUPE_BYTES) is None
    compaction.stop()
    compaction.run()
    assert log.partition.finish_compaction(compaction, None).outcome == "stopped"
    assert not [name for name in log.files.list_dir(FOLDER) if name.endswith(".cleaned")]
    assert log.seen() == [(0, b"a"), (1, b"a")]
    assert log.compact() == 2


def test_segments_that_were_deleted_meanwhile() -> None:
    log = Compacted()
    for _ in range(3):
        log.write(b"a", b"a")
        log.close_segment()
    compaction = log.partition.plan_compaction(NOW_MS, dedupe_buffer_bytes=DEDUPE_BYTES)
    assert compaction is not None
    compaction.run()
    log.partition.delete_records(3)
    log.log_dir.checkpoint()
    assert log.partition.finish_compaction(compaction, None).outcome == "outdated"
    log.log_dir.checkpoint()
    assert not [name for name in log.files.list_dir(FOLDER) if name.endswith(".cleaned")]
    assert log.seen() == [(3, b"a"), (4, b"a"), (5, b"a")]
    assert log.compact() == 6
    assert log.seen() == [(5, b"a")]


def test_segments_that_were_deleted_before_they_were_read() -> None:
    log = Compacted()
    for _ in range(3):
        log.write(b"a", b"a")
        log.close_segment()
    compaction = log.partition.plan_compaction(NOW_MS, dedupe_buffer_bytes=DEDUPE_BYTES)
    assert compaction is not None
    log.partition.delete_records(3)
    log.log_dir.checkpoint()
    with pytest.raises(FileNotFoundError) as raised:
        compaction.run()
    assert log.partition.finish_compaction(compaction, raised.value).outcome == "outdated"
    assert log.compact() == 6


def test_a_damaged_record_stops_a_compaction_and_nothing_else() -> None:
    log = Compacted()
    log.write(b"a", b"b")
    log.close_segment()
    log.write(b"b")
    segment = log.partition._segments.first
    segment.handle.overwrite(100, b"?")
    compaction = log.partition.plan_compaction(NOW_MS, dedupe_buffer_bytes=DEDUPE_BYTES)
    assert compaction is not None
    with pytest.raises(CorruptRecordError, match=r"0000\.log at position 0") as raised:
        compaction.run()
    assert log.partition.finish_compaction(compaction, raised.value).outcome == "failed"
    flush(log.partition)
    assert read_from(log.partition, 2) == {2: Keyed(b"b", LARGE)}


def test_records_deleted_before_the_files_are_in_place() -> None:
    log = Compacted()
    for number in range(4):
        log.write(b"a", b"%d" % number)
        log.close_segment()
    compact(log.partition, NOW_MS)
    log.partition.delete_records(7)
    log.checkpoint()
    assert log.seen() == [(7, b"3")]
    log.log_dir.close()
    log.reopen()
    assert log.seen() == [(7, b"3")]
    with pytest.raises(OffsetOutOfRangeError):
        log.partition.read(6, size_bytes_max=100)


def test_deleted_to_make_room_before_the_files_are_in_place() -> None:
    """A full disk has the files of deleted segments removed before anything is written."""
    log = Compacted()
    for number in range(6):
        log.write(b"a", b"%d" % number)
        log.close_segment()
    compact(log.partition, NOW_MS)
    log.partition.delete_records(4)
    for segment in log.partition.take_dropped():
        segment.remove()
    log.checkpoint()
    assert log.seen()[0] == (5, b"2")
    log.log_dir.close()
    log.reopen()
    assert log.seen()[0] == (5, b"2")
    assert min(name for name in log.files.list_dir(FOLDER)) >= f"{4:020d}"


def test_a_flush_that_runs_meanwhile() -> None:
    log = Compacted()
    log.write(b"a", b"a")
    log.close_segment()
    log.write(b"b")
    running = log.partition.start_flush()
    assert running is not None
    compact(log.partition, NOW_MS)
    assert log.partition.settling is None, "the flush may be using the files"
    running.run()
    log.partition.finish_flush(running, None)
    assert log.partition.settling is not None
    log.log_dir.checkpoint()
    assert log.partition.settling is None
    assert log.seen() == [(1, b"a"), (2, b"b")]


def fail_compactions(
    log: Compacted, kind: Literal["EIO", "ENOSPC"], caplog: pytest.LogCaptureFixture
) -> None:
    """Three in a row; the disk works again after that."""

    def refuse(operation: Operation) -> OSError | None:
        is_new = operation.path.endswith(".cleaned") and operation.kind == "append"
        return disk_error(kind, operation.path) if is_new else None

    log.write(b"a", b"a")
    log.close_segment()
    log.files.on_operation = refuse
    for _ in range(3):
        compaction = log.partition.plan_compaction(NOW_MS, dedupe_buffer_bytes=DEDUPE_BYTES)
        assert compaction is not None
        with pytest.raises(OSError, match=r"No space left|Input/output") as raised:
            compaction.run()
        with caplog.at_level(logging.WARNING):
            stats = log.partition.finish_compaction(compaction, raised.value)
        assert stats.outcome == "failed"
        assert not [name for name in log.files.list_dir(FOLDER) if name.endswith(".cleaned")]
        log.write(b"a")
    assert str(raised.value) in caplog.text
    log.files.on_operation = None


def test_a_disk_that_fails_stops_compactions_until_it_is_opened_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = Compacted()
    fail_compactions(log, "EIO", caplog)
    assert log.partition.plan_compaction(NOW_MS, dedupe_buffer_bytes=DEDUPE_BYTES) is None
    log.log_dir.close()
    log.reopen()
    assert log.compact() >= 2, "opened again, it is tried again"


def test_a_compaction_that_failed_leaves_no_file_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even while somebody holds its error, with the frames that it went through."""
    segments: list[Segment] = []

    class Noted(Segment):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            segments.append(self)

    def refuse(operation: Operation) -> OSError | None:
        is_new = operation.path.endswith(".cleaned") and operation.kind == "append"
        return disk_error("ENOSPC", operation.path) if is_new else None

    log = Compacted()
    for key in (b"1", b"2", b"3", b"4", b"5"):
        log.write(key)
        log.write(b"a")
    log.close_segment()
    log.checkpoint()
    compaction = log.partition.plan_compaction(NOW_MS, dedupe_buffer_bytes=DEDUPE_BYTES)
    assert compaction is not None
    monkeypatch.setattr("millstream.log.storage.compaction.Segment", Noted)
    log.files.on_operation = refuse
    with pytest.raises(OSError, match="No space left") as raised:
        compaction.run()
    assert raised.value.__traceback__ is not None
    assert len(segments) > 1
    assert [each.path for each in segments if each._handle is not None] == []


def test_a_full_disk_stops_compactions_while_it_is_full(caplog: pytest.LogCaptureFixture) -> None:
    log = Compacted()
    fail_compactions(log, "ENOSPC", caplog)
    assert log.compact() >= 2


def test_the_clean_offset_is_kept_and_reset() -> None:
    log = Compacted()
    log.write(b"a", b"a")
    log.close_segment()
    log.compact()
    log.log_dir.close()
    assert log.files.read_whole(f"{ROOT}/{CLEANER_OFFSETS}") == b"0\n1\norders 0 2\n"
    log.reopen()
    assert log.partition.clean_offset == 2
    assert log.partition.dirty_ratio(NOW_MS) == 0
    log.partition.clean_offset = 1000  # a disk was put back to what it was
    assert log.partition.dirty_ratio(NOW_MS) == 1.0
    log.log_dir.remove(log.log_dir.detach([PARTITION]), "id")
    log.log_dir.checkpoint()
    assert log.log_dir.partitions == {}
    assert log.files.read_whole(f"{ROOT}/{CLEANER_OFFSETS}") == b"0\n0\n"


def test_gaps_survive_the_loss_of_the_recovery_points() -> None:
    """What an error message tells people to remove must not cost a compacted log its records."""
    log = Compacted()
    for number in range(6):
        log.write(b"a", b"%d" % (number % 2))
    log.close_segment()
    log.compact()
    log.write(b"end")
    flush(log.partition)
    keys = log.seen()
    log.log_dir.close()
    for name in log.files.list_dir(ROOT):
        if name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
            log.files.remove(f"{ROOT}/{name}")
    log.files.remove(f"{ROOT}/.kafka_cleanshutdown")
    log.reopen()
    assert log.seen() == keys


def test_times_are_found_among_gaps() -> None:
    log = Compacted()
    for number in range(12):
        log.write(Keyed(b"%d" % (number % 3), LARGE, NOW_MS + number * 10))
    log.write(Keyed(b"0", LARGE, NOW_MS + 5), producer_id=1, epoch=0)
    log.close_segment()
    log.compact()
    assert log.seen() == [(10, b"1"), (11, b"2"), (12, b"0")]
    assert log.partition.offset_for_time(NOW_MS) == 10
    assert log.partition.offset_for_time(NOW_MS + 101) == 11
    assert log.partition.offset_for_time(NOW_MS + 111) is None
    assert log.partition.max_timestamp() == (11, NOW_MS + 110)


def test_a_log_append_time_stays() -> None:
    log = Compacted(replace(COMPACTED, message_timestamp_type="LogAppendTime"))
    data = keyed([Keyed(b"a", b"1", 5), Keyed(b"b", None, 6), Keyed(b"a", b"2", 7)])
    log.partition.append(data, NOW_MS)
    log.close_segment()
    log.checkpoint()
    compact(log.partition, NOW_MS + 50)
    seen = read_from(log.partition, 0)
    assert seen == {1: Keyed(b"b", None, NOW_MS), 2: Keyed(b"a", b"2", NOW_MS)}


def test_in_memory_and_unsynced() -> None:
    log_dir, partition = new_partition(MemoryFiles(), config=COMPACTED, durability="os")
    partition.append(keyed([Keyed(b"a", LARGE), Keyed(b"a", LARGE)]), NOW_MS)
    partition._close_active()
    flush(partition)
    log_dir.checkpoint()
    stats = compact(partition, NOW_MS)
    assert stats is not None
    assert (stats.records_read, stats.records_kept, stats.keys) == (2, 1, 1)
    log_dir.checkpoint()
    columns = decode_batch(*_first_batch(partition))
    assert list(columns.offsets) == [1]
    log_dir.close()


def _first_batch(partition: Partition) -> tuple[bytes, int, BatchHeader]:
    data = partition.read(0, size_bytes_max=1000).data
    return data, 0, parse_header(data)
