"""The machines of producers on the network find bugs: each of these must be caught."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from millstream.log.broker import txn_recovery
from millstream.log.broker.offsets import OffsetLoader
from millstream.log.broker.transactions import TransactionTable
from millstream.log.broker.txn_coordinator import TransactionCoordinator
from millstream.log.broker.txn_records import BY_OLD_PRODUCER, BY_PRODUCER, TransactionMetadata
from millstream.log.broker.txn_recovery import TransactionRecovery
from shared.old_producers import NewTransactions, OldTransactions

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch


def an_end_raises_the_epoch(patch: Patch) -> None:
    patch.setattr(TransactionMetadata, "keeps_epoch", property(lambda _self: False))


def a_write_need_not_be_announced(patch: Patch) -> None:
    original = TransactionTable.add_partitions

    def add(self: Any, *arguments: Any, **_: Any) -> Any:
        return original(self, *arguments, announced=True, version=BY_OLD_PRODUCER)

    patch.setattr(TransactionTable, "add_partitions", add)


def what_is_announced_is_not_logged(patch: Patch) -> None:
    async def announce(self: Any, *arguments: Any) -> None:
        self.add_partitions(*arguments, announced=True, version=BY_OLD_PRODUCER)

    patch.setattr(TransactionCoordinator, "announce_partitions", announce)


def nothing_goes_on(patch: Patch) -> None:
    patch.setattr(txn_recovery, "_may_go_on", lambda *_: False)


def what_goes_on_never_times_out(patch: Patch) -> None:
    patch.setattr(TransactionCoordinator, "resume", lambda *_: None)


def markers_of_the_same_epoch_are_not_finished(patch: Patch) -> None:
    original = TransactionRecovery._complete_prepared

    async def complete(self: Any, metadata: Any, found: Any) -> None:
        await original(self, metadata, {each: e for each, e in found.items() if e < metadata.epoch})

    patch.setattr(TransactionRecovery, "_complete_prepared", complete)


def offsets_of_what_goes_on_are_forgotten(patch: Patch) -> None:
    original = OffsetLoader.finish

    def finish(self: Any, table: Any) -> Any:
        self._pending.clear()
        return original(self, table)

    patch.setattr(OffsetLoader, "finish", finish)


def what_is_written_to_is_not_logged(patch: Patch) -> None:
    original = TransactionCoordinator.add_partitions

    def add(self: Any, *arguments: Any, version: int | None = None, **more: Any) -> Any:
        if version != BY_PRODUCER:
            return original(self, *arguments, version=version, **more)
        step = self.table.add_partitions(*arguments, self._clock.wall_ms(), version=version)
        if step is not None:
            self.table.put(step)
        return None

    patch.setattr(TransactionCoordinator, "add_partitions", add)


def an_end_keeps_the_epoch(patch: Patch) -> None:
    patch.setattr(TransactionMetadata, "keeps_epoch", property(lambda _self: True))


OLD = [
    an_end_raises_the_epoch,
    a_write_need_not_be_announced,
    what_is_announced_is_not_logged,
    nothing_goes_on,
    what_goes_on_never_times_out,
    markers_of_the_same_epoch_are_not_finished,
    offsets_of_what_goes_on_are_forgotten,
]
NEW = [
    an_end_keeps_the_epoch,
    what_is_written_to_is_not_logged,
    nothing_goes_on,
    what_goes_on_never_times_out,
    offsets_of_what_goes_on_are_forgotten,
]


@pytest.mark.parametrize(
    ("machine", "mutation"),
    [
        *((OldTransactions, each) for each in OLD),
        *((NewTransactions, each) for each in NEW),
    ],
    ids=lambda each: each.__name__,
)
def test_the_machine_catches(
    machine: type[OldTransactions], mutation: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    mutation(monkeypatch)
    with pytest.raises(BaseException) as caught:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=200,
                stateful_step_count=40,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    assert not isinstance(caught.value, KeyboardInterrupt | SystemExit)
