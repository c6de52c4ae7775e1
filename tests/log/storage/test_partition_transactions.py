"""Transactions in one partition: what a read_committed reader sees, and when."""

from __future__ import annotations

from shared.partitions import (
    NOW_MS,
    batch,
    end,
    flush,
    fresh,
    offsets,
    send,
    values,
)


def test_an_open_transaction_holds_the_last_stable_offset() -> None:
    partition = fresh()
    partition.append(batch([b"before"]), NOW_MS)
    send(partition, 1, 0, 0, b"in")
    partition.append(batch([b"beside"]), NOW_MS)
    flush(partition)
    assert offsets(partition) == (0, 1, 3, 3)
    assert partition.open_transactions() == {1: 0}
    assert values(partition, "read_committed") == [b"before"]
    assert values(partition) == [b"before", b"in", b"beside"]
    assert end(partition, 1, 1, commit=True) == 3
    assert partition.open_transactions() == {}
    assert partition.last_stable_offset == 1  # the marker may still be lost
    flush(partition)
    assert offsets(partition) == (0, 4, 4, 4)
    assert values(partition, "read_committed") == [b"before", b"in", b"beside"]


def test_aborted_records_are_named_to_the_reader() -> None:
    partition = fresh()
    send(partition, 1, 0, 0, b"no")
    send(partition, 2, 0, 0, b"yes")
    end(partition, 1, 1, commit=False)
    end(partition, 2, 1, commit=True)
    send(partition, 1, 1, 0, b"yes too")
    end(partition, 1, 2, commit=True)
    flush(partition)
    assert partition.read(0, size_bytes_max=10_000).aborted == ((1, 0),)
    assert partition.read(0, size_bytes_max=10_000, isolation="read_uncommitted").aborted == ()
    assert values(partition, "read_committed") == [b"yes", b"yes too"]


def test_an_abort_is_found_from_segments_before_its_marker() -> None:
    partition = fresh()
    send(partition, 1, 0, 0, b"no")
    for _ in range(30):
        partition.append(batch([b"x" * 50]), NOW_MS)
    end(partition, 1, 1, commit=False)
    for _ in range(30):
        partition.append(batch([b"x" * 50]), NOW_MS)
    send(partition, 2, 0, 0, b"no")
    end(partition, 2, 1, commit=False)
    flush(partition)
    assert partition.read(0, size_bytes_max=1).aborted == ((1, 0),)
    assert partition.read(15, size_bytes_max=1).aborted == ((1, 0),)
    assert partition.read(40, size_bytes_max=1).aborted == ()
    assert set(values(partition, "read_committed")) == {b"x" * 50}


def test_a_marker_is_written_once() -> None:
    partition = fresh()
    send(partition, 1, 0, 0, b"a")
    assert end(partition, 1, 1, commit=True) == 1
    assert end(partition, 1, 1, commit=True) == 1
    assert partition.log_end_offset == 2
