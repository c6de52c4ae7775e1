"""Which open transactions a decision that was cut off is about."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from millstream.log import TopicPartition
from millstream.log.broker.txn_records import (
    BY_OLD_PRODUCER,
    TransactionMetadata,
    TransactionState,
)
from millstream.log.broker.txn_recovery import TransactionRecovery
from millstream.log.testing.fake_clock import FakeClock

LAST, THIS, NEXT = (TopicPartition("t", number) for number in range(3))


class Books:
    """Stands for the log of transactions."""

    def __init__(self) -> None:
        self.table = self

    def complete(self, *_: Any) -> None:
        pass

    def write(self, *_: Any) -> None:
        pass


class Markers:
    """Stands for what writes them."""

    def __init__(self) -> None:
        self.written: dict[TopicPartition, bool] = {}

    async def write(
        self, _producer_id: int, _epoch: int, partitions: set[TopicPartition], *, commit: bool
    ) -> None:
        self.written |= dict.fromkeys(partitions, commit)


@pytest.mark.parametrize("keeps_epoch", [True, False])
@pytest.mark.parametrize("commit", [True, False])
def test_only_the_decided_transaction_gets_its_marker(commit: bool, keeps_epoch: bool) -> None:
    """One that is older was aborted, and with durability="os" a power loss took the marker: the
    commit of a later one must not bring its records back."""
    books: Any = Books()  # the part of a coordinator that is asked
    transactions: Any = None  # nothing is asked of it
    markers: Any = Markers()
    recovery = TransactionRecovery(books, (), transactions, markers, FakeClock())
    state = TransactionState.PREPARE_COMMIT if commit else TransactionState.PREPARE_ABORT
    decided = TransactionMetadata("app", 7, 8, 60_000, state, frozenset({THIS}), 0)
    if keeps_epoch:
        decided = decided._replace(client_version=BY_OLD_PRODUCER)
    epochs = {LAST: 1, THIS: 8} if keeps_epoch else {LAST: 1, THIS: 7, NEXT: 8}
    asyncio.run(recovery._complete_prepared(decided, epochs))
    assert markers.written == {LAST: False, THIS: commit}
