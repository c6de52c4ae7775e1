"""What a partition remembers of its producers: to tell duplicates, gaps and zombies, and to know
which transactions are open.

For every producer id: its epoch, its last five batches, and where its open transaction began. It is
a function of the batches in the log alone, in order: after a restart it comes from a snapshot and
the batches behind it. `check_*` decide and change nothing; `note_*` follow what was written.

Two lists decide the last stable offset: transactions that are open, and transactions that ended but
whose marker is not below the high watermark yet.

Source: KIP-98 (idempotence, transactions), KIP-890 (a marker carries the next epoch, so that what
is late from the transaction it ends is refused).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from millstream.log.errors import (
    InvalidProducerEpochError,
    InvalidTxnStateError,
    OutOfOrderSequenceError,
)
from millstream.log.format.codec import BatchHeader
from millstream.log.record import ProducerDescription, TopicPartition

__all__ = ["BatchSequence", "EndedTransaction", "ProducerEntry", "ProducerState"]

BATCHES_REMEMBERED = 5
"""A producer has at most five batches in flight (Kafka's max.in.flight limit with idempotence), so
a duplicate of an older one cannot come."""
SEQUENCES = 1 << 31
NO_EPOCH = -1


class BatchSequence(NamedTuple):
    """Where a batch of an idempotent producer lies. Both ends inclusive."""

    first_sequence: int
    last_sequence: int
    first_offset: int
    last_offset: int
    timestamp: int


class EndedTransaction(NamedTuple):
    """A transaction and its marker."""

    producer_id: int
    first_offset: int
    marker_offset: int


@dataclass(slots=True)
class ProducerEntry:
    """One producer. `batches` are those of `epoch`, oldest first; empty right after a marker that
    raised the epoch. `last_timestamp` is what its last batch says, `last_seen_ms` when it came."""

    producer_id: int
    epoch: int = NO_EPOCH
    coordinator_epoch: int = -1
    last_timestamp: int = -1
    last_seen_ms: int = 0
    batches: deque[BatchSequence] = field(default_factory=lambda: deque(maxlen=BATCHES_REMEMBERED))

    def duplicate_of(self, header: BatchHeader) -> BatchSequence | None:
        """The batch that was appended with these very sequences, if it is remembered."""
        if header.producer_epoch == self.epoch:
            for batch in self.batches:
                if (
                    batch.first_sequence == header.base_sequence
                    and batch.last_sequence == header.last_sequence
                ):
                    return batch
        return None

    @property
    def next_sequence(self) -> int:
        """What the next batch of this epoch must begin with."""
        return (self.batches[-1].last_sequence + 1) % SEQUENCES if self.batches else 0


class ProducerState:
    """All producers of one partition."""

    def __init__(self, topic_partition: TopicPartition) -> None:
        self._topic_partition = topic_partition
        self.producers: dict[int, ProducerEntry] = {}
        self.open_transactions: dict[int, int] = {}
        """Producer id -> first offset, in the order they began."""
        self.ended_transactions: deque[EndedTransaction] = deque()
        """Those whose marker is not below the high watermark, in the order they ended."""

    def check_batch(self, header: BatchHeader) -> BatchSequence | None:
        """Whether this batch may be appended; the original when it was appended before.

        Raises:
            InvalidProducerEpochError: the producer was fenced.
            OutOfOrderSequenceError: batches before this one are missing.
            InvalidTxnStateError: it is outside the transaction its producer has open.
        """
        entry = self.producers.get(header.producer_id)
        if entry is None:
            return None  # unknown, or forgotten after a day: any sequence will do (KIP-360)
        duplicate = entry.duplicate_of(header)
        if duplicate is not None:
            return duplicate
        self._check_epoch(entry, header.producer_epoch)
        same_epoch = header.producer_epoch == entry.epoch
        expected = entry.next_sequence if same_epoch else 0
        if header.base_sequence != expected:
            raise OutOfOrderSequenceError(
                f"{self._about(header.producer_id)}: sequence {header.base_sequence} of epoch "
                f"{header.producer_epoch} where {expected} is next. Batches before it were lost or "
                "came out of order: close this producer and make a new one."
            )
        if entry.producer_id in self.open_transactions and not (
            same_epoch and header.is_transactional
        ):
            raise InvalidTxnStateError(
                f"{self._about(header.producer_id)}: a transaction of epoch {entry.epoch} is open, "
                f"this batch (epoch {header.producer_epoch}, transactional: "
                f"{header.is_transactional}) is no part of it. Commit or abort it first."
            )
        return None

    def note_batch(self, header: BatchHeader, now_ms: int) -> None:
        """A batch, not a control batch, was appended; `header` has its offsets."""
        entry = self._entry_for(header, now_ms)
        entry.batches.append(
            BatchSequence(
                header.base_sequence,
                header.last_sequence,
                header.base_offset,
                header.last_offset,
                header.max_timestamp,
            )
        )
        if header.is_transactional:
            self.open_transactions.setdefault(header.producer_id, header.base_offset)

    def is_repeated_marker(self, producer_id: int, producer_epoch: int) -> bool:
        """Whether the transaction this marker would end has its marker already: a coordinator that
        recovers sends them again."""
        entry = self.producers.get(producer_id)
        return (
            entry is not None
            and entry.epoch == producer_epoch
            and not entry.batches
            and producer_id not in self.open_transactions
        )

    def check_marker(self, producer_id: int, producer_epoch: int, coordinator_epoch: int) -> None:
        """Whether this marker may be appended.

        Raises:
            InvalidProducerEpochError: it is older than what the partition has seen.
            InvalidTxnStateError: its coordinator has been replaced.
        """
        entry = self.producers.get(producer_id)
        if entry is None:
            return
        self._check_epoch(entry, producer_epoch)
        if coordinator_epoch < entry.coordinator_epoch:
            raise InvalidTxnStateError(
                f"{self._about(producer_id)}: a marker of coordinator epoch {coordinator_epoch}, "
                f"but epoch {entry.coordinator_epoch} has written one. An old coordinator is "
                "still running: stop it."
            )

    def note_marker(
        self, header: BatchHeader, coordinator_epoch: int, now_ms: int
    ) -> EndedTransaction | None:
        """A marker was appended: the producer's transaction has ended, if it had one here."""
        self._entry_for(header, now_ms).coordinator_epoch = coordinator_epoch
        first_offset = self.open_transactions.pop(header.producer_id, None)
        if first_offset is None:
            return None
        ended = EndedTransaction(header.producer_id, first_offset, header.base_offset)
        self.ended_transactions.append(ended)
        return ended

    def stable_offset_at(self, marker_offset: int) -> int:
        """The last stable offset once this marker, the newest, is readable."""
        return next(iter(self.open_transactions.values()), marker_offset + 1)

    def first_unstable_offset(self, high_watermark: int) -> int | None:
        """First offset of the oldest transaction whose end cannot be read yet; None without one."""
        while self.ended_transactions and self.ended_transactions[0].marker_offset < high_watermark:
            self.ended_transactions.popleft()
        if not (self.open_transactions or self.ended_transactions):
            return None
        oldest = [ended.first_offset for ended in self.ended_transactions]
        if self.open_transactions:
            oldest.append(next(iter(self.open_transactions.values())))
        return min(oldest, default=None)

    def open_epochs(self) -> dict[int, int]:
        """Producer id -> epoch, of every open transaction."""
        return {each: self.producers[each].epoch for each in self.open_transactions}

    def next_sequence(self, producer_id: int, producer_epoch: int) -> int:
        """What the next batch of this producer must begin with."""
        entry = self.producers.get(producer_id)
        return entry.next_sequence if entry is not None and entry.epoch == producer_epoch else 0

    def describe(self) -> list[ProducerDescription]:
        """Every producer that is remembered, by id."""
        return [
            ProducerDescription(
                producer_id,
                entry.epoch,
                entry.batches[-1].last_sequence if entry.batches else -1,
                entry.last_timestamp,
                entry.coordinator_epoch if entry.coordinator_epoch >= 0 else None,
                self.open_transactions.get(producer_id),
            )
            for producer_id, entry in sorted(self.producers.items())
        ]

    def seen_by(self, now_ms: int) -> None:
        """Nobody was heard of later than now, whatever a snapshot says: the clock may have been
        set back since."""
        for entry in self.producers.values():
            entry.last_seen_ms = min(entry.last_seen_ms, now_ms)

    def expire(self, before_ms: int) -> None:
        """Forget producers silent since this time, except those in a transaction."""
        for producer_id, entry in list(self.producers.items()):
            if entry.last_seen_ms <= before_ms and producer_id not in self.open_transactions:
                del self.producers[producer_id]

    def _check_epoch(self, entry: ProducerEntry, producer_epoch: int) -> None:
        if producer_epoch < entry.epoch:
            raise InvalidProducerEpochError(
                f"{self._about(entry.producer_id)}: epoch {producer_epoch}, but {entry.epoch} has "
                "been seen. Another producer took over or the transaction was ended: stop this one."
            )

    def _entry_for(self, header: BatchHeader, now_ms: int) -> ProducerEntry:
        """The entry of this batch's producer, brought to the batch's epoch."""
        entry = self.producers.get(header.producer_id)
        if entry is None:
            entry = self.producers[header.producer_id] = ProducerEntry(header.producer_id)
        if header.producer_epoch != entry.epoch:
            entry.epoch = header.producer_epoch
            entry.batches.clear()
        entry.last_timestamp = header.max_timestamp
        entry.last_seen_ms = now_ms
        return entry

    def _about(self, producer_id: int) -> str:
        return f"Partition {self._topic_partition}, producer id {producer_id}"
