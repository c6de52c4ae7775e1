"""Every request in every state, against what Apache Kafka's coordinator answers (transaction
version 2, KIP-890): `endTransaction`, `prepareInitProducerIdTransit` and
`handleAddPartitionsToTransaction` of its TransactionCoordinator, and the requests' error codes.

Metadata: producer id 7, epoch 5. In a state after an end, epoch 5 is what the end raised it to, so
the transaction that ended was written with epoch 4.
"""

from __future__ import annotations

import itertools

import pytest

from millstream.log.broker.transactions import EPOCH_MAX, TransactionTable
from millstream.log.broker.txn_records import (
    BY_COORDINATOR,
    BY_PRODUCER,
    TransactionMetadata,
    TransactionState,
    decode_value,
    encode_value,
)
from millstream.log.errors import LogError
from millstream.log.record import TopicPartition

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
S = TransactionState

CONCURRENT = 51
FENCED = 90
MAPPING = 49
INVALID_STATE = 48
INVALID_REQUEST = 42
INVALID_TIMEOUT = 50
NONE = 0
"""Answered as done, nothing is written."""

STATES = [
    S.EMPTY,
    S.ONGOING,
    S.PREPARE_COMMIT,
    S.PREPARE_ABORT,
    S.COMPLETE_COMMIT,
    S.COMPLETE_ABORT,
    S.PREPARE_EPOCH_FENCE,
]

Answer = int | TransactionState
INIT: dict[TransactionState, Answer] = {
    S.EMPTY: S.EMPTY,
    S.ONGOING: S.PREPARE_EPOCH_FENCE,
    S.PREPARE_COMMIT: CONCURRENT,
    S.PREPARE_ABORT: CONCURRENT,
    S.COMPLETE_COMMIT: S.EMPTY,
    S.COMPLETE_ABORT: S.EMPTY,
    S.PREPARE_EPOCH_FENCE: CONCURRENT,  # a transition that is pending, in Kafka's words
}
ADD: dict[TransactionState, Answer] = {
    S.EMPTY: S.ONGOING,
    S.ONGOING: S.ONGOING,
    S.PREPARE_COMMIT: CONCURRENT,
    S.PREPARE_ABORT: CONCURRENT,
    S.COMPLETE_COMMIT: S.ONGOING,
    S.COMPLETE_ABORT: S.ONGOING,
    S.PREPARE_EPOCH_FENCE: CONCURRENT,
}
# EndTxn: state -> (commit with the epoch in force, abort with it, commit with the one before,
# abort with the one before)
END: dict[TransactionState, tuple[Answer, Answer, Answer, Answer]] = {
    S.EMPTY: (INVALID_STATE, S.PREPARE_ABORT, FENCED, FENCED),
    S.ONGOING: (S.PREPARE_COMMIT, S.PREPARE_ABORT, FENCED, FENCED),
    S.PREPARE_COMMIT: (FENCED, FENCED, CONCURRENT, INVALID_STATE),
    S.PREPARE_ABORT: (FENCED, FENCED, INVALID_STATE, CONCURRENT),
    S.COMPLETE_COMMIT: (INVALID_STATE, S.PREPARE_ABORT, NONE, INVALID_STATE),
    S.COMPLETE_ABORT: (INVALID_STATE, S.PREPARE_ABORT, INVALID_STATE, NONE),
    S.PREPARE_EPOCH_FENCE: (FENCED, FENCED, FENCED, FENCED),
}


def table_in(
    state: TransactionState, *, epoch: int = 5, ended_by: int = BY_PRODUCER
) -> TransactionTable:
    table = TransactionTable(timeout_ms_max=900_000)
    with_partitions = state in {S.ONGOING, S.PREPARE_COMMIT, S.PREPARE_ABORT, S.PREPARE_EPOCH_FENCE}
    partitions = frozenset({T0}) if with_partitions else frozenset()
    table.restore(
        TransactionMetadata(
            "x", 7, epoch, 60_000, state, partitions, 0, start_ms=0, client_version=ended_by
        )
    )
    return table


def ids(start: int = 100):
    return itertools.count(start).__next__


def answer(call) -> tuple[Answer, TransactionMetadata | None]:
    """The code of the error, or the state that is to be logged, and the step."""
    try:
        step = call()
    except LogError as error:
        return error.kafka_code, None
    return (NONE, None) if step is None else (step.state, step)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_init_producer_id(state: TransactionState) -> None:
    got, step = answer(lambda: table_in(state).init("x", 1000, 9, ids()))
    assert got == INIT[state]
    if step is not None:
        assert (step.producer_id, step.epoch) == (7, 6)
        assert step.partitions == (frozenset({T0}) if state is S.ONGOING else frozenset())
        assert step.timeout_ms == (60_000 if state is S.ONGOING else 1000)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_init_producer_id_with_an_exhausted_epoch(state: TransactionState) -> None:
    table = table_in(state, epoch=EPOCH_MAX - 1)
    got, step = answer(lambda: table.init("x", 1000, 9, ids()))
    assert got == INIT[state]
    if step is not None and step.state is S.EMPTY:
        assert (step.producer_id, step.epoch, step.previous_producer_id) == (100, 0, 7)
    elif step is not None:
        assert (step.producer_id, step.epoch) == (7, EPOCH_MAX)


