"""The machine of transactions finds bugs: each of these is put in on purpose and must be caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from millstream.log.broker import transactions
from millstream.log.broker.offsets import OffsetTable
from millstream.log.broker.transactions import TransactionTable
from millstream.log.broker.txn_coordinator import TransactionCoordinator
from millstream.log.broker.txn_log import TransactionLog
from millstream.log.broker.txn_markers import TransactionMarkers
from millstream.log.broker.txn_records import BY_PRODUCER, TransactionState
from millstream.log.broker.txn_recovery import TransactionRecovery
from millstream.log.errors import LogError
from shared.offset_mutations import offsets_outside_the_transaction
from shared.transaction_machine import Transactions

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch


def a_fence_leaves_the_epoch(patch: Patch) -> None:
    """Who was timed out or terminated goes on as if nothing had been."""

    def fence(_self: Any, known: Any, now_ms: int) -> Any:
        return known._replace(state=TransactionState.PREPARE_EPOCH_FENCE, last_update_ms=now_ms)

    patch.setattr(TransactionTable, "fence", fence)


def an_end_leaves_the_epoch(patch: Patch) -> None:
    """Kafka before KIP-890: what is delayed lands in the next transaction."""
    original = TransactionTable.prepare_end

    def prepare_end(self: Any, *arguments: Any, **named: Any) -> Any:
        prepared = original(self, *arguments, **named)
        return prepared and prepared._replace(epoch=prepared.epoch - 1)

    patch.setattr(TransactionTable, "prepare_end", prepare_end)


def a_coordinators_abort_looks_like_the_producers(patch: Patch) -> None:
    patch.setattr(transactions, "BY_COORDINATOR", BY_PRODUCER)
    patch.setattr(
        TransactionTable,
        "_is_repetition",
        staticmethod(
            lambda known, producer_id, epoch: (
                known.producer_id == producer_id
                and known.epoch == epoch + 1
                and known.state in transactions._ENDED
            )
        ),
    )


def one_marker_is_missing(patch: Patch) -> None:
    original = TransactionMarkers.write

    async def write(self: Any, producer_id: int, epoch: int, where: Any, *, commit: bool) -> None:
        some = sorted(where)
        await original(self, producer_id, epoch, some[:-1] or some, commit=commit)

    patch.setattr(TransactionMarkers, "write", write)


def a_repetition_ends_it_again(patch: Patch) -> None:
    """Any epoch will do to end what is open."""

    def check_end(self: Any, transactional_id: str, *_: Any, **_named: Any) -> bool:
        return self._by_id[transactional_id].state is not TransactionState.ONGOING

    patch.setattr(TransactionTable, "check_end", check_end)


def a_new_producer_leaves_the_old_ones_transaction(patch: Patch) -> None:
    original = TransactionTable.init

    def init(self: Any, transactional_id: str, *arguments: Any, **named: Any) -> Any:
        known = self._by_id.get(transactional_id)
        if known is not None and known.state is TransactionState.ONGOING:
            self._by_id[transactional_id] = known._replace(state=TransactionState.EMPTY)
        return original(self, transactional_id, *arguments, **named)

    patch.setattr(TransactionTable, "init", init)


def aborted_offsets_count(patch: Patch) -> None:
    original = OffsetTable.end_transaction

    def end(self: Any, producer_id: int, *, commit: bool) -> None:
        original(self, producer_id, commit=True)

    patch.setattr(OffsetTable, "end_transaction", end)


def the_commit_point_is_not_waited_for(patch: Patch) -> None:
    async def write(self: Any, metadata: Any) -> None:
        self.write(metadata)

    patch.setattr(TransactionLog, "write_durably", write)


def recovery_aborts_what_was_decided(patch: Patch) -> None:
    async def abort(self: Any, metadata: Any, found: Any) -> None:
        if metadata.state is TransactionState.PREPARE_COMMIT:
            metadata = metadata._replace(state=TransactionState.PREPARE_ABORT)
            self._log.table._by_id[metadata.transactional_id] = metadata
        await original(self, metadata, found)

    original = TransactionRecovery._complete_prepared
    patch.setattr(TransactionRecovery, "_complete_prepared", abort)


def time_outs_are_not_watched(patch: Patch) -> None:
    async def nothing(_self: Any, _now_ms: int) -> None:
        return

    patch.setattr(TransactionCoordinator, "_abort_timed_out", nothing)
    patch.setattr(TransactionCoordinator, "_set_deadline", lambda *_: None)


@pytest.mark.parametrize(
    "mutation",
    [
        a_fence_leaves_the_epoch,
        an_end_leaves_the_epoch,
        a_coordinators_abort_looks_like_the_producers,
        one_marker_is_missing,
        a_repetition_ends_it_again,
        a_new_producer_leaves_the_old_ones_transaction,
        aborted_offsets_count,
        offsets_outside_the_transaction,
        the_commit_point_is_not_waited_for,
        recovery_aborts_what_was_decided,
        time_outs_are_not_watched,
    ],
    ids=lambda mutation: mutation.__name__,
)
def test_the_machine_catches(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises((AssertionError, LogError)):
        run_state_machine_as_test(
            Transactions,
            settings=settings(
                max_examples=2000,  # it ends at the first that fails
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
                report_multiple_bugs=False,
            ),
        )
