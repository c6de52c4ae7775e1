"""Sequences, transactions and snapshots of one partition, followed from batch to batch.

The state is what an append makes of a partition (`producer_state.py`), built from the batches once
more. A snapshot must say the same. Two things are allowed: a producer it has forgotten, because
those that are silent expire, and what compaction took away before it was written.
"""

from __future__ import annotations

from collections.abc import Iterator

from millstream.log.errors import CorruptRecordError
from millstream.log.format.codec import BatchHeader
from millstream.log.record import TopicPartition

from .files import Files
from .findings import Finding, error
from .layout import SNAPSHOT, offset_file
from .producer_snapshot import decode_snapshot
from .producer_state import ProducerEntry, ProducerState
from .replay import note
from .txn_index import AbortedTransaction
from .verify_batches import FoundBatch

__all__ = ["ProducerCheck"]

SNAPSHOT_ADVICE = "Remove the file and .kafka_cleanshutdown: the next opening goes by an older one"
NOW_MS = 0  # nothing expires here
Facts = tuple[int, int, int, int, int, int]


class ProducerCheck:
    """The producers of one partition.

    Args:
        snapshots: offsets of the snapshots that can be trusted to be whole, ascending.
        start: the first offset there are batches for.
        cleaned_to: below this offset compaction has been at work.
    """

    def __init__(
        self,
        files: Files,
        folder: str,
        topic_partition: TopicPartition,
        snapshots: list[int],
        start: int,
        cleaned_to: int,
    ) -> None:
        self._files = files
        self._folder = folder
        self._topic_partition = topic_partition
        self._snapshots = list(snapshots)
        self._cleaned_to = cleaned_to
        self._baseline: int | None = 0 if start == 0 else None
        """Where the state is known that the batches are counted from."""
        self._end = start
        self._state = ProducerState(topic_partition)
        self._last_records: dict[int, int] = {}  # of transactional producers, an offset

    def batch(self, found: FoundBatch) -> tuple[str, AbortedTransaction | None]:
        """The next batch, after `reached` of its base offset. What is wrong with it, or an empty
        string; and the transaction that it aborts."""
        header = found.header
        assert header is not None
        self._end = header.last_offset + 1
        if header.producer_id < 0:
            return "", None
        if header.is_control and found.data is None:
            return f"a transaction marker of {header.size_bytes} bytes", None
        problem = "" if header.is_control else self._unfit(header)
        if header.is_transactional and not header.is_control and header.records_count:
            self._last_records[header.producer_id] = header.last_offset
        try:
            return problem, note(self._state, header, found.data or b"", NOW_MS)
        except CorruptRecordError as error:
            return str(error), None

    def had_records(self, aborted: AbortedTransaction) -> bool:
        """Whether records of this transaction are still there; compaction takes them."""
        return self._last_records.get(aborted.producer_id, -1) >= aborted.first_offset

    def _unfit(self, header: BatchHeader) -> str:
        """What this batch should not have been written with, or an empty string."""
        if header.base_sequence < 0 or header.producer_epoch < 0:
            return f"producer {header.producer_id} wrote without a sequence"
        entry = self._state.producers.get(header.producer_id)
        if entry is None:
            return ""
        who = f"producer {header.producer_id}"
        if header.producer_epoch < entry.epoch:
            return f"{who} wrote with epoch {header.producer_epoch} after {entry.epoch}"
        is_same = header.producer_epoch == entry.epoch
        expected = entry.next_sequence if is_same else 0
        if header.base_sequence != expected and self._is_untouched(entry):
            return f"{who} wrote sequence {header.base_sequence} where {expected} is next"
        if header.producer_id in self._state.open_transactions and not header.is_transactional:
            return f"{who} wrote outside the transaction it has open"
        return ""

    def _is_untouched(self, entry: ProducerEntry) -> bool:
        """Whether nothing of this producer can be missing behind what is known of it."""
        if not entry.batches:
            return self._cleaned_to == 0
        return entry.batches[-1].last_offset >= self._cleaned_to

    def lost(self) -> None:
        """A batch is damaged: until the next snapshot nothing is known for sure."""
        self._baseline = None
        self._state = ProducerState(self._topic_partition)

    def reached(self, offset: int) -> Iterator[Finding]:
        """Everything below `offset` was seen: the snapshots up to there can be compared."""
        while self._snapshots and self._snapshots[0] <= offset:
            yield from self._compare(self._snapshots.pop(0))

    def beyond(self) -> list[int]:
        """Snapshots of offsets that were not reached."""
        return self._snapshots

    def _compare(self, offset: int) -> Iterator[Finding]:
        path = offset_file(self._folder, offset, SNAPSHOT)
        try:
            stored = decode_snapshot(self._files.read_whole(path), path, self._topic_partition)
        except CorruptRecordError as problem:
            yield error(path, -1, str(problem), SNAPSHOT_ADVICE)
            return
        if offset < self._end:
            what = f"offset {offset} is inside a batch, which ends with {self._end - 1}"
            yield error(path, -1, what, SNAPSHOT_ADVICE)
            return
        if self._baseline is not None and self._baseline >= self._cleaned_to:
            what = _difference(_facts(stored), _facts(self._state))
            if what:
                yield error(path, -1, what, SNAPSHOT_ADVICE)
        self._state = stored
        self._baseline = offset


def _facts(state: ProducerState) -> dict[int, Facts]:
    """What a snapshot holds of each producer, except when it was last heard of: batches do not say
    that."""
    facts = {}
    for producer_id, entry in state.producers.items():
        last = entry.batches[-1] if entry.batches else None
        facts[producer_id] = (
            entry.epoch,
            last.last_sequence if last else -1,
            last.last_offset if last else -1,
            last.last_offset - last.first_offset if last else 0,
            entry.coordinator_epoch,
            state.open_transactions.get(producer_id, -1),
        )
    return facts


def _difference(stored: dict[int, Facts], replayed: dict[int, Facts]) -> str:
    """The first thing in which they differ, or an empty string."""
    for producer_id, facts in stored.items():
        other = replayed.get(producer_id)
        if other is None:
            return f"it has producer {producer_id}, who wrote nothing before it"
        came_back = (*other[:4], -1, other[5])  # a silent producer was forgotten, markers and all
        if facts not in (other, came_back):
            return (
                f"of producer {producer_id} it says {_told(facts)}, the batches say {_told(other)}"
            )
    for producer_id, facts in replayed.items():
        if producer_id not in stored and facts[-1] >= 0:
            return f"the transaction of producer {producer_id} from {facts[-1]} on is not in it"
    return ""


def _told(facts: Facts) -> str:
    epoch, sequence, offset, delta, coordinator, first = facts
    return (
        f"(epoch {epoch}, sequence {sequence}, offset {offset}-{delta}, "
        f"coordinator epoch {coordinator}, transaction from {first})"
    )
