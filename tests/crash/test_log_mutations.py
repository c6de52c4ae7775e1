"""The sweep over the whole log finds bugs: each of these is put in on purpose and must be caught.

One mutation for every arrow in the order of a commit (txn_coordinator.py), and for the rules that
recovery keeps.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from millstream.log.broker import flusher
from millstream.log.broker.producer_ids import ProducerIds
from millstream.log.broker.txn_records import TransactionState
from millstream.log.broker.txn_recovery import TransactionRecovery
from millstream.log.errors import LogError
from millstream.log.storage.partition import Partition
from shared.log_sweep import sweep
from shared.offset_mutations import (
    aborted_offsets_count_after_a_restart,
    offsets_outside_the_transaction,
)
from shared.sweeping import coarse_first

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch


def without_fsync_of(patch: Patch, *topics: str) -> None:
    """Their flushes end well and do nothing."""
    skipped: set[int] = set()
    start_flush, run = Partition.start_flush, flusher._run

    def start(self: Partition) -> Any:
        flush = start_flush(self)
        if flush is not None and self.topic_partition.topic in topics:
            skipped.add(id(flush))
        return flush

    def run_unless_skipped(timed: Any) -> OSError | None:
        if id(timed.flush) in skipped:
            skipped.discard(id(timed.flush))
            return None
        return run(timed)

    patch.setattr(Partition, "start_flush", start)
    patch.setattr(flusher, "_run", run_unless_skipped)


def acknowledged_without_fsync(patch: Patch) -> None:
    without_fsync_of(patch, "in")


def data_not_flushed_before_the_commit_point(patch: Patch) -> None:
    without_fsync_of(patch, "out")


def offsets_not_flushed_before_the_commit_point(patch: Patch) -> None:
    without_fsync_of(patch, "__consumer_offsets")


def commit_point_not_flushed(patch: Patch) -> None:
    without_fsync_of(patch, "__transaction_state")


def prepared_not_rolled_forward(patch: Patch) -> None:
    async def drop(self: Any, metadata: Any, _found: Any) -> None:
        aborted = metadata._replace(state=TransactionState.PREPARE_ABORT)
        self._log.table._by_id[metadata.transactional_id] = aborted
        await self._markers.write(
            metadata.producer_id, metadata.epoch, metadata.partitions, commit=False
        )
        self._log.write(self._log.table.complete(aborted, 0))

    patch.setattr(TransactionRecovery, "_complete_prepared", drop)


def next_transaction_gets_the_last_ones_marker(patch: Patch) -> None:
    original = TransactionRecovery._complete_prepared

    async def complete(self: Any, metadata: Any, found: Any) -> None:
        await original(self, metadata, dict.fromkeys(found, -1))

    patch.setattr(TransactionRecovery, "_complete_prepared", complete)


def open_transactions_not_looked_for(patch: Patch) -> None:
    patch.setattr(TransactionRecovery, "_open_transactions", lambda _self: {})


def only_logged_transactions_aborted(patch: Patch) -> None:
    """Transactions whose ONGOING record was lost stay open for ever."""

    async def abort(self: Any, metadata: Any, found: Any, seen_epoch: int) -> None:
        if metadata.state is TransactionState.ONGOING:
            await original(self, metadata, found, seen_epoch)

    original = TransactionRecovery._abort_found
    patch.setattr(TransactionRecovery, "_abort_found", abort)


def producer_ids_come_again(patch: Patch) -> None:
    def fill(self: Any) -> None:
        self._next, self._block_end = 0, 1000

    patch.setattr(ProducerIds, "fill", fill)


@pytest.mark.parametrize(
    "mutation",
    [
        acknowledged_without_fsync,
        data_not_flushed_before_the_commit_point,
        offsets_not_flushed_before_the_commit_point,
        commit_point_not_flushed,
        prepared_not_rolled_forward,
        next_transaction_gets_the_last_ones_marker,
        open_transactions_not_looked_for,
        only_logged_transactions_aborted,
        offsets_outside_the_transaction,
        aborted_offsets_count_after_a_restart,
        producer_ids_come_again,
    ],
    ids=lambda mutation: mutation.__name__,
)
def test_the_sweep_catches(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    with pytest.raises((AssertionError, LogError)):
        coarse_first(partial(sweep, all_of_them=True))
