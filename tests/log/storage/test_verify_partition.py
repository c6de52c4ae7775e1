"""What verify says of a partition that no crash and no flipped bit explains: batches that should
not have been written, snapshots and indexes that are whole and wrong."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from millstream.log.format.codec import encode_batch, parse_header
from millstream.log.format.control import encode_control_batch
from millstream.log.record import TopicPartition
from millstream.log.storage.appending import placed
from millstream.log.storage.checkpoints import encode_leader_epochs
from millstream.log.storage.files import write_file
from millstream.log.storage.findings import Finding
from millstream.log.storage.layout import LEADER_EPOCHS, SNAPSHOT, TIME_INDEX, offset_file
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.storage.producer_snapshot import encode_snapshot
from millstream.log.storage.producer_state import ProducerState
from millstream.log.storage.replay import note
from millstream.log.storage.segment import Segment
from millstream.log.storage.txn_index import AbortedTransaction
from millstream.log.storage.verify_batches import ignore_bytes
from millstream.log.storage.verify_partition import PartitionCheck, PartitionFacts

FOLDER = "p-0"
WHERE = TopicPartition("p", 0)


def data(count: int = 2, *, pid: int = 7, epoch: int = 0, seq: int = 0, txn: bool = False) -> bytes:
    return encode_batch(
        None, [b"v"] * count, [1000] * count, None, 0, count,
        producer_id=pid, producer_epoch=epoch, base_sequence=seq, transactional=txn,
    )  # fmt: skip


def marker(*, pid: int = 7, epoch: int = 0, commit: bool = True) -> bytes:
    return encode_control_batch(
        producer_id=pid, producer_epoch=epoch, commit=commit, coordinator_epoch=0, timestamp=1000
    )


class Written:
    """One sealed segment with these batches and a snapshot at its end, as an append writes them."""

    def __init__(self, *batches: bytes, offsets: Sequence[int] | None = None) -> None:
        self.files = MemoryFiles()
        self.files.make_dir(FOLDER)
        self.state = ProducerState(WHERE)
        self.segment = Segment(self.files, FOLDER, 0, create=True)
        self.end = 0
        for i, batch in enumerate(batches):
            at = self.end if offsets is None else offsets[i]
            header, parts = placed(batch, parse_header(batch), at)
            stored = b"".join(map(bytes, parts))
            self.segment.append(header, (stored,), 0)
            aborted = note(self.state, header, stored, 0)
            if aborted is not None:
                self.segment.txn_index.append(aborted)
            self.end = header.last_offset + 1
        write_file(self.files, f"{FOLDER}/{LEADER_EPOCHS}", encode_leader_epochs(0, 0))

    def look(self, *, clean: bool = True, cleaned_to: int = 0) -> list[Finding]:
        self.segment.seal()
        return self.look_again(clean=clean, cleaned_to=cleaned_to)

    def look_again(self, *, clean: bool = True, cleaned_to: int = 0) -> list[Finding]:
        """At what was sealed, and perhaps changed since."""
        path = offset_file(FOLDER, self.end, SNAPSHOT)
        write_file(self.files, path, encode_snapshot(self.state))
        facts = PartitionFacts(WHERE, clean, self.end, 0, self.end, cleaned_to)
        return list(PartitionCheck(self.files, FOLDER, facts, ignore_bytes, records=True).run())


def test_what_an_append_writes_is_sound() -> None:
    batches = [
        data(),
        data(3, seq=2),
        data(pid=8, txn=True),
        data(pid=-1, epoch=-1, seq=-1),
        marker(pid=8, epoch=1, commit=False),
        data(pid=8, epoch=1, txn=True),
        marker(pid=8, epoch=2),
        data(epoch=1),
    ]
    assert Written(*batches).look() == []


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([data(), data(seq=3)], "sequence 3 where 2 is next"),
        ([data(), data(seq=0)], "sequence 0 where 2 is next"),
        ([data(epoch=2), data(epoch=1)], "epoch 1 after 2"),
        ([data(), data(epoch=1, seq=5)], "sequence 5 where 0 is next"),
        ([data(txn=True), data(seq=2)], "outside the transaction"),
        ([data(epoch=-1)], "without a sequence"),
    ],
)
def test_batches_of_producers_that_were_not_checked(batches: list[bytes], expected: str) -> None:
    found = Written(*batches).look()
    assert expected in found[0].what
    assert found[0].path.endswith(".log")


@pytest.mark.parametrize(("offsets", "count"), [([0, 3], 1), ([0, 1], 1), ([1, 3], 1)])
def test_offsets_that_are_not_dense(offsets: list[int], count: int) -> None:
    assert len(Written(data(), data(seq=2), offsets=offsets).look()) >= count


def test_gaps_where_compaction_has_been() -> None:
    written = Written(data(), data(seq=4), offsets=[0, 4])
    assert written.look(cleaned_to=4) == []
    assert "follows offset 1" in written.look(cleaned_to=3)[0].what


def test_an_aborted_transaction_that_no_index_has() -> None:
    written = Written(data(txn=True), marker(commit=False))
    written.segment.txn_index.clear()
    assert "has no entry" in written.look()[0].what


@pytest.mark.parametrize(
    "entry",
    [
        AbortedTransaction(7, 0, 1, 3),
        AbortedTransaction(7, 1, 2, 3),
        AbortedTransaction(9, 0, 2, 3),
        AbortedTransaction(7, 0, 2, 0),
    ],
)
def test_an_index_that_names_another_transaction(entry: AbortedTransaction) -> None:
    written = Written(data(txn=True), marker(commit=False))
    written.segment.txn_index.clear()
    written.segment.txn_index.append(entry)
    assert any("was aborted" in each.what for each in written.look())


def test_a_snapshot_that_is_whole_and_wrong() -> None:
    written = Written(data(), data(seq=2))
    written.state.producers[7].epoch = 3
    assert "the batches say" in written.look()[0].what
    written = Written(data(), data(pid=8, txn=True))
    written.state.producers[7].producer_id = 9
    assert "producer 9, who wrote nothing" in written.look()[0].what
    written = Written(data(pid=8, txn=True))
    written.state.producers.clear()
    assert "transaction of producer 8 from 0 on" in written.look()[0].what


def test_a_producer_that_was_forgotten_is_no_damage() -> None:
    written = Written(data(), data(pid=8))
    del written.state.producers[7]
    assert written.look() == []


def test_indexes_that_are_whole_and_wrong() -> None:
    written = Written(data(), data(seq=2), data(seq=4))
    written.segment.index.append(9, 500)
    assert "behind the last batch" in written.look()[0].what
    written = Written(data(), data(seq=2))
    written.segment.time_index.append(2000, 3)
    assert any("has no batch with a new largest" in each.what for each in written.look())


def test_a_time_index_without_its_last_entry() -> None:
    written = Written(data())
    written.segment.seal()
    written.files.open(offset_file(FOLDER, 0, TIME_INDEX)).truncate(0)
    assert any("the largest timestamp is 1000" in each.what for each in written.look_again())


def test_a_leader_epoch_that_nobody_led() -> None:
    written = Written(data())
    written.segment.handle.overwrite(12, (1).to_bytes(4, "big"))
    assert "leader epoch 1" in written.look()[0].what
