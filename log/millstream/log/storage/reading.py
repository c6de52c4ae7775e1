"""What of a partition may be read, and reading it.

    log start offset <= last stable offset <= high watermark <= log end offset

    high watermark      everything below it is as durable as was promised: with durability "fsync" a
                        flush has ended that covers it, with "os" it was handed to the system.
                        Nothing at or above it is ever read, so nothing read can vanish.
    last stable offset  everything below it is decided: no transaction is open there.

Reading goes on after the disk has refused a write. Offsets between these limits need not all be
there: compaction leaves gaps, and a reader gets the next batch there is.
"""

from __future__ import annotations

from typing import Literal

from millstream.log.config import Durability
from millstream.log.errors import LogClosedError, OffsetOutOfRangeError, StorageError
from millstream.log.record import PartitionDescription, TopicPartition

from .producer_state import ProducerState
from .results import ReadResult
from .segment import Segment
from .segment_list import SegmentList
from .time_lookup import first_at, max_timestamp

__all__ = ["ReadablePartition"]


class ReadablePartition:
    """The offsets of an open partition and its segments; `Partition` adds writing.

    Args:
        folder: its folder, which exists.
        log_end_offset: where the batches in `segments` end; all of them are durable.
    """

    def __init__(
        self,
        folder: str,
        topic_partition: TopicPartition,
        *,
        durability: Durability,
        segments: list[Segment],
        producers: ProducerState,
        log_start_offset: int,
        log_end_offset: int,
    ) -> None:
        self.topic_partition = topic_partition
        self.folder = folder
        self.log_start_offset = log_start_offset
        self.high_watermark = log_end_offset
        self.last_stable_offset = log_start_offset
        self.log_end_offset = log_end_offset
        self._acknowledges_unsynced = durability == "os"
        self._segments = SegmentList(segments)
        self._producers = producers
        self._closed = False
        self._update_offsets()

    def read(
        self,
        offset: int,
        *,
        size_bytes_max: int,
        isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
    ) -> ReadResult:
        """Whole batches from the one that holds `offset`, all of one segment.

        Batches are never cut: the first may begin before `offset`, and the reader leaves those
        records out. `size_bytes_max` bounds the bytes, except that one batch is always returned;
        below 0 none is, and nothing is read from the disk.
        read_uncommitted reads up to the high watermark, read_committed to the last stable offset.

        Raises:
            OffsetOutOfRangeError: below the log start offset or above the log end offset.
            CorruptRecordError: something that is no batch lies there.
            StorageError: the disk failed. Nothing changed; another read may succeed.

        Source: Fetch API v4+, KIP-98 (isolation levels).
        """
        self._check_open()
        if not self.log_start_offset <= offset <= self.log_end_offset:
            raise OffsetOutOfRangeError(
                f"Partition {self.topic_partition}: offset {offset} is outside "
                f"{self.log_start_offset} to {self.log_end_offset}. Seek to one that exists, or "
                "set auto.offset.reset."
            )
        committed = isolation == "read_committed"
        limit = self.last_stable_offset if committed else self.high_watermark
        data = b""
        aborted: tuple[tuple[int, int], ...] = ()
        stop = offset
        if offset < limit and size_bytes_max >= 0:
            try:
                data, stop = self._segments.read(offset, limit, self.log_end_offset, size_bytes_max)
                if committed:
                    aborted = tuple(
                        (transaction.producer_id, transaction.first_offset)
                        for transaction in self._segments.aborted(offset, stop)
                    )
            except OSError as error:
                raise self._unreadable(error) from error
        return ReadResult(
            data,
            aborted,
            self.high_watermark,
            self.last_stable_offset,
            self.log_start_offset,
            stop < limit,
        )

    def offset_for_time(self, timestamp: int) -> int | None:
        """The first readable offset whose record is not before `timestamp`; None without one.

        Raises:
            CorruptRecordError, StorageError: as in `read`.
        """
        found = self.first_at(timestamp)
        return None if found is None else found[0]

    def first_at(self, timestamp: int) -> tuple[int, int] | None:
        """Offset and time of the first readable record not before `timestamp`; None without one.

        Raises:
            CorruptRecordError, StorageError: as in `read`.
        """
        self._check_open()
        try:
            start, limit = self.log_start_offset, self.high_watermark
            return first_at(self._segments.from_offset(start), timestamp, start, limit)
        except OSError as error:
            raise self._unreadable(error) from error

    def max_timestamp(self) -> tuple[int, int] | None:
        """Offset and time of the first readable record with the latest time; None where no record
        has a time.

        Raises:
            CorruptRecordError, StorageError: as in `read`.
        """
        self._check_open()
        try:
            start, limit = self.log_start_offset, self.high_watermark
            return max_timestamp(self._segments.from_offset(start), start, limit)
        except OSError as error:
            raise self._unreadable(error) from error

    def describe(self) -> PartitionDescription:
        """The four offsets, and what is stored.

        Raises:
            StorageError: the disk failed.
        """
        self._check_open()
        return PartitionDescription(
            self.topic_partition.partition,
            self.log_start_offset,
            self.last_stable_offset,
            self.high_watermark,
            self.log_end_offset,
            self.size_bytes,
            self.segment_count,
        )

    @property
    def size_bytes(self) -> int:
        """Bytes of its batches. Raises StorageError: the disk does not tell."""
        try:
            return sum(segment.size_bytes for segment in self._segments)
        except OSError as error:
            raise self._unreadable(error) from error

    @property
    def segment_count(self) -> int:
        """How many segments it has."""
        return len(self._segments)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def _update_offsets(self) -> None:
        if self._acknowledges_unsynced:
            self.high_watermark = self.log_end_offset
        unstable = self._producers.first_unstable_offset(self.high_watermark)
        stable = self.high_watermark if unstable is None else min(unstable, self.high_watermark)
        self.last_stable_offset = max(stable, self.log_start_offset)
        assert (
            self.log_start_offset
            <= self.last_stable_offset
            <= self.high_watermark
            <= self.log_end_offset
        )

    def _check_open(self) -> None:
        if self._closed:
            raise LogClosedError(f"Partition {self.topic_partition} is closed; open the log again.")

    def _unreadable(self, error: OSError) -> StorageError:
        return StorageError(
            f"Partition {self.topic_partition} could not be read ({error}). Look at the disk under "
            f"{self.folder}; the records may be readable again later."
        )
