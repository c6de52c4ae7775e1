"""The transaction state machine: legal steps, epochs that are used up, and producers at random.

What each request answers in each state is in test_transaction_requests.py.
"""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from millstream.log.broker.transactions import EPOCH_MAX, LEGAL_PREVIOUS, TransactionTable
from millstream.log.broker.txn_records import TransactionMetadata, TransactionState
from millstream.log.errors import (
    ConfigError,
    LogError,
    ProducerFencedError,
)
from millstream.log.record import TopicPartition

S = TransactionState
T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
STORED = [
    S.EMPTY,
    S.ONGOING,
    S.PREPARE_COMMIT,
    S.PREPARE_ABORT,
    S.COMPLETE_COMMIT,
    S.COMPLETE_ABORT,
]


def table_in(state: TransactionState, *, epoch: int = 5) -> TransactionTable:
    table = TransactionTable(timeout_ms_max=900_000)
    partitions = frozenset({T0}) if state in {S.ONGOING, *STORED[2:4]} else frozenset()
    table.restore(TransactionMetadata("x", 7, epoch, 60_000, state, partitions, 0))
    return table


def ids(start: int = 100):
    return itertools.count(start).__next__


def test_every_state_has_its_legal_predecessors() -> None:
    assert set(LEGAL_PREVIOUS) == set(S)
    assert S.PREPARE_COMMIT not in LEGAL_PREVIOUS[S.ONGOING]
    assert LEGAL_PREVIOUS[S.COMPLETE_COMMIT] == {S.PREPARE_COMMIT}
    assert LEGAL_PREVIOUS[S.PREPARE_COMMIT] == {S.ONGOING}


@pytest.mark.parametrize("before", list(S))
@pytest.mark.parametrize("after", list(S))
def test_an_illegal_step_is_our_bug(before: TransactionState, after: TransactionState) -> None:
    table = table_in(before)
    step = TransactionMetadata("x", 7, 6, 60_000, after, frozenset(), 0)
    if before in LEGAL_PREVIOUS[after]:
        table.put(step)
        return
    with pytest.raises(AssertionError):
        table.put(step)


def test_first_start() -> None:
    table = TransactionTable(timeout_ms_max=900_000)
    started = table.init("x", 60_000, 1, ids())
    assert (started.producer_id, started.epoch, started.state) == (100, 0, S.EMPTY)
    with pytest.raises(ConfigError, match=r"transaction\.max\.timeout\.ms"):
        table.init("x", 900_001, 1, ids())
    with pytest.raises(ConfigError, match="empty"):
        table.init("", 1, 1, ids())


@pytest.mark.parametrize(("producer_id", "epoch"), [(7, 4), (7, 6), (8, 5)])
def test_others_are_fenced(producer_id: int, epoch: int) -> None:
    table = table_in(S.ONGOING)
    with pytest.raises(ProducerFencedError, match="7 with 5"):
        table.add_partitions("x", producer_id, epoch, [T1], 1)
    with pytest.raises(ProducerFencedError):
        table.prepare_end("x", producer_id, epoch, commit=True, now_ms=1, new_producer_id=ids())
    with pytest.raises(ProducerFencedError, match="not in force"):
        table.check("unknown", producer_id, epoch)


def test_fencing_at_the_last_epoch() -> None:
    table = table_in(S.ONGOING, epoch=EPOCH_MAX - 1)
    fenced = table.init("x", 60_000, 1, ids())
    table.put(fenced)
    assert (fenced.state, fenced.epoch) == (S.PREPARE_EPOCH_FENCE, EPOCH_MAX)
    prepared = table.prepare_abort(fenced, 1, ids())
    table.put(prepared)
    table.put(table.complete(prepared, 2))
    started = table.init("x", 60_000, 3, ids(200))
    assert (started.producer_id, started.epoch) == (100, 1)


class Producers(RuleBasedStateMachine):
    """Several producers with one transactional id, at random: at most one can ever commit."""

    def __init__(self) -> None:
        super().__init__()
        self.table = TransactionTable(timeout_ms_max=900_000)
        self.new_id = ids()
        self.holders: list[tuple[int, int]] = []
        self.seen: set[tuple[int, int]] = set()

    @rule()
    def start(self) -> None:
        step = self.table.init("x", 1000, 0, self.new_id)
        if step.state is S.PREPARE_EPOCH_FENCE:
            self.table.put(step)
            self.finish(self.table.prepare_abort(step, 0, self.new_id))
            step = self.table.init("x", 1000, 0, self.new_id)
        self.table.put(step)
        identity = (step.producer_id, step.epoch)
        assert identity not in self.seen
        self.seen.add(identity)
        self.holders.append(identity)

    @rule(who=st.integers(0, 10), partition=st.sampled_from([T0, T1]))
    def send(self, who: int, partition: TopicPartition) -> None:
        if not self.holders:
            return
        identity = self.holders[who % len(self.holders)]
        try:
            step = self.table.add_partitions("x", *identity, [partition], 0)
        except ProducerFencedError:
            assert identity != self.holders[-1]
            return
        assert identity == self.holders[-1]
        if step is not None:
            self.table.put(step)

    @rule(who=st.integers(0, 10), commit=st.booleans())
    def end(self, who: int, commit: bool) -> None:
        if not self.holders:
            return
        index = who % len(self.holders)
        identity = self.holders[index]
        try:
            step = self.table.prepare_end(
                "x", *identity, commit=commit, now_ms=0, new_producer_id=self.new_id
            )
        except LogError:
            return
        if step is None:
            return
        assert identity == self.holders[-1]
        done = self.finish(step)
        self.holders[-1] = (done.producer_id, done.epoch)
        assert self.holders[-1] not in self.seen
        self.seen.add(self.holders[-1])

    def finish(self, step: TransactionMetadata) -> TransactionMetadata:
        self.table.put(step)
        done = self.table.complete(step, 0)
        self.table.put(done)
        return done

    @invariant()
    def epochs_stay_within_int16(self) -> None:
        for metadata in self.table:
            assert 0 <= metadata.epoch < EPOCH_MAX


TestProducers = Producers.TestCase
TestProducers.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
