"""What logs, producers and consumers tell about themselves: for tests, metrics and people alike."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ConsumerStats", "LogStats", "ProducerStats"]


@dataclass(frozen=True, slots=True)
class LogStats:
    """A log. `records` counts offsets, those of markers too. `unflushed_partitions` hold something
    that no fsync covers yet; `failed_partitions` take no more writes until the log is reopened."""

    topics: int
    partitions: int
    records: int
    unflushed_partitions: int
    failed_partitions: int
    waiting_fetches: int
    open_transactions: int
    groups: int
    members: int


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """A producer. `buffered_bytes` are handed over and not acknowledged."""

    producer_id: int
    epoch: int
    records_sent: int
    batches_sent: int
    buffered_bytes: int
    in_transaction: bool


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """A consumer. `rebalances` counts the assignments its group gave it."""

    assigned_partitions: int
    records_returned: int
    bytes_fetched: int
    rebalances: int
