"""An offset index has no checksum: whatever it says, no record is passed over."""

from __future__ import annotations

from millstream.log.storage.memory_files import MemoryFiles
from shared.partitions import NOW_MS, batch, flush, log_file, new_partition, open_log


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


def _overwrite(files: MemoryFiles, path: str, whole: bytes, position: int, bit: int) -> None:
    damaged = bytearray(whole)
    damaged[position] ^= 1 << bit
    handle = files.open(path)
    handle.truncate(0)
    handle.append(bytes(damaged))
    handle.close()
