"""The simulation finds bugs: each of these is put in on purpose and must be found within SEEDS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from millstream.log.broker import flusher
from millstream.log.broker.groups import Group
from millstream.log.broker.transactions import TransactionTable
from millstream.log.broker.txn_records import TransactionState
from millstream.log.broker.txn_recovery import TransactionRecovery
from millstream.log.client import fetcher
from millstream.log.errors import LogError
from millstream.log.storage import compaction_filter, partition, recovery
from millstream.log.storage.compaction_map import OffsetMap
from millstream.log.storage.flush import Flush
from millstream.log.storage.producer_state import ProducerState
from shared.offset_mutations import offsets_outside_the_transaction
from simulation.simulation import simulate

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch
SEEDS = 300


def acknowledged_without_fsync(patch: Patch) -> None:
    patch.setattr(Flush, "run", lambda _self: None)


def data_not_flushed_before_the_commit_point(patch: Patch) -> None:
    async def flush(_self: Any, _partitions: Any) -> None:
        pass

    patch.setattr(flusher.Flusher, "flush", flush)


def open_transactions_do_not_hold_the_stable_offset(patch: Patch) -> None:
    patch.setattr(ProducerState, "first_unstable_offset", lambda _self, _watermark: None)


def aborted_records_are_read(patch: Patch) -> None:
    patch.setattr(fetcher._AbortedTransactions, "contains", lambda _self, _header: False)


def zombies_are_not_fenced(patch: Patch) -> None:
    original = TransactionTable.check

    def check(self: Any, transactional_id: str, producer_id: int, epoch: int) -> Any:
        known = self.get(transactional_id)
        return original(self, transactional_id, known.producer_id, known.epoch) if known else None

    patch.setattr(TransactionTable, "check", check)
    patch.setattr(ProducerState, "_check_epoch", lambda *_: None)


def prepared_not_rolled_forward(patch: Patch) -> None:
    original = TransactionRecovery._complete_prepared

    async def abort(self: Any, metadata: Any, found: Any) -> None:
        aborted = metadata._replace(state=TransactionState.PREPARE_ABORT)
        await original(self, aborted, found)

    patch.setattr(TransactionRecovery, "_complete_prepared", abort)


def commits_of_a_stale_generation_count(patch: Patch) -> None:
    patch.setattr(Group, "check_commit", lambda *_, **__: None)


def recovery_keeps_torn_batches(patch: Patch) -> None:
    patch.setattr(recovery, "check_batch", lambda *_: None)


def compaction_keeps_the_older_value(patch: Patch) -> None:
    original = OffsetMap.add

    def add(self: Any, keys: Any, offsets: Any) -> bool:
        known = [self.newest(key) for key in compaction_filter.names_of(keys) if key is not None]
        return original(self, keys, offsets) if max(known, default=-1) < 0 else True

    patch.setattr(OffsetMap, "add", add)
    original_kept = compaction_filter.BatchFilter._kept

    def kept(self: Any, header: Any, columns: Any) -> list[int]:
        names = compaction_filter.names_of(columns.keys)
        stay = original_kept(self, header, columns)
        return [i for i in stay if columns.offsets[i] == self._newest.newest(names[i])]

    patch.setattr(compaction_filter.BatchFilter, "_kept", kept)


def tombstones_go_at_once(patch: Patch) -> None:
    original = compaction_filter.BatchFilter._kept

    def kept(self: Any, header: Any, columns: Any) -> list[int]:
        return [i for i in original(self, header, columns) if columns.values[i] is not None]

    patch.setattr(compaction_filter.BatchFilter, "_kept", kept)


def retention_takes_what_is_young(patch: Patch) -> None:
    original = partition.Partition.apply_retention

    def apply(self: Any, now_ms: int) -> int:
        return original(self, now_ms + 3_600_000)

    patch.setattr(partition.Partition, "apply_retention", apply)


def records_are_deleted_one_too_far(patch: Patch) -> None:
    original = partition.Partition.delete_records

    def delete(self: Any, before: int) -> int:
        return original(self, min(before + 1, self.high_watermark))

    patch.setattr(partition.Partition, "delete_records", delete)


MUTATIONS = [
    acknowledged_without_fsync,
    data_not_flushed_before_the_commit_point,
    open_transactions_do_not_hold_the_stable_offset,
    aborted_records_are_read,
    zombies_are_not_fenced,
    prepared_not_rolled_forward,
    offsets_outside_the_transaction,
    commits_of_a_stale_generation_count,
    recovery_keeps_torn_batches,
    compaction_keeps_the_older_value,
    tombstones_go_at_once,
    retention_takes_what_is_young,
    records_are_deleted_one_too_far,
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_the_simulation_finds(mutation: Callable[[Patch], None], monkeypatch: Patch) -> None:
    mutation(monkeypatch)
    for seed in range(SEEDS):
        try:
            simulate(seed)
        except (AssertionError, LogError) as found:
            print(f"seed {seed}: {type(found).__name__}: {str(found)[:200]}")
            return
    pytest.fail(f"{SEEDS} seeds did not find it")
