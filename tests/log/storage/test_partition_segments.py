"""When a partition begins a new segment, and what its index holds."""

from __future__ import annotations

from dataclasses import replace

from millstream.log.config import TopicConfig
from millstream.log.format.codec import encode_batch, parse_header
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.storage.segment import Segment
from shared.partitions import (
    FOLDER,
    NOW_MS,
    SMALL,
    batch,
    check_indexes,
    flush,
    fresh,
    new_partition,
    values,
)


def test_segments_roll_when_full() -> None:
    partition = fresh()
    for i in range(40):
        partition.append(batch([b"%d" % i]), NOW_MS)
    flush(partition)
    segments = list(partition._segments)
    assert len(segments) > 3
    assert all(segment.size_bytes <= SMALL.segment_bytes for segment in segments)
    assert values(partition) == [b"%d" % i for i in range(40)]
    check_indexes(partition)


def test_a_batch_larger_than_a_segment_has_one_of_its_own() -> None:
    partition = fresh()
    for name in (b"a", b"b" * 5000, b"c"):
        partition.append(batch([name]), NOW_MS)
    flush(partition)
    assert [segment.base_offset for segment in partition._segments] == [0, 1, 2]
    assert values(partition) == [b"a", b"b" * 5000, b"c"]


def test_an_index_entry_comes_after_more_than_the_interval() -> None:
    size_bytes = len(batch([b"a"]))
    config = replace(SMALL, segment_bytes=1 << 20, index_interval_bytes=2 * size_bytes)
    partition = fresh(config)
    for _ in range(10):
        partition.append(batch([b"a"]), NOW_MS)
    assert partition._segments.active.index.entries() == [
        (3, 3 * size_bytes),
        (6, 6 * size_bytes),
        (9, 9 * size_bytes),
    ]


def test_reading_over_offsets_that_compaction_took() -> None:
    partition = fresh(replace(SMALL, index_interval_bytes=1 << 20))
    partition.append(batch([b"a"]), NOW_MS)
    partition.log_end_offset = 5
    for name in (b"f", b"g"):
        partition.append(batch([name]), NOW_MS)
    running = partition.start_flush()
    assert running is not None
    partition.finish_flush(running, None)
    for offset in range(1, 6):
        data = partition.read(offset, size_bytes_max=1).data
        assert parse_header(data).base_offset == 5
    fetched = partition._segments.read(2, 5, 7, 1000)
    assert fetched == (b"", 5)


def test_segments_roll_by_the_time_of_their_records() -> None:
    partition = fresh(replace(SMALL, segment_ms=1000))
    for timestamp in (5_000, 6_000, 5_500, 6_001, 7_001, 7_002):
        partition.append(batch([b"a"], timestamp=timestamp), NOW_MS)
    assert [segment.base_offset for segment in partition._segments] == [0, 3, 5]


def ages(config: TopicConfig, folder: str = FOLDER) -> list[int]:
    """How long each of the first segments is appended to."""
    files = MemoryFiles()
    return [Segment(files, folder, base).age_max_ms(config) for base in range(50)]


def test_jitter_is_another_for_each_segment_and_the_same_again() -> None:
    config = replace(SMALL, segment_ms=1000, segment_jitter_ms=300)
    drawn = ages(config)
    assert all(700 < age <= 1000 for age in drawn)
    assert len(set(drawn)) > 30
    assert ages(config) == drawn
    assert ages(config, "/other/root/orders-0") == drawn  # wherever the log lies
    assert ages(config, "orders-0") == drawn
    assert ages(config, f"{FOLDER[:-1]}1") != drawn
    # More jitter than time: still some time is left.
    assert all(0 < age <= 1000 for age in ages(replace(config, segment_jitter_ms=10**9)))


def test_jitter_closes_a_segment_earlier() -> None:
    config = replace(SMALL, segment_ms=1000, segment_jitter_ms=900)
    partition = fresh(config)
    age = partition._segments.active.age_max_ms(config)
    for timestamp in (5_000, 5_000 + age, 5_001 + age):
        partition.append(batch([b"a"], timestamp=timestamp), NOW_MS)
    assert [segment.base_offset for segment in partition._segments] == [0, 2]


def test_a_compacted_topic_closes_segments_for_the_longest_lag() -> None:
    config = replace(SMALL, segment_ms=1000, max_compaction_lag_ms=200)
    for policy, bases in ((("delete",), [0]), (("compact",), [0, 2])):
        partition = fresh(replace(config, cleanup_policy=policy))
        for timestamp in (5_000, 5_200, 5_201):
            data = encode_batch([b"k"], [b"v"], [timestamp], None, 0, 1)
            partition.append(data, NOW_MS)
        assert [segment.base_offset for segment in partition._segments] == bases


def test_segments_without_times_roll_by_the_clock() -> None:
    partition = fresh(replace(SMALL, segment_ms=1000))
    for now_ms in (5_000, 6_000, 6_001, 7_000):
        partition.append(batch([b"a"], timestamp=-1), now_ms)
    assert [segment.base_offset for segment in partition._segments] == [0, 2]


def test_markers_do_not_roll_by_the_records_time() -> None:
    """A marker has the wall clock's time, the records beside it may be years old."""
    partition = fresh(replace(SMALL, segment_ms=1000))
    for epoch in range(3):
        sent = batch(
            [b"a"], producer_id=1, epoch=epoch, sequence=0, transactional=True, timestamp=5
        )
        partition.append(sent, NOW_MS)
        partition.append_marker(1, epoch + 1, commit=True, coordinator_epoch=0, now_ms=NOW_MS)
    assert len(partition._segments) == 1


def test_segments_roll_when_an_index_is_full() -> None:
    config = replace(SMALL, segment_bytes=1 << 20, index_interval_bytes=0, segment_index_bytes=40)
    partition = fresh(config)
    for i in range(20):
        partition.append(batch([b"a"], timestamp=i), NOW_MS)
    flush(partition)
    assert all(1 <= segment.time_index.count <= 3 for segment in partition._segments)
    assert len(partition._segments) > 3
    assert len(values(partition)) == 20


def test_segments_roll_before_offsets_outgrow_the_index() -> None:
    partition = fresh()
    partition.append(batch([b"a"]), NOW_MS)
    partition.log_end_offset = (1 << 31) - 1
    partition.append(batch([b"b"]), NOW_MS)
    assert len(partition._segments) == 1
    partition.append(batch([b"c"]), NOW_MS)
    assert [segment.base_offset for segment in partition._segments] == [0, 1 << 31]


def test_an_active_segment_of_deleted_records_goes_when_another_takes_its_place() -> None:
    files = MemoryFiles()
    log_dir, partition = new_partition(files)
    for _ in range(2):
        partition.append(batch([b"b" * 5000]), NOW_MS)  # a segment of its own
        flush(partition)
        partition.delete_records(1)
    assert [segment.base_offset for segment in partition._segments] == [1]
    log_dir.checkpoint()
    assert [name for name in files.list_dir(FOLDER) if name.endswith(".log")] == [f"{1:020d}.log"]
