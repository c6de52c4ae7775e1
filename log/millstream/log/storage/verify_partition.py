"""One partition of a closed log, every byte of it: names, batches, offsets, indexes, snapshots.

After a clean stop everything has to fit. After any other stop the end of the log is what the next
opening will make of it (`recovery.py`): segments above the recovery point may end in anything, and
their indexes and snapshots are built anew, so nothing is said about those. What lies below the
recovery point was synced and has to be right in both cases.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import NamedTuple

from millstream.log.errors import CorruptRecordError
from millstream.log.format.codec import BatchHeader, decode_batch
from millstream.log.record import TopicPartition

from .appending import LEADER_EPOCH
from .checkpoints import encode_leader_epochs
from .files import Files
from .findings import Finding, error, notice
from .layout import (
    CLEANED,
    INDEX,
    LEADER_EPOCHS,
    LOG,
    PARTITION_METADATA,
    SNAPSHOT,
    SWAP,
    TIME_INDEX,
    TXN_INDEX,
    offset_file,
    offset_of,
)
from .verify_batches import FoundBatch, OnBytes, found_batches
from .verify_indexes import IndexCheck
from .verify_producers import ProducerCheck

__all__ = ["PartitionCheck", "PartitionFacts"]

RESTORE = (
    "Restore the partition's folder from a backup, or give up the records from there on: remove "
    "recovery-point-offset-checkpoint, replication-offset-checkpoint and .kafka_cleanshutdown and "
    "open the log"
)
NEXT_OPENING = "The next opening mends it"
SUFFIXES = (LOG, INDEX, TIME_INDEX, TXN_INDEX, SNAPSHOT)


class PartitionFacts(NamedTuple):
    """What the rest of the log says about a partition; -1 where it says nothing."""

    topic_partition: TopicPartition
    clean: bool
    recovery_point: int
    log_start_offset: int
    high_watermark: int
    cleaned_to: int
    """Below this offset compaction has been at work."""


class PartitionCheck:
    """One look at one partition.

    Args:
        records: also decode every record.
    """

    def __init__(
        self, files: Files, folder: str, facts: PartitionFacts, on_bytes: OnBytes, *, records: bool
    ) -> None:
        self._files = files
        self._folder = folder
        self._facts = facts
        self._on_bytes = on_bytes
        self._records = records
        self._names = files.list_dir(folder)
        self._swapped = {
            base: offset_file(folder, base, LOG) + SWAP for base in self._offsets(LOG + SWAP)
        }
        self._bases = self._segments()
        self._trusted = self._count_trusted()
        """So many segments were sealed and synced, indexes and all."""
        self._end = self._bases[0] if self._bases else 0
        self._is_cut = False
        self._is_lost = False
        """The batch before was damaged."""
        self.producer_id_max = -1
        """The largest producer id in any batch, once `run` has ended."""

    def _offsets(self, suffix: str) -> list[int]:
        found = (offset_of(name, suffix) for name in self._names)
        return sorted(offset for offset in found if offset is not None)

    def _segments(self) -> list[int]:
        """Base offsets of the segments. One that compaction has swapped in stands for those up to
        its end, whether or not their files are gone already."""
        bases = set(self._offsets(LOG)) | self._swapped.keys()
        for base, path in self._swapped.items():
            end = _end_of(self._files, path)
            bases -= {other for other in bases if base < other < end}
        kept = sorted(bases)
        while len(kept) > 1 and kept[1] <= self._facts.log_start_offset:
            kept.pop(0)  # below the log start offset: its removal was cut short
        return kept

    def _count_trusted(self) -> int:
        if self._facts.clean:
            return len(self._bases)
        return max(sum(base < self._facts.recovery_point for base in self._bases) - 1, 0)

    def run(self) -> Iterator[Finding]:
        """Everything that is wrong in the folder.

        Raises:
            OSError: the disk could not be read.
        """
        yield from self._check_names()
        yield from self._check_leader_epochs()
        if not self._bases:
            if self._facts.clean or self._facts.recovery_point > self._facts.log_start_offset:
                yield error(self._folder, -1, "there is no segment", RESTORE)
            return
        producers = self._producers()
        for i, base in enumerate(self._bases):
            if not self._is_cut:
                yield from self._check_segment(i, base, producers)
        yield from producers.reached(self._end)
        if self._facts.clean and not self._is_lost:
            for offset in producers.beyond():
                path = offset_file(self._folder, offset, SNAPSHOT)
                yield error(path, -1, f"the log ends at offset {self._end}", "Remove the file")
        yield from self._check_offsets()

    def _producers(self) -> ProducerCheck:
        """Snapshots above the last trusted segment are written anew after an unclean stop."""
        last = self._bases[min(self._trusted, len(self._bases) - 1)]
        snapshots = [each for each in self._offsets(SNAPSHOT) if each >= self._bases[0]]
        if not self._facts.clean:
            snapshots = [offset for offset in snapshots if offset <= last]
        return ProducerCheck(
            self._files,
            self._folder,
            self._facts.topic_partition,
            snapshots,
            self._bases[0],
            self._facts.cleaned_to,
        )

    def _check_names(self) -> Iterator[Finding]:
        bases = set(self._bases)
        for name in self._names:
            path = f"{self._folder}/{name}"
            if self._is_superseded(name, bases):
                if self._facts.clean and name.endswith(LOG):
                    what = f"it lies below the log start offset {self._facts.log_start_offset}"
                    yield error(path, -1, what, "Restore log-start-offset-checkpoint, or remove it")
                else:
                    yield notice(path, "the removal of its segment was cut short", NEXT_OPENING)
            if name.endswith((CLEANED, SWAP)):
                yield notice(path, "a compaction or a recovery was cut short", NEXT_OPENING)
            elif name.endswith(".tmp"):
                yield notice(path, "a file that was being replaced", "It can be removed")
            elif name not in {LEADER_EPOCHS, PARTITION_METADATA} and not any(
                offset_of(name, suffix) is not None for suffix in SUFFIXES
            ):
                if name.endswith(SUFFIXES):
                    what = "its name is no offset of 20 digits, so nobody reads it"
                    yield error(path, -1, what, "Give it its name back")
                else:
                    yield notice(path, "no file of a partition", "Remove it if it is not needed")

    def _is_superseded(self, name: str, bases: set[int]) -> bool:
        """Whether a file is of a segment that is none of the log's any more."""
        if any(
            offset is not None and offset not in bases
            for offset in (offset_of(name, kind) for kind in (LOG, INDEX, TIME_INDEX, TXN_INDEX))
        ):
            return True
        snapshot = offset_of(name, SNAPSHOT)
        return snapshot is not None and bool(self._bases) and snapshot < self._bases[0]

    def _check_leader_epochs(self) -> Iterator[Finding]:
        path = f"{self._folder}/{LEADER_EPOCHS}"
        expected = encode_leader_epochs(LEADER_EPOCH, 0)
        if not self._files.exists(path):
            yield error(path, -1, "the file is missing", f"Write {expected!r} to it")
        elif self._files.read_whole(path) != expected:
            what = "it does not say that epoch 0 begins at offset 0"
            yield error(path, -1, what, f"Write {expected!r} to it")

    def _check_segment(self, i: int, base: int, producers: ProducerCheck) -> Iterator[Finding]:
        path = self._swapped.get(base) or offset_file(self._folder, base, LOG)
        is_trusted = i < self._trusted
        yield from self._check_begin(path, base)
        if self._is_cut:
            return
        handle = self._files.open(path)
        try:
            indexes = None
            if is_trusted:
                swapped = base in self._swapped
                indexes = IndexCheck(self._files, self._folder, base, swapped=swapped)
                yield from indexes.sizes(needed=handle.size() > 0)
            for found in found_batches(handle, self._on_bytes):
                is_sound = yield from self._check_batch(path, found, producers, indexes)
                if self._is_cut or found.header is None:
                    return
                if not is_sound:
                    indexes = None  # what they say of a damaged batch is no finding of its own
            if indexes is not None:
                yield from indexes.finish(compacted=base < self._facts.cleaned_to)
        finally:
            handle.close()

    def _check_begin(self, path: str, base: int) -> Iterator[Finding]:
        """Whether the segment goes on where the one before it ended."""
        end = self._end
        if base == end or end <= base <= self._facts.cleaned_to or (self._is_lost and base > end):
            self._end = base
        elif self._ends_here():
            self._is_cut = True
            what = f"the log ends at offset {self._end}, after an unclean stop"
            yield notice(path, what, NEXT_OPENING)
        else:
            yield error(path, -1, f"the segment before it ends at offset {self._end}", RESTORE)
            self._end = base

    def _ends_here(self) -> bool:
        """Whether the log may end at this point, because what follows was never durable."""
        return not self._facts.clean and self._end >= self._facts.recovery_point

    def _check_batch(
        self, path: str, found: FoundBatch, producers: ProducerCheck, indexes: IndexCheck | None
    ) -> Generator[Finding, None, bool]:
        """Look at the next batch; returns whether it is sound."""
        header, problem = found.header, found.problem
        if header is not None and not problem:
            problem = self._misplaced(header)
        if problem and self._ends_here():
            self._is_cut = True
            what = f"from position {found.position} on nothing was synced: {problem}"
            yield notice(path, what, NEXT_OPENING)
            return False
        if problem:
            yield error(path, found.position, problem, RESTORE)
        if header is None or found.problem:
            self._is_lost = True  # where it ends is not known: the next one says
            producers.lost()
            return False
        self._is_lost = False
        self.producer_id_max = max(self.producer_id_max, header.producer_id)
        yield from producers.reached(header.base_offset)
        unfit, aborted = producers.batch(found)
        if unfit:
            yield error(path, found.position, unfit, RESTORE)
        if indexes is not None:
            yield from indexes.batch(found.position, header)
            if aborted is not None:
                has_records = producers.had_records(aborted)
                indexes.aborted(aborted, has_records=has_records)
        if self._records:
            yield from self._check_records(path, found, header)
        self._end = max(self._end, header.last_offset + 1)
        return not problem

    def _misplaced(self, header: BatchHeader) -> str:
        """What is wrong with offsets and counts, or an empty string."""
        cleaned_to = self._facts.cleaned_to
        base, end = header.base_offset, self._end
        if base < end or (base > max(end, cleaned_to) and not self._is_lost):
            return f"the batch at offset {base} follows offset {end - 1}"
        if header.leader_epoch != LEADER_EPOCH:
            return f"the batch at offset {base} has leader epoch {header.leader_epoch}"
        is_whole = header.records_count == header.last_offset_delta + 1
        if not is_whole and base >= cleaned_to:
            return f"{header.records_count} records on offsets {base} to {header.last_offset}"
        return ""

    def _check_records(
        self, path: str, found: FoundBatch, header: BatchHeader
    ) -> Iterator[Finding]:
        data: bytes | memoryview | None = found.data
        if data is None:
            handle = self._files.open(path)
            try:
                data = handle.read(found.position, header.size_bytes)
            finally:
                handle.close()
        try:
            decode_batch(data, 0, header)
        except CorruptRecordError as problem:
            yield error(path, found.position, str(problem), RESTORE)

    def _check_offsets(self) -> Iterator[Finding]:
        """What the checkpoints say, against where the batches begin and end."""
        facts, end, first = self._facts, self._end, self._bases[0]
        who = self._folder
        if 0 <= facts.log_start_offset < first:
            what = f"the first segment begins at {first}, the log at {facts.log_start_offset}"
            yield error(who, -1, what, RESTORE)
        if self._is_lost:
            return  # where the log ends is not known
        if facts.clean and facts.recovery_point != end:
            what = f"the log ends at offset {end}, the recovery point is {facts.recovery_point}"
            yield error(who, -1, what, RESTORE)
        elif end < facts.recovery_point:
            what = f"the log ends at offset {end}, offsets up to {facts.recovery_point} were synced"
            yield error(who, -1, what, RESTORE)
        if facts.clean and facts.high_watermark != end:
            what = f"the log ends at offset {end}, the high watermark is {facts.high_watermark}"
            yield error(who, -1, what, "Open and close the log")
        if facts.log_start_offset > end and (facts.clean or facts.log_start_offset > first):
            what = f"the log ends at offset {end} and starts at {facts.log_start_offset}"
            yield error(who, -1, what, RESTORE)


def _end_of(files: Files, path: str) -> int:
    """The offset after the last batch of a segment."""
    handle = files.open(path)
    try:
        headers = (each.header for each in found_batches(handle))
        return max((each.last_offset + 1 for each in headers if each), default=0)
    finally:
        handle.close()
