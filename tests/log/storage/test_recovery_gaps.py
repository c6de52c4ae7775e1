"""Where a recovery takes a gap between offsets for compaction's, and where for damage."""

from __future__ import annotations

import struct

import pytest

from millstream.log.errors import CorruptRecordError
from millstream.log.testing.sim_files import SimFiles
from shared.partitions import NOW_MS, batch, flush, log_file, new_partition, open_log


@pytest.mark.parametrize("offset", [4, 1 << 40])
def test_a_batch_beyond_the_recovery_point_is_damage(offset: int) -> None:
    """No checksum covers a batch's offset, and offsets of a segment are within 2^31 of its base."""
    files = SimFiles()
    log_dir, partition = new_partition(files)
    last = batch([b"last"])
    for data in (batch([b"a"]), batch([b"b"]), last):
        partition.append(data, NOW_MS)
    flush(partition)
    log_dir.close()  # the recovery point is 3
    handle = files.open(log_file(0))
    handle.overwrite(handle.size() - len(last), struct.pack(">q", offset))
    handle.fsync()
    with pytest.raises(CorruptRecordError, match=f"the batch at offset {offset} follows 2"):
        open_log(files)
