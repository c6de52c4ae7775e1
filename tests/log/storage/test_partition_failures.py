"""A partition on a disk that fails."""

from __future__ import annotations

from typing import Literal

import pytest

from millstream.log.errors import (
    StorageError,
)
from millstream.log.testing.sim_files import Operation, SimFiles, disk_error
from shared.partitions import (
    NOW_MS,
    batch,
    end,
    flush,
    new_partition,
    offsets,
    values,
)


def failing_once(kind: str, code: Literal["EIO", "ENOSPC"] = "EIO") -> SimFiles:
    """A disk whose next operation of this kind fails, once it is armed."""
    files = SimFiles()

    def fail(operation: Operation) -> OSError | None:
        if operation.kind != kind or not operation.path.endswith(".log"):
            return None
        files.on_operation = None
        return disk_error(code, operation.path)

    files.on_operation = fail
    return files


def test_after_a_failed_fsync_writes_are_refused() -> None:
    files = failing_once("fsync")
    fail, files.on_operation = files.on_operation, None
    partition = new_partition(files)[1]
    partition.append(batch([b"kept"]), NOW_MS)
    flush(partition)
    files.on_operation = fail
    partition.append(batch([b"in doubt"]), NOW_MS)
    flush(partition)
    assert partition.failed
    assert not partition.unflushed
    assert partition.start_flush() is None
    assert offsets(partition) == (0, 1, 1, 2)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"takes no more writes.*Input/output error"):
            partition.append(batch([b"x"]), NOW_MS)
    with pytest.raises(StorageError):
        end(partition, 1, 1, commit=True)
    assert values(partition) == [b"kept"]
    with pytest.raises(StorageError):
        partition.close(clean=True)


def test_after_a_failed_write_what_came_before_can_still_be_flushed() -> None:
    files = failing_once("append")
    fail, files.on_operation = files.on_operation, None
    partition = new_partition(files)[1]
    partition.append(batch([b"whole"]), NOW_MS)
    files.on_operation = fail
    with pytest.raises(StorageError, match="Input/output error"):
        partition.append(batch([b"torn"]), NOW_MS)
    with pytest.raises(StorageError):
        partition.append(batch([b"refused"]), NOW_MS)
    flush(partition)
    assert offsets(partition) == (0, 1, 1, 1)
    assert values(partition) == [b"whole"]


def test_a_failed_read_surfaces_and_may_be_tried_again() -> None:
    files = failing_once("read")
    fail, files.on_operation = files.on_operation, None
    partition = new_partition(files)[1]
    partition.append(batch([b"a"]), NOW_MS)
    flush(partition)
    files.on_operation = fail
    with pytest.raises(StorageError, match="could not be read"):
        partition.read(0, size_bytes_max=100)
    assert values(partition) == [b"a"]
    files.on_operation = fail
    with pytest.raises(StorageError, match="could not be read"):
        partition.offset_for_time(0)
