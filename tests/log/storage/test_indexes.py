"""The three indexes of a segment: Kafka's bytes; the same answers from memory and the file."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.storage.offset_index import OffsetIndex
from millstream.log.storage.time_index import TimeIndex
from millstream.log.storage.txn_index import AbortedTransaction, TxnIndex

BASE = 1000


def test_offset_index_is_written_as_kafka_writes_it() -> None:
    files = MemoryFiles()
    index = OffsetIndex(files, "/a.index", BASE)
    index.append(BASE + 7, 4_200)
    index.append(BASE + 300, 9_000)
    assert not files.exists("/a.index")
    index.seal()
    assert files.read_whole("/a.index").hex() == "00000007000010680000012c00002328"


def test_time_index_is_written_as_kafka_writes_it() -> None:
    files = MemoryFiles()
    index = TimeIndex(files, "/a.timeindex", BASE)
    index.append(1_700_000_000_000, BASE + 7)
    index.seal()
    assert files.read_whole("/a.timeindex").hex() == "0000018bcfe5680000000007"


def test_txn_index_is_written_as_kafka_writes_it() -> None:
    files = MemoryFiles()
    index = TxnIndex(files, "/a.txnindex")
    index.append(AbortedTransaction(42, 1003, 1009, 1001))
    index.seal()
    assert files.read_whole("/a.txnindex").hex() == (
        "0000000000000000002a00000000000003eb00000000000003f100000000000003e9"
    )


def test_no_file_for_no_aborted_transaction() -> None:
    files = MemoryFiles()
    index = TxnIndex(files, "/a.txnindex")
    index.seal()
    assert index.count == 0
    assert not files.exists("/a.txnindex")


entries = st.lists(st.tuples(st.integers(1, 50), st.integers(1, 5_000)), min_size=0, max_size=40)


@given(steps=entries, sealed_after=st.integers(0, 40))
def test_offset_index_finds_the_same_in_memory_and_in_the_file(
    steps: list[tuple[int, int]], sealed_after: int
) -> None:
    files = MemoryFiles()
    index = OffsetIndex(files, "/a.index", BASE)
    model: list[tuple[int, int]] = []
    offset, position = BASE, 0
    for number, (offsets, size_bytes) in enumerate(steps):
        if number == sealed_after:
            index.seal()
        offset, position = offset + offsets, position + size_bytes
        index.append(offset, position)
        model.append((offset, position))
    reopened = OffsetIndex(files, "/a.index", BASE)
    assert index.entries() == model
    assert index.count == len(model)
    assert index.last() == (model[-1] if model else None)
    assert reopened.entries() == (model[:sealed_after] if sealed_after < len(model) else [])
    for last, at in model:
        for wanted in (last - 1, last, last + 1):
            below = [p for o, p in model if o <= wanted]
            assert index.floor(wanted) == (below[-1] if below else 0)
            for at_most in (at - 1, at, at + 1):
                below = [p for o, p in model if o < wanted and p <= at_most]
                assert index.start_below(wanted, at_most) == (below[-1] if below else 0)


@given(
    times=st.lists(st.integers(-1, 1_000), max_size=40),
    sealed_after=st.integers(0, 40),
    wanted=st.integers(-5, 1_005),
)
def test_time_index_keeps_the_largest_so_far(
    times: list[int], sealed_after: int, wanted: int
) -> None:
    index = TimeIndex(MemoryFiles(), "/a.timeindex", BASE)
    model: list[tuple[int, int]] = []
    for number, time in enumerate(times):
        if number == sealed_after:
            index.seal()
        index.append(time, BASE + number)
        if time >= 0 and (not model or time > model[-1][0]):
            model.append((time, BASE + number))
    assert index.entries() == model
    assert index.last() == (model[-1] if model else None)
    below = [offset for time, offset in model if time <= wanted]
    assert index.floor(wanted) == (below[-1] if below else BASE)


def test_a_cleared_index_is_written_anew() -> None:
    files = MemoryFiles()
    index = OffsetIndex(files, "/a.index", BASE)
    for i in range(10):
        index.append(BASE + i, i * 100)
    index.seal()
    index = OffsetIndex(files, "/a.index", BASE)
    index.clear()
    assert index.entries() == []
    index.append(BASE + 1, 50)
    assert index.floor(BASE + 9) == 50
    index.seal()
    assert OffsetIndex(files, "/a.index", BASE).entries() == [(BASE + 1, 50)]


def test_overlapping_aborted_transactions() -> None:
    index = TxnIndex(MemoryFiles(), "/a.txnindex")
    first, second = AbortedTransaction(1, 10, 20, 10), AbortedTransaction(2, 15, 30, 31)
    index.append(first)
    index.append(second)
    assert list(index.overlapping(0, 10)) == []
    assert list(index.overlapping(0, 11)) == [first]
    assert list(index.overlapping(20, 21)) == [first, second]
    assert list(index.overlapping(21, 99)) == [second]
    assert list(index.overlapping(31, 99)) == []
    assert index.ends_search(31)
    assert not index.ends_search(32)


def test_a_cleared_transaction_index_is_empty_on_the_disk_too() -> None:
    """Recovery cut the transaction off; the next opening must not find it again."""
    files = MemoryFiles()
    before = TxnIndex(files, "x.txnindex")
    before.append(AbortedTransaction(1, 10, 20, 10))
    before.seal()
    recovered = TxnIndex(files, "x.txnindex")
    recovered.clear()
    recovered.seal()
    assert TxnIndex(files, "x.txnindex").entries() == []
    recovered.seal()  # nothing is left to take
    assert files.size("x.txnindex") == 0


def test_a_transaction_index_that_never_was_makes_no_file() -> None:
    files = MemoryFiles()
    index = TxnIndex(files, "x.txnindex")
    index.clear()
    index.seal()
    assert not files.exists("x.txnindex")
