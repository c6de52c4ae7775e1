"""Building batches for a partition, reading it as a consumer does, and checking its indexes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from millstream.log.config import TopicConfig
from millstream.log.format.codec import (
    BatchHeader,
    Columns,
    check_batch,
    decode_batch,
    encode_batch,
    parse_header,
)
from millstream.log.format.control import control_type
from millstream.log.record import TopicPartition
from millstream.log.storage.files import Files
from millstream.log.storage.layout import offset_file
from millstream.log.storage.log_dir import LogDir
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.storage.partition import Partition
from millstream.log.storage.producer_state import ProducerState
from millstream.log.storage.replay import note
from millstream.log.storage.segment import Segment

TOPIC = "orders"
PARTITION = TopicPartition(TOPIC, 0)
ROOT = "/data/log"
FOLDER = f"{ROOT}/{PARTITION}"
NOW_MS = 1_700_000_000_000

SMALL = TopicConfig(segment_bytes=700, index_interval_bytes=150)
"""A few batches fill a segment."""


def batch(
    values: list[bytes],
    *,
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    transactional: bool = False,
    timestamp: int = NOW_MS,
    compression: int = 0,
) -> bytes:
    """One record for each value, a millisecond apart."""
    return encode_batch(
        None,
        values,
        [timestamp + i for i in range(len(values))],
        None,
        0,
        len(values),
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
        transactional=transactional,
        compression=compression,
    )


def flush(partition: Partition) -> None:
    """Start a flush, run it and finish it, as the broker does with a thread in between."""
    running = partition.start_flush()
    if running is not None:
        try:
            running.run()
        except OSError as error:
            partition.finish_flush(running, error)
        else:
            partition.finish_flush(running, None)


def open_log(
    files: Files, root: str = ROOT, *, config: TopicConfig = SMALL, durability: str = "fsync"
) -> LogDir:
    """Open the log with its one topic, as it is."""
    log_dir = LogDir.open(files, root, durability=durability, now_ms=NOW_MS)
    try:
        log_dir.load({TOPIC: config})
    except BaseException:
        log_dir.close(clean=False)
        raise
    return log_dir


def new_partition(
    files: Files, root: str = ROOT, *, config: TopicConfig = SMALL, durability: str = "fsync"
) -> tuple[LogDir, Partition]:
    """A new log with one partition."""
    log_dir = open_log(files, root, config=config, durability=durability)
    partition = log_dir.create_partition(
        PARTITION, config, topic_id="mD3CLkLrRUaWSiLQkBNZCg", now_ms=NOW_MS
    )
    return log_dir, partition


def delete_topic(log_dir: LogDir, topic: str = TOPIC) -> None:
    """Remove the partitions of a topic, as the broker does."""
    keys = [each for each in log_dir.partitions if each.topic == topic]
    log_dir.remove(log_dir.detach(keys), "old-id")


class Read(NamedTuple):
    """One record as read."""

    offset: int
    producer_id: int
    value: bytes


def visible_batches(
    partition: Partition, start: int, isolation: str, *, size_bytes_max: int, gaps: bool
) -> Iterator[tuple[BatchHeader, Columns]]:
    """What a consumer gets from `start` on, which must reach the end: batches whose checksums are
    right, without those of aborted transactions. `gaps`: a compaction may have left some."""
    committed = isolation == "read_committed"
    offset = start
    end = partition.last_stable_offset if committed else partition.high_watermark
    while offset < end:
        result = partition.read(offset, size_bytes_max=size_bytes_max, isolation=isolation)
        assert result.data, f"nothing at {offset} below {end}"
        waiting = sorted(result.aborted, key=lambda aborted: aborted[1], reverse=True)
        aborting: set[int] = set()
        position = 0
        while position < len(result.data):
            header = parse_header(result.data, position)
            check_batch(result.data, position, header)
            assert offset <= header.last_offset < end
            assert gaps or header.base_offset <= offset
            while waiting and waiting[-1][1] <= header.last_offset:
                aborting.add(waiting.pop()[0])
            columns = decode_batch(result.data, position, header)
            if header.is_control:
                if control_type(columns) == "abort":
                    aborting.discard(header.producer_id)
            elif not (committed and header.is_transactional and header.producer_id in aborting):
                yield header, columns
            offset = header.last_offset + 1
            position += header.size_bytes


def read_all(
    partition: Partition, isolation: str = "read_committed", *, size_bytes_max: int = 300
) -> list[Read]:
    """Everything a consumer gets, from the log start offset on."""
    start = partition.log_start_offset
    return [
        Read(offset, header.producer_id, value or b"")
        for header, columns in visible_batches(
            partition, start, isolation, size_bytes_max=size_bytes_max, gaps=False
        )
        for offset, value in zip(columns.offsets, columns.values, strict=True)
        if offset >= start
    ]


def headers(segment: Segment) -> list[tuple[int, BatchHeader, bytes]]:
    """Position, header and bytes of every batch in a segment's file."""
    data = segment.read(0, segment.size_bytes)
    found, position = [], 0
    while position < len(data):
        header = parse_header(data, position)
        check_batch(data, position, header)
        found.append((position, header, data[position : position + header.size_bytes]))
        position += header.size_bytes
    return found


