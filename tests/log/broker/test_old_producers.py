"""Producers that keep their epoch (transaction version 1), request by request."""

from __future__ import annotations

import itertools

import pytest

from millstream.log.broker import transactions
from millstream.log.broker.transactions import EPOCH_MAX, TransactionTable
from millstream.log.broker.txn_records import (
    BY_OLD_PRODUCER,
    TransactionMetadata,
    TransactionState,
)
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.errors import (
    ConcurrentTransactionsError,
    InvalidTxnStateError,
    ProducerFencedError,
)
from millstream.log.record import TopicPartition
from shared.logs import with_log

S = TransactionState
T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


def table_in(state: TransactionState, *, epoch: int = 5) -> TransactionTable:
    table = TransactionTable(timeout_ms_max=900_000)
    partitions = frozenset({T0}) if state in {S.ONGOING, S.PREPARE_COMMIT} else frozenset()
    table.restore(
        TransactionMetadata(
            "x", 7, epoch, 60_000, state, partitions, 0, 0, client_version=BY_OLD_PRODUCER
        )
    )
    return table


def ids():
    return itertools.count(100).__next__


def end(table: TransactionTable, *, commit: bool, epoch: int = 5) -> TransactionMetadata | None:
    return table.prepare_end("x", 7, epoch, commit=commit, now_ms=1, new_producer_id=ids())


@pytest.mark.parametrize("epoch", [5, EPOCH_MAX - 1])
def test_an_end_leaves_the_epoch(epoch: int) -> None:
    table = table_in(S.ONGOING, epoch=epoch)
    prepared = end(table, commit=True, epoch=epoch)
    assert prepared is not None
    table.put(prepared)
    with pytest.raises(ConcurrentTransactionsError):
        end(table, commit=True, epoch=epoch)
    with pytest.raises(ConcurrentTransactionsError):
        table.add_partitions("x", 7, epoch, [T1], 2, announced=True)
    table.put(table.complete(prepared, 2))
    known = table.get("x")
    assert known is not None
    assert (known.state, known.producer_id, known.epoch) == (S.COMPLETE_COMMIT, 7, epoch)
    assert end(table, commit=True, epoch=epoch) is None  # once more: its answer was lost
    with pytest.raises(InvalidTxnStateError, match="other way"):
        end(table, commit=False, epoch=epoch)


@pytest.mark.parametrize("commit", [True, False])
def test_without_a_transaction_there_is_nothing_to_end(commit: bool) -> None:
    with pytest.raises(InvalidTxnStateError, match="no transaction"):
        end(table_in(S.EMPTY), commit=commit)


@pytest.mark.parametrize("state", [S.EMPTY, S.ONGOING, S.COMPLETE_COMMIT, S.COMPLETE_ABORT])
def test_what_is_written_must_have_been_announced(state: TransactionState) -> None:
    table = table_in(state)
    with pytest.raises(InvalidTxnStateError, match="AddPartitionsToTxn"):
        table.add_partitions("x", 7, 5, [T1], 1)
    step = table.add_partitions("x", 7, 5, [T1], 1, announced=True)
    assert step is not None
    table.put(step)
    assert table.add_partitions("x", 7, 5, [T1], 1) is None


def test_a_time_out_fences_it() -> None:
    table = table_in(S.ONGOING)
    known = table.get("x")
    assert known is not None
    table.put(table.fence(known, 1))
    fenced = table.get("x")
    assert fenced is not None
    prepared = table.prepare_abort(fenced, 1, ids())
    assert prepared.epoch == 6
    table.put(prepared)
    table.put(table.complete(prepared, 1))
    for commit in (True, False):
        with pytest.raises(ProducerFencedError):
            end(table, commit=commit)


def test_a_producer_asks_for_its_next_epoch() -> None:
    """KIP-360: with the producer id and epoch it has; again when the answer was lost."""
    table = table_in(S.COMPLETE_ABORT)

    def init(producer_id: int, epoch: int) -> tuple[int, int]:
        step = table.init("x", 1, 1, ids(), version=BY_OLD_PRODUCER, current=(producer_id, epoch))
        table.put(step)
        return step.producer_id, step.epoch

    assert init(7, 5) == (7, 6)
    assert init(7, 5) == (7, 6)
    assert init(7, 6) == (7, 7)
    for stale in ((7, 5), (8, 7), (7, 8)):
        with pytest.raises(ProducerFencedError):
            init(*stale)


def test_the_next_epoch_after_the_last_one_is_of_another_producer_id() -> None:
    last = EPOCH_MAX - 1
    table = table_in(S.COMPLETE_COMMIT, epoch=last)
    for _ in range(2):
        step = table.init("x", 1, 1, ids(), version=BY_OLD_PRODUCER, current=(7, last))
        table.put(step)
        assert (step.producer_id, step.epoch, step.previous_producer_id) == (100, 0, 7)


def test_the_next_epoch_while_a_transaction_of_the_last_one_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The abort that comes first ends under another producer id; who asked is no stranger then."""
    monkeypatch.setattr(transactions, "EPOCH_MAX", 2)

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        coordinator = log._broker.transactions

        async def started(current: tuple[int, int] | None = None) -> tuple[int, int]:
            return await coordinator.init_producer_id(
                "x", 60_000, version=BY_OLD_PRODUCER, current=current
            )

        last = await started(await started())
        assert last[1] == transactions.EPOCH_MAX - 1
        await coordinator.announce_partitions("x", *last, (T0,))
        following = await started(last)
        assert following[0] != last[0]
        await coordinator.announce_partitions("x", *following, (T0,))

    with_log(body)
