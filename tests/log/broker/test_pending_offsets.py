"""Offsets that wait for the end of transactions: whose they are, and what asking costs."""

from __future__ import annotations

import pytest

from millstream.log import OffsetAndMetadata, TopicPartition
from millstream.log.broker.offset_records import OffsetKey
from millstream.log.broker.offsets import OffsetTable

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
FIVE = OffsetAndMetadata(5)


def test_an_offset_is_held_until_the_last_transaction_lets_go() -> None:
    table = OffsetTable()
    for producer_id in (1, 2):
        for log_offset in (10, 11):  # once more in the same transaction
            table.add_pending(producer_id, "g", {T0: FIVE, T1: FIVE}, log_offset, 0)
    assert not table.is_pending("other", T0)
    table.end_transaction(1, commit=True)
    assert table.undecided_of("g") == {T0, T1}
    table.remove([OffsetKey("g", T0)], 11)
    assert table.is_pending("g", T0), "its record lies behind"
    table.remove([OffsetKey("g", T0)], 12)
    assert not table.is_pending("g", T0)
    table.begin_commit("g", [T0])
    assert table.undecided_of("g") == {T0, T1}
    table.end_commit("g", [T0])
    table.end_transaction(2, commit=False)
    assert (table.undecided_of("g"), table.pending) == (set(), 0)
    assert table.of_group("g") == {T1: FIVE}


def test_what_asking_costs_does_not_grow_with_the_transactions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A client may have thousands open, and ask for thousands of offsets at once."""
    hashed = 0

    def counted(self: TopicPartition) -> int:
        nonlocal hashed
        hashed += 1
        return hash((self.topic, self.partition))

    monkeypatch.setattr(TopicPartition, "__hash__", counted)
    costs = []
    for transactions in (1, 50):
        table = OffsetTable()
        for producer_id in range(transactions):
            table.add_pending(producer_id, f"g{producer_id}", {T0: FIVE}, producer_id, 0)
        hashed = 0
        assert not table.is_pending("h", T0)
        assert table.undecided_of("h") == set()
        costs.append(hashed)
    assert costs[0] == costs[1]
