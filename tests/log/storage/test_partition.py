"""One partition on a disk in memory: what may be written, what can be read, and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from millstream.log.errors import (
    CorruptRecordError,
    LogClosedError,
    OffsetOutOfRangeError,
    RecordTooLargeError,
)
from millstream.log.format.codec import decode_batch, parse_header
from millstream.log.format.control import encode_control_batch
from millstream.log.storage.memory_files import MemoryFiles
from shared.partitions import (
    NOW_MS,
    SMALL,
    batch,
    end,
    flush,
    fresh,
    new_partition,
    offsets,
    read_all,
    send,
    values,
)


def test_nothing_is_readable_before_the_flush() -> None:
    partition = fresh()
    info = partition.append(batch([b"a", b"b"]), NOW_MS)
    assert info == (0, 1, -1, False)
    assert offsets(partition) == (0, 0, 0, 2)
    assert partition.unflushed
    assert partition.read(0, size_bytes_max=1000).data == b""
    flush(partition)
    assert offsets(partition) == (0, 2, 2, 2)
    assert not partition.unflushed
    assert values(partition) == [b"a", b"b"]


def test_a_flush_covers_what_was_there_when_it_began() -> None:
    partition = fresh()
    partition.append(batch([b"a"]), NOW_MS)
    running = partition.start_flush()
    assert running is not None
    assert running.offset == 1
    partition.append(batch([b"b"]), NOW_MS)
    assert partition.start_flush() is None  # one at a time
    running.run()
    partition.finish_flush(running, None)
    assert offsets(partition) == (0, 1, 1, 2)
    assert values(partition) == [b"a"]
    flush(partition)
    assert values(partition) == [b"a", b"b"]
    assert partition.start_flush() is None


def test_durability_os_acknowledges_at_once() -> None:
    partition = fresh(durability="os")
    partition.append(batch([b"a"]), NOW_MS)
    assert offsets(partition) == (0, 1, 1, 1)
    assert not partition.unflushed
    assert partition.start_flush() is None


def test_durability_os_flushes_closed_segments() -> None:
    partition = fresh(durability="os")
    while not partition.unflushed:
        partition.append(batch([b"a" * 50]), NOW_MS)
    running = partition.start_flush()
    assert running is not None
    assert running.offset == partition.log_end_offset - 1
    running.run()
    partition.finish_flush(running, None)
    assert partition.recovery_point == partition.log_end_offset - 1
    assert not partition.unflushed


def test_the_broker_sets_offset_and_leader_epoch_and_nothing_else() -> None:
    partition = fresh()
    sent = batch([b"a", b"b"])
    for _ in range(2):
        partition.append(sent, NOW_MS)
    flush(partition)
    data = partition.read(2, size_bytes_max=1).data
    header = parse_header(data)
    assert (header.base_offset, header.leader_epoch) == (2, 0)
    assert data[8:12] + data[16:] == sent[8:12] + sent[16:]


def test_the_first_batch_comes_whole_however_small_the_limit() -> None:
    partition = fresh()
    for name in (b"a", b"b" * 300, b"c"):
        partition.append(batch([name]), NOW_MS)
    flush(partition)
    sizes = [len(batch([name])) for name in (b"a", b"b" * 300, b"c")]
    assert len(partition.read(0, size_bytes_max=1).data) == sizes[0]
    assert len(partition.read(1, size_bytes_max=1).data) == sizes[1]
    assert len(partition.read(0, size_bytes_max=sizes[0] + sizes[1] - 1).data) == sizes[0]
    assert len(partition.read(0, size_bytes_max=sizes[0] + sizes[1]).data) == sum(sizes[:2])


def test_a_batch_may_begin_before_the_offset_asked_for() -> None:
    partition = fresh()
    partition.append(batch([b"a", b"b", b"c"]), NOW_MS)
    flush(partition)
    assert parse_header(partition.read(2, size_bytes_max=1000).data).base_offset == 0


def test_reading_where_there_is_nothing() -> None:
    partition = fresh()
    partition.append(batch([b"a", b"b"]), NOW_MS)
    assert partition.read(2, size_bytes_max=10).data == b""
    for offset in (-1, 3):
        with pytest.raises(OffsetOutOfRangeError, match=f"orders-0: offset {offset} .* 0 to 2"):
            partition.read(offset, size_bytes_max=10)


def test_a_read_says_whether_there_is_more() -> None:
    partition = fresh()
    for _ in range(20):
        partition.append(batch([b"x" * 100]), NOW_MS)
    assert not partition.read(0, size_bytes_max=1 << 20).has_more, "nothing is readable yet"
    flush(partition)
    assert partition.segment_count > 1
    assert partition.read(0, size_bytes_max=200).has_more
    assert partition.read(0, size_bytes_max=1 << 20).has_more, "in the next segment"
    assert not partition.read(19, size_bytes_max=1 << 20).has_more
    assert not partition.read(20, size_bytes_max=1 << 20).has_more


def test_only_the_offsets_are_read() -> None:
    partition = fresh()
    partition.append(batch([b"a", b"b"]), NOW_MS)
    flush(partition)
    found = partition.read(1, size_bytes_max=-1)
    assert (found.data, found.high_watermark, found.has_more) == (b"", 2, True)
    with pytest.raises(OffsetOutOfRangeError):
        partition.read(3, size_bytes_max=-1)


def test_many_small_batches_are_read_whole() -> None:
    """More than are walked through one by one: the index says where to begin."""
    partition = fresh(replace(SMALL, segment_bytes=1 << 20, index_interval_bytes=500))
    for i in range(1_000):
        partition.append(batch([b"%d" % i]), NOW_MS)
        if i == 900:
            flush(partition)
    wanted = [b"%d" % i for i in range(901)]
    for size_bytes_max in (500, 30_000, 1 << 20):
        found = [read.value for read in read_all(partition, size_bytes_max=size_bytes_max)]
        assert found == wanted
    flush(partition)
    partition._segments.active.seal()
    assert len(read_all(partition, size_bytes_max=40_000)) == 1_000


@pytest.mark.parametrize("compression", range(5))
def test_compressed_batches_pass_through(compression: int) -> None:
    partition = fresh()
    sent = batch([b"a" * 100, b"b" * 100], compression=compression)
    partition.append(sent, NOW_MS)
    flush(partition)
    assert values(partition) == [b"a" * 100, b"b" * 100]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda sent: sent[:-1], "too early"),
        (lambda sent: sent + b"x", "bytes were sent"),
        (lambda sent: sent + sent, "bytes were sent"),
        (lambda sent: sent[:30] + b"\xff" + sent[31:], "CRC"),
        (lambda sent: b"", "61 bytes"),
        (lambda sent: bytes(len(sent)), "magic"),
    ],
)
def test_damaged_batches_are_refused(what: Callable[[bytes], bytes], message: str) -> None:
    partition = fresh()
    with pytest.raises(CorruptRecordError, match=message):
        partition.append(what(batch([b"a"])), NOW_MS)
    assert partition.log_end_offset == 0
    partition.append(batch([b"a"]), NOW_MS)


def test_control_batches_are_not_taken_from_clients() -> None:
    marker = encode_control_batch(
        producer_id=1, producer_epoch=0, commit=True, coordinator_epoch=0, timestamp=0
    )
    with pytest.raises(CorruptRecordError, match="control batch"):
        fresh().append(marker, NOW_MS)


@pytest.mark.parametrize(
    "sent",
    [batch([b"a"], producer_id=1), batch([b"a"], transactional=True)],
    ids=["no sequence", "no producer"],
)
def test_half_an_identity_is_refused(sent: bytes) -> None:
    with pytest.raises(CorruptRecordError, match="producer id"):
        fresh().append(sent, NOW_MS)


def test_a_batch_over_the_limit_is_refused() -> None:
    sent = batch([b"x" * 500])
    partition = fresh(replace(SMALL, max_message_bytes=len(sent) - 1))
    with pytest.raises(RecordTooLargeError, match=r"orders-0.*max\.message\.bytes is"):
        partition.append(sent, NOW_MS)
    fresh(replace(SMALL, max_message_bytes=len(sent))).append(sent, NOW_MS)


def test_log_append_time() -> None:
    partition = fresh(replace(SMALL, message_timestamp_type="LogAppendTime"))
    assert partition.append(batch([b"a", b"b"], timestamp=5), NOW_MS).timestamp == NOW_MS
    flush(partition)
    data = partition.read(0, size_bytes_max=1000).data
    header = parse_header(data)
    assert header.is_log_append_time
    assert decode_batch(data, 0, header).timestamps == [NOW_MS, NOW_MS]
    assert values(partition) == [b"a", b"b"]  # checks the checksum
    assert partition.offset_for_time(NOW_MS) == 0


def test_a_duplicate_is_answered_with_the_original_offset() -> None:
    partition = fresh()
    first = batch([b"a", b"b"], producer_id=1, epoch=0, sequence=0)
    partition.append(first, NOW_MS)
    partition.append(batch([b"c"], producer_id=1, epoch=0, sequence=2), NOW_MS)
    assert partition.append(first, NOW_MS) == (0, 1, -1, True)
    flush(partition)
    assert values(partition) == [b"a", b"b", b"c"]


def test_offset_for_time() -> None:
    partition = fresh()
    times = [50, 10, 70, 30, 90, 90, 20, 110] * 6
    for i, time in enumerate(times):
        partition.append(batch([b"x"], timestamp=time + i), NOW_MS)
    assert partition.offset_for_time(0) is None  # nothing is readable yet
    flush(partition)
    stamped = [time + i for i, time in enumerate(times)]
    for wanted in range(0, 170, 3):
        first = next((i for i, time in enumerate(stamped) if time >= wanted), None)
        assert partition.offset_for_time(wanted) == first, wanted


def test_offset_for_time_looks_inside_batches_and_past_markers() -> None:
    partition = fresh()
    partition.append(batch([b"a"] * 5, timestamp=100), NOW_MS)
    sent = batch([b"a"], producer_id=1, epoch=0, sequence=0, transactional=True, timestamp=200)
    partition.append(sent, NOW_MS)
    end(partition, 1, 1, commit=True)
    flush(partition)
    assert partition.offset_for_time(103) == 3
    assert partition.offset_for_time(105) == 5
    assert partition.offset_for_time(201) is None


def test_delete_records_hides_at_once() -> None:
    partition = fresh()
    for i in range(40):
        partition.append(batch([b"%d" % i]), NOW_MS)
    with pytest.raises(OffsetOutOfRangeError, match="before 7 cannot be deleted"):
        partition.delete_records(7)
    flush(partition)
    assert partition.delete_records(17) == 17
    assert partition.delete_records(5) == 17
    assert values(partition) == [b"%d" % i for i in range(17, 40)]
    with pytest.raises(OffsetOutOfRangeError):
        partition.read(16, size_bytes_max=10)
    assert partition.offset_for_time(0) == 17
    assert partition.delete_records(40) == 40
    assert offsets(partition) == (40, 40, 40, 40)
    assert len(partition._segments) == 1


def test_delete_records_under_an_open_transaction() -> None:
    partition = fresh()
    send(partition, 1, 0, 0, b"a")
    send(partition, 1, 0, 1, b"b")
    flush(partition)
    assert offsets(partition) == (0, 0, 2, 2)
    partition.delete_records(1)
    assert offsets(partition) == (1, 1, 2, 2)


def test_segments_dropped_during_a_flush_are_kept_open_until_it_ends() -> None:
    partition = fresh(durability="os")
    for i in range(40):
        partition.append(batch([b"%d" % i]), NOW_MS)
    running = partition.start_flush()
    assert running is not None
    partition.delete_records(40)
    assert partition.take_dropped() == []
    running.run()
    partition.finish_flush(running, None)
    assert len(partition.take_dropped()) == 3
    assert partition.take_dropped() == []


def test_damage_in_the_middle_is_named() -> None:
    files = MemoryFiles()
    partition = new_partition(files)[1]
    for _ in range(3):
        partition.append(batch([b"a"]), NOW_MS)
    flush(partition)
    handle = files.open(partition._segments.active.path)
    handle.overwrite(len(batch([b"a"])) + 8, b"\xff\xff\xff\xff")
    with pytest.raises(CorruptRecordError, match=r"000\.log at position 69: .*restore"):
        partition.read(0, size_bytes_max=len(batch([b"a"])) * 3 - 1)


def test_a_closed_partition_says_so() -> None:
    partition = fresh()
    partition.append(batch([b"a"]), NOW_MS)
    partition.close()
    partition.close()
    for use in (
        lambda: partition.append(batch([b"a"]), NOW_MS),
        lambda: partition.read(0, size_bytes_max=1),
        lambda: partition.delete_records(0),
    ):
        with pytest.raises(LogClosedError, match="open the log again"):
            use()


def test_closing_during_a_flush_waits_with_the_files() -> None:
    partition = fresh()
    partition.append(batch([b"a"]), NOW_MS)
    running = partition.start_flush()
    assert running is not None
    partition.close(clean=False)
    running.run()
    partition.finish_flush(running, None)
    assert partition.start_flush() is None


def test_expired_producers_are_forgotten() -> None:
    partition = fresh()
    partition.append(batch([b"a"], producer_id=1, epoch=0, sequence=0, timestamp=5), NOW_MS)
    partition.expire_producers(NOW_MS - 1)
    assert partition.append(batch([b"a"], producer_id=1, epoch=0, sequence=0), NOW_MS).duplicate
    partition.expire_producers(NOW_MS)
    assert not partition.append(batch([b"a"], producer_id=1, epoch=0, sequence=0), NOW_MS).duplicate
