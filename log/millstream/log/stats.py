"""What the long-lived objects of a log tell about themselves, at one moment.

Each has `stats()`: synchronous, cheap, and never in the way of what it counts. Totals count from
the moment the log was opened. Names end in their unit: `_bytes`, `_ms`, `_s`; a name without a unit
is a count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = [
    "CleanerStats",
    "ConsumerStats",
    "FlusherStats",
    "GroupsStats",
    "LogStats",
    "OffsetsStats",
    "PartitionsStats",
    "ProducerStats",
    "TransactionsStats",
]


class LogStats(NamedTuple):
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
    producers: int
    """Open ones, of this process."""
    consumers: int
    """Open ones, of this process."""


class PartitionsStats(NamedTuple):
    """All partitions together. `appended_*` leave out duplicates and transaction markers."""

    topics: int
    partitions: int
    unflushed: int
    failed: int
    waiting_fetches: int
    appended_batches: int
    appended_records: int
    appended_bytes: int
    fetched_bytes: int
    """Handed to whoever reads, as batches are stored."""


class FlusherStats(NamedTuple):
    """Group commit. A flush is all fsyncs of one partition that run as one."""

    running: int
    wanted: int
    """Partitions whose flush has not begun."""
    waiting: int
    """Futures that wait for a flush."""
    flushes: int
    failed: int
    seconds: float
    """Spent in flushes, added up over the threads they ran in."""
    buckets: tuple[int, ...]
    """How many flushes took at most `FLUSH_BUCKETS_S[i]` and more than the one before; the last
    entry is those that took longer than all."""


class TransactionsStats(NamedTuple):
    """The transaction coordinator."""

    transactional_ids: int
    open: int
    ending: int
    stuck: int
    """Decided, and the disk was full, or failed, before the end; see txn_stuck.py."""
    committed: int
    aborted: int
    """All of them: by their producers, by time-out, by force."""
    timed_out: int
    fenced: int
    """Open transactions that were aborted because another producer took over, or by force."""
    expired: int
    """Transactional ids forgotten after transactional.id.expiration.ms."""


class GroupsStats(NamedTuple):
    """The group coordinator."""

    groups: int
    members: int
    by_state: Mapping[str, int]
    """Kafka's name of a state -> groups in it."""
    rebalances: int
    """Generations whose members have their assignment."""


class OffsetsStats(NamedTuple):
    """Committed offsets."""

    groups: int
    offsets: int
    pending: int
    """Offsets that wait for the end of a transaction."""


class CleanerStats(NamedTuple):
    """Retention and compaction."""

    segments_deleted: int
    """By retention."""
    compactions: int
    bytes_read: int
    bytes_written: int
    records_removed: int
    failures: int


class ProducerStats(NamedTuple):
    """A producer. `buffered_bytes` are handed over and not acknowledged."""

    producer_id: int
    epoch: int
    records_sent: int
    batches_sent: int
    buffered_bytes: int
    in_transaction: bool


class ConsumerStats(NamedTuple):
    """A consumer. `rebalances` counts the assignments its group gave it."""

    assigned_partitions: int
    records_returned: int
    bytes_fetched: int
    rebalances: int
