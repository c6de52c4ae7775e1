"""An offset index has no checksum: whatever it says, no record is passed over."""

from __future__ import annotations

from millstream.log.config import TopicConfig
from millstream.log.storage.memory_files import MemoryFiles
from shared.compacting import COMPACTED, Keyed, compact, keyed
from shared.partitions import (
    NOW_MS,
    batch,
    flush,
    log_file,
    new_partition,
    open_log,
    read_all,
)


def test_a_flipped_bit_hides_no_records() -> None:
    files = MemoryFiles()
    log_dir, partition = new_partition(files)
    for number in range(9):
        partition.append(batch([b"%d" % number * 40], timestamp=NOW_MS + number), NOW_MS)
    flush(partition)
    log_dir.close()
    path = log_file(0, ".index")
    whole = files.read_whole(path)
    assert len(whole) >= 16
    for position in range(len(whole)):
        for bit in range(8):
            _overwrite(files, path, whole, position, bit)
            log_dir = open_log(files)
            (partition,) = log_dir.partitions.values()
            for offset in range(9):
                data = partition.read(offset, size_bytes_max=1).data
                assert int.from_bytes(data[:8], "big") == offset, (position, bit)
                assert partition.offset_for_time(NOW_MS + offset) == offset, (position, bit)
            assert partition.max_timestamp() == (8, NOW_MS + 8), (position, bit)
            log_dir.close()


def test_a_flipped_bit_cuts_no_batch() -> None:
    """Where a read of many batches ends is looked up too."""
    files, config = MemoryFiles(), TopicConfig(index_interval_bytes=500)
    log_dir, partition = new_partition(files, config=config)
    for number in range(1200):
        partition.append(batch([b"%d" % number]), NOW_MS)
    flush(partition)
    log_dir.close()
    path, size_bytes = log_file(0, ".index"), files.size(log_file(0))
    whole = files.read_whole(path)
    around = len(whole) * 30_000 // size_bytes
    for position in range(around - 40, around + 8):
        _overwrite(files, path, whole, position, 3)
        log_dir = open_log(files, config=config)
        (partition,) = log_dir.partitions.values()
        assert len(read_all(partition, size_bytes_max=30_000)) == 1200
        log_dir.close()


def test_compaction_keeps_the_last_batch_of_a_segment_all_the_same() -> None:
    """A start goes by it when it finishes what a crash cut short."""
    files = MemoryFiles()
    log_dir, partition = new_partition(files, config=COMPACTED)
    for _ in range(3):
        for number in range(9):
            partition.append(keyed([Keyed(b"%d" % number, b"." * 40)]), NOW_MS)
        partition._close_active()
        flush(partition)
    log_dir.close()
    for base_offset in (0, 9, 18):
        path = log_file(base_offset, ".index")
        whole = files.read_whole(path)
        _overwrite(files, path, whole, len(whole) - 4, 6)
    log_dir = open_log(files, config=COMPACTED)
    (partition,) = log_dir.partitions.values()
    stats = compact(partition, NOW_MS)
    assert stats is not None
    assert (stats.outcome, stats.segments_written) == ("cleaned", 2)
    for segment, end in partition._segments.with_ends(partition.log_end_offset):
        for _, header in segment.batches():
            following = header.last_offset + 1
        assert following == end


def _overwrite(files: MemoryFiles, path: str, whole: bytes, position: int, bit: int) -> None:
    damaged = bytearray(whole)
    damaged[position] ^= 1 << bit
    handle = files.open(path)
    handle.truncate(0)
    handle.append(bytes(damaged))
    handle.close()