@pytest.mark.parametrize(
    ("transactional_id", "timeout_ms", "code"),
    [
        ("", 1000, INVALID_REQUEST),
        ("x", 0, INVALID_TIMEOUT),
        ("x", -1, INVALID_TIMEOUT),
        ("x", 900_001, INVALID_TIMEOUT),
        ("new", 900_001, INVALID_TIMEOUT),
    ],
)
def test_init_producer_id_is_refused(transactional_id: str, timeout_ms: int, code: int) -> None:
    for state in STATES:
        got, _ = answer(lambda s=state: table_in(s).init(transactional_id, timeout_ms, 9, ids()))
        assert got == code


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_add_partitions(state: TransactionState) -> None:
    for producer_id, epoch, expected in (
        (7, 5, ADD[state]),
        (7, 4, FENCED),
        (7, 6, FENCED),
        (8, 5, MAPPING),
    ):
        table = table_in(state)
        got, step = answer(lambda: table.add_partitions("x", producer_id, epoch, [T1], 9))  # noqa: B023
        assert got == expected, (producer_id, epoch)
        if step is not None:
            assert (step.producer_id, step.epoch) == (7, 5)
            assert step.partitions == ({T0, T1} if state is S.ONGOING else {T1})
            assert step.start_ms == (0 if state is S.ONGOING else 9)
    again, _ = answer(lambda: table_in(S.ONGOING).add_partitions("x", 7, 5, [T0], 9))
    assert again == NONE


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_end_txn(state: TransactionState) -> None:
    cases = zip(END[state], [(True, 5), (False, 5), (True, 4), (False, 4)], strict=True)
    for expected, (commit, epoch) in cases:
        got, step = end(table_in(state), 7, epoch, commit)
        assert got == expected, (commit, epoch)
        if step is not None:
            assert step.epoch == 6
    for commit in (True, False):
        for producer_id, epoch, expected in ((7, 3, FENCED), (7, 6, FENCED), (8, 5, MAPPING)):
            assert end(table_in(state), producer_id, epoch, commit)[0] == expected
        unknown, _ = end(TransactionTable(timeout_ms_max=1), 7, 5, commit)
        assert unknown == MAPPING


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("state", [S.PREPARE_ABORT, S.COMPLETE_ABORT], ids=lambda state: state.name)
def test_who_was_timed_out_is_fenced_whatever_it_asks(
    state: TransactionState, commit: bool
) -> None:
    """Its epoch is one below, as after an end of its own; Kafka tells them apart by the transaction
    version, which is 0 for what the coordinator ended. Also after a restart."""
    table = table_in(state, ended_by=BY_COORDINATOR)
    known = table.get("x")
    assert known is not None
    restored = TransactionTable(timeout_ms_max=900_000)
    restored.restore(decode_value("x", encode_value(known)))
    for each in (table, restored):
        assert end(each, 7, 4, commit)[0] == FENCED


def test_a_coordinators_abort_is_marked_as_such() -> None:
    table = table_in(S.ONGOING)
    known = table.get("x")
    assert known is not None
    table.put(table.fence(known, 9))
    fenced = table.get("x")
    assert fenced is not None
    prepared = table.prepare_abort(fenced, 9, ids())
    table.put(prepared)
    table.put(table.complete(prepared, 9))
    assert end(table, 7, 5, commit=False)[0] == FENCED
    table.put(table.init("x", 1000, 9, ids()))
    step = table.add_partitions("x", 7, 7, [T1], 9)
    assert step is not None
    table.put(step)
    own = table.prepare_end("x", 7, 7, commit=True, now_ms=9, new_producer_id=ids())
    assert own is not None
    table.put(own)
    assert end(table, 7, 7, commit=True)[0] == CONCURRENT  # its own: a repetition


@pytest.mark.parametrize("commit", [True, False])
def test_an_end_at_the_last_epoch_is_repeated_under_the_new_producer_id(commit: bool) -> None:
    last = EPOCH_MAX - 1
    table = table_in(S.ONGOING, epoch=last)
    step = table.prepare_end("x", 7, last, commit=commit, now_ms=9, new_producer_id=ids())
    assert step is not None
    table.put(step)
    assert end(table, 7, last, commit)[0] == CONCURRENT
    table.put(table.complete(step, 9))
    assert end(table, 7, last, commit)[0] == NONE
    assert end(table, 7, last, not commit)[0] == INVALID_STATE
    assert end(table, 7, last - 1, commit)[0] == MAPPING
    assert end(table, 100, 0, commit)[0] == (INVALID_STATE if commit else S.PREPARE_ABORT)


def end(
    table: TransactionTable, producer_id: int, epoch: int, commit: bool
) -> tuple[Answer, TransactionMetadata | None]:
    return answer(
        lambda: table.prepare_end(
            "x", producer_id, epoch, commit=commit, now_ms=9, new_producer_id=ids()
        )
    )