def check_indexes(partition: Partition, *, check_aborted: bool = True) -> None:
    """Every index says what a scan of the batches says, and lacks nothing. After a compaction the
    transaction index goes back to batches that are gone: leave it out then."""
    interval = partition.config.index_interval_bytes
    state = ProducerState(partition.topic_partition)
    # Otherwise transactions may have begun before.
    known = check_aborted and partition._segments.first.base_offset == 0
    for segment in partition._segments:
        offsets, aborted, unindexed, largest = [], [], 0, (-1, segment.base_offset)
        running = [largest]
        for position, header, data in headers(segment):
            if header.max_timestamp > largest[0] and not header.is_control:
                largest = (header.max_timestamp, header.last_offset)
                running.append(largest)
            if unindexed > interval:
                offsets.append((header.last_offset, position))
                unindexed = 0
            unindexed += header.size_bytes
            ended = note(state, header, data, NOW_MS)
            if ended is not None:
                aborted.append(ended)
        assert segment.index.entries() == offsets, segment
        times = segment.time_index.entries()
        assert times == sorted(set(times)), segment
        assert set(times) <= set(running), segment
        assert segment.largest_timestamp == largest[0], segment
        if segment is not partition._segments.active and largest[0] >= 0:
            assert times[-1] == largest, segment
        if known:
            assert segment.txn_index.entries() == aborted, segment


def log_file(base_offset: int, suffix: str = ".log") -> str:
    """Path of a file of the partition."""
    return offset_file(FOLDER, base_offset, suffix)


def fresh(config: TopicConfig = SMALL, durability: str = "fsync") -> Partition:
    """A new partition in memory."""
    return new_partition(MemoryFiles(), config=config, durability=durability)[1]


def values(partition: Partition, isolation: str = "read_uncommitted") -> list[bytes]:
    """The values a consumer gets."""
    return [read.value for read in read_all(partition, isolation)]


def offsets(partition: Partition) -> tuple[int, int, int, int]:
    """The four that are always in this order."""
    return (
        partition.log_start_offset,
        partition.last_stable_offset,
        partition.high_watermark,
        partition.log_end_offset,
    )


def send(partition: Partition, producer_id: int, epoch: int, sequence: int, value: bytes) -> int:
    """Append one transactional record; its offset."""
    sent = batch(
        [value], producer_id=producer_id, epoch=epoch, sequence=sequence, transactional=True
    )
    return partition.append(sent, NOW_MS).base_offset


def end(partition: Partition, producer_id: int, epoch: int, *, commit: bool) -> int:
    """End a transaction; the marker's offset."""
    return partition.append_marker(
        producer_id, epoch, commit=commit, coordinator_epoch=0, now_ms=NOW_MS
    )
