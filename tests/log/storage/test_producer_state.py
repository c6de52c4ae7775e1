"""Idempotence and fencing, rule by rule, and the snapshot that carries them over a restart."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.log.errors import (
    CorruptRecordError,
    InvalidProducerEpochError,
    InvalidTxnStateError,
    OutOfOrderSequenceError,
)
from millstream.log.format.codec import BatchHeader
from millstream.log.record import TopicPartition
from millstream.log.storage.producer_snapshot import decode_snapshot, encode_snapshot
from millstream.log.storage.producer_state import EndedTransaction, ProducerState

PARTITION = TopicPartition("orders", 3)
NOW_MS = 5_000
SEQUENCE_MAX = (1 << 31) - 1


def header(
    sequence: int,
    count: int = 1,
    *,
    producer_id: int = 7,
    epoch: int = 0,
    offset: int = 0,
    transactional: bool = False,
    timestamp: int = 1_000,
) -> BatchHeader:
    return BatchHeader(
        base_offset=offset,
        batch_length=100,
        leader_epoch=0,
        magic=2,
        crc=0,
        attributes=0x10 if transactional else 0,
        last_offset_delta=count - 1,
        base_timestamp=timestamp,
        max_timestamp=timestamp,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
        records_count=count,
    )


class Log:
    """Appends headers as a partition would."""

    def __init__(self) -> None:
        self.state = ProducerState(PARTITION)
        self.next_offset = 0

    def append(self, sequence: int, count: int = 1, **named: Any) -> int | None:
        """The offset; of the original when it is a duplicate."""
        batch = header(sequence, count, offset=self.next_offset, **named)
        original = self.state.check_batch(batch)
        if original is not None:
            return original.first_offset
        self.state.note_batch(batch, NOW_MS)
        self.next_offset += count
        return batch.base_offset

    def end(
        self, epoch: int, *, producer_id: int = 7, coordinator: int = 0
    ) -> EndedTransaction | None:
        self.state.check_marker(producer_id, epoch, coordinator)
        marker = header(-1, producer_id=producer_id, epoch=epoch, offset=self.next_offset)
        self.next_offset += 1
        return self.state.note_marker(marker, coordinator, NOW_MS)


def test_sequences_must_follow_one_another() -> None:
    log = Log()
    assert log.append(0, 3) == 0
    assert log.append(3) == 3
    for sequence in (5, 2, 1_000):
        with pytest.raises(OutOfOrderSequenceError, match=f"orders-3.*sequence {sequence} .* 4 is"):
            log.append(sequence)
    assert log.append(4) == 4


def test_one_of_the_last_five_batches_is_a_duplicate() -> None:
    log = Log()
    for i in range(6):
        assert log.append(i * 2, 2) == i * 2
    for i in range(1, 6):
        assert log.append(i * 2, 2) == i * 2
    with pytest.raises(OutOfOrderSequenceError):
        log.append(0, 2)
    with pytest.raises(OutOfOrderSequenceError):
        log.append(10, 1)  # begins like a batch that was, and is another


def test_sequences_wrap() -> None:
    log = Log()
    log.append(SEQUENCE_MAX - 1, 4)
    assert log.state.producers[7].batches[-1].last_sequence == 1
    assert log.append(2) == 4
    assert log.append(SEQUENCE_MAX - 1, 4) == 0
    log = Log()
    log.append(SEQUENCE_MAX)
    assert log.append(0) == 1


def test_an_unknown_producer_may_begin_anywhere() -> None:
    log = Log()
    assert log.append(500) == 0
    assert log.append(501) == 1


def test_a_new_epoch_begins_at_zero_and_fences_the_old_one() -> None:
    log = Log()
    log.append(0, 5)
    with pytest.raises(OutOfOrderSequenceError):
        log.append(5, epoch=1)
    assert log.append(0, epoch=1) == 5
    with pytest.raises(InvalidProducerEpochError, match="epoch 0, but 1 has been seen"):
        log.append(5)
    with pytest.raises(InvalidProducerEpochError):
        log.append(0, 5)  # a duplicate of a fenced epoch is no duplicate


def test_producers_do_not_disturb_each_other() -> None:
    log = Log()
    log.append(0, producer_id=1)
    log.append(0, producer_id=2)
    log.append(1, producer_id=1)
    assert log.append(1, producer_id=2) == 3


def test_a_marker_with_the_next_epoch_refuses_what_is_late() -> None:
    """KIP-890: the produce of a transaction that has ended must not land in the next one."""
    log = Log()
    log.append(0, 2, transactional=True)
    assert log.end(1) == EndedTransaction(7, 0, 2)
    with pytest.raises(InvalidProducerEpochError):
        log.append(2, transactional=True)
    with pytest.raises(OutOfOrderSequenceError):
        log.append(2, epoch=1, transactional=True)
    assert log.append(0, epoch=1, transactional=True) == 3


def test_a_marker_of_the_same_epoch_lets_the_sequence_go_on() -> None:
    log = Log()
    log.append(0, 2, transactional=True)
    assert log.end(0) == EndedTransaction(7, 0, 2)
    assert log.append(2, transactional=True) == 3


def test_an_old_marker_is_refused() -> None:
    log = Log()
    log.append(0, epoch=3, transactional=True)
    with pytest.raises(InvalidProducerEpochError):
        log.end(2)
    log.end(4, coordinator=9)
    with pytest.raises(InvalidTxnStateError, match="coordinator epoch 8"):
        log.end(5, coordinator=8)


def test_a_marker_is_repeated_only_when_it_is_there() -> None:
    log = Log()
    assert not log.state.is_repeated_marker(7, 1)
    log.append(0, transactional=True)
    assert not log.state.is_repeated_marker(7, 1)
    log.end(1)
    assert log.state.is_repeated_marker(7, 1)
    assert not log.state.is_repeated_marker(7, 2)
    log.append(0, epoch=1, transactional=True)
    assert not log.state.is_repeated_marker(7, 1)


def test_a_marker_fences_a_producer_the_partition_never_saw() -> None:
    log = Log()
    assert log.end(1) is None
    with pytest.raises(InvalidProducerEpochError):
        log.append(0, transactional=True)


def test_nothing_else_may_be_written_into_an_open_transaction() -> None:
    log = Log()
    log.append(0, transactional=True)
    with pytest.raises(InvalidTxnStateError, match="no part of it"):
        log.append(1)
    with pytest.raises(InvalidTxnStateError):
        log.append(0, epoch=1, transactional=True)
    assert log.append(1, transactional=True) == 1


def test_first_unstable_offset() -> None:
    log = Log()
    assert log.state.first_unstable_offset(0) is None
    log.append(0, producer_id=1, transactional=True)  # 0
    log.append(0, producer_id=2, transactional=True)  # 1
    log.append(1, producer_id=1, transactional=True)  # 2
    assert log.state.first_unstable_offset(3) == 0
    log.end(1, producer_id=1)  # marker at 3
    assert log.state.stable_offset_at(3) == 1
    assert log.state.first_unstable_offset(3) == 0  # the marker cannot be read yet
    assert log.state.first_unstable_offset(4) == 1
    log.end(1, producer_id=2)  # marker at 4
    assert log.state.stable_offset_at(4) == 5
    assert log.state.first_unstable_offset(4) == 1
    assert log.state.first_unstable_offset(5) is None


def test_silent_producers_are_forgotten_unless_in_a_transaction() -> None:
    log = Log()
    log.append(0, producer_id=1)
    log.append(0, producer_id=2, transactional=True)
    log.state.expire(NOW_MS - 1)
    assert set(log.state.producers) == {1, 2}
    log.state.expire(NOW_MS)
    assert set(log.state.producers) == {2}


def test_a_snapshot_is_written_as_kafka_writes_it() -> None:
    log = Log()
    log.append(0, 3, producer_id=42, epoch=5, transactional=True, timestamp=1_700_000_000_000)
    data = encode_snapshot(log.state)
    assert data[:2].hex() == "0001"
    assert data[6:].hex() == (
        "00000001"
        "000000000000002a"  # producer id
        "0005"  # epoch
        "00000002"  # last sequence
        "0000000000000002"  # last offset
        "00000002"  # offset delta
        "0000000000001388"  # when it was last heard of: 5000, not the time its record carries
        "ffffffff"  # coordinator epoch
        "0000000000000000"  # first offset of the transaction
    )


def test_a_snapshot_brings_back_what_decides() -> None:
    log = Log()
    log.append(0, producer_id=1)
    log.append(1, 4, producer_id=1)
    log.append(0, producer_id=3, transactional=True)
    log.append(0, producer_id=2, transactional=True)
    log.append(0, producer_id=4, transactional=True)
    log.end(1, producer_id=4)
    state = decode_snapshot(encode_snapshot(log.state), "x.snapshot", PARTITION)
    assert list(state.open_transactions.items()) == [(3, 5), (2, 6)]
    original = state.check_batch(header(1, 4, producer_id=1))
    assert original is not None
    assert original.first_offset == 1
    assert state.check_batch(header(5, producer_id=1)) is None
    with pytest.raises(OutOfOrderSequenceError):
        state.check_batch(header(6, producer_id=1))
    with pytest.raises(InvalidProducerEpochError):
        state.check_batch(header(1, producer_id=4, transactional=True))
    assert state.check_batch(header(0, producer_id=4, epoch=1)) is None
    assert encode_snapshot(state) == encode_snapshot(log.state)


def test_a_damaged_snapshot_is_told() -> None:
    log = Log()
    log.append(0)
    whole = encode_snapshot(log.state)
    for length in range(len(whole)):
        with pytest.raises(CorruptRecordError):
            decode_snapshot(whole[:length], "x.snapshot", PARTITION)
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1
        with pytest.raises(CorruptRecordError, match=r"x\.snapshot"):
            decode_snapshot(bytes(flipped), "x.snapshot", PARTITION)
    with pytest.raises(CorruptRecordError):
        decode_snapshot(bytes(len(whole)), "x.snapshot", PARTITION)
