"""Which open transactions a decision that was cut off is about."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from millstream.log import TopicPartition
from millstream.log.broker.txn_records import TransactionMetadata, TransactionState
from millstream.log.broker.txn_recovery import TransactionRecovery
from millstream.log.testing.fake_clock import FakeClock

LAST, THIS, NEXT = (TopicPartition("t", number) for number in range(3))


class Books:
    """Stands for the log of transactions, and for the coordinator's steps."""

    def __init__(self) -> None:
        self.markers: dict[TopicPartition, bool] = {}
        self.table = self

    def complete(self, *_: Any) -> None:
        pass

    def write(self, *_: Any) -> None:
        pass

    async def write_markers(
        self, _producer_id: int, _epoch: int, partitions: set[TopicPartition], *, commit: bool
    ) -> None:
        self.markers |= dict.fromkeys(partitions, commit)

    async def abort(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize("commit", [True, False])
def test_only_the_decided_transaction_gets_its_marker(commit: bool) -> None:
    """One that is older was aborted, and with durability="os" a power loss took the marker: the
    commit of a later one must not bring its records back."""
    books: Any = Books()  # the part of a coordinator and its partitions that is asked
    recovery = TransactionRecovery(books, (), books, FakeClock())
    state = TransactionState.PREPARE_COMMIT if commit else TransactionState.PREPARE_ABORT
    decided = TransactionMetadata("app", 7, 8, 60_000, state, frozenset({THIS}), 0)
    asyncio.run(recovery._complete_prepared(decided, {LAST: 1, THIS: 7, NEXT: 8}))
    assert books.markers == {LAST: False, THIS: commit}
