"""One partition: an append-only sequence of record batches. Reading: reading.py; how records
leave: shrinking.py.

Owns the order of batches, the offsets, the producers' state, and when bytes become readable. Does
not own threads, time or waiting: it is synchronous, told the time, and has one owner. An append
goes to the page cache; `start_flush` and `finish_flush` bracket an fsync that runs elsewhere.

After a write or an fsync failed nothing is known about the file. The partition then refuses every
append until the log is opened again and recovery has found what is true; reading goes on. A write
that a full disk refused is taken back (disk_full.py), and the partition goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from millstream.log.config import Durability, TopicConfig
from millstream.log.errors import StorageError
from millstream.log.events import event
from millstream.log.format.codec import BatchHeader, parse_header
from millstream.log.format.control import encode_control_batch
from millstream.log.record import ProducerDescription, TopicPartition

from .appending import as_stored, check_for_append, placed
from .disk_full import DiskFullError
from .files import Files
from .flush import Flush
from .layout import SNAPSHOT, offset_file
from .producer_snapshot import encode_snapshot
from .producer_state import ProducerState
from .results import AppendInfo, ReadResult
from .segment import NO_TIMESTAMP, Segment
from .shrinking import ShrinkingPartition
from .txn_index import AbortedTransaction

__all__ = ["AppendInfo", "Flush", "Partition", "ReadResult"]


class Partition(ShrinkingPartition):
    """An open partition; made by `open_partition` or `create_partition` (loading.py).

    Args:
        folder: its folder, which exists.
        log_end_offset: where the batches in `segments` end; all of them are durable.
        is_sealed: the index files and a snapshot say everything a clean start needs.
        recovery_point: the same for what lies below it; None when that is everything.
        snapshots: offsets of the snapshots on disk that are not where a segment begins.
    """

    def __init__(
        self,
        files: Files,
        folder: str,
        topic_partition: TopicPartition,
        config: TopicConfig,
        *,
        durability: Durability,
        segments: list[Segment],
        producers: ProducerState,
        log_start_offset: int,
        log_end_offset: int,
        is_sealed: bool,
        recovery_point: int | None = None,
        snapshots: Iterable[int] = (),
    ) -> None:
        super().__init__(
            files,
            folder,
            topic_partition,
            config,
            durability=durability,
            segments=segments,
            producers=producers,
            log_start_offset=log_start_offset,
            log_end_offset=log_end_offset,
        )
        self.recovery_point = log_end_offset if recovery_point is None else recovery_point
        """Everything below it is durable, indexes and a snapshot of the producers included."""
        self.durable_offset = log_end_offset
        """Every batch below it is durable. With durability "fsync" the high watermark."""
        self._is_sealed = is_sealed
        self._snapshots = deque(sorted(snapshots))
        self._error: OSError | None = None
        self._flush_failed = False
        self._flush_was_asked = False

    def append(self, batch: bytes, now_ms: int) -> AppendInfo:
        """Append one batch as a producer sent it.

        A transactional batch opens its producer's transaction here, or continues it; the last
        stable offset stays at the first one until the transaction's marker is readable.

        Raises:
            RecordTooLargeError, CorruptRecordError, InvalidRecordError, InvalidTimestampError: the
                batch is not fit.
            NotEnoughReplicasError: the topic asks for more copies than there are.
            InvalidProducerEpochError, OutOfOrderSequenceError, InvalidTxnStateError: its producer
                is not allowed to write it. In all these cases nothing was written.
            StorageError: the disk failed, now or before.
        """
        self._check_writable()
        config = self.config
        header = check_for_append(batch, config, self.topic_partition, now_ms)
        timestamp = now_ms if config.is_log_append_time else NO_TIMESTAMP
        if header.producer_id >= 0:
            original = self._producers.check_batch(header)
            if original is not None:
                timestamp = original.timestamp if config.is_log_append_time else NO_TIMESTAMP
                return AppendInfo(original.first_offset, original.last_offset, timestamp, True)
        batch, header = as_stored(batch, header, config, self.topic_partition, now_ms)
        header = self._write(batch, header, now_ms)
        if header.producer_id >= 0:
            self._producers.note_batch(header, now_ms)
        self._update_offsets()
        return AppendInfo(header.base_offset, header.last_offset, timestamp, False)

    def append_marker(
        self,
        producer_id: int,
        producer_epoch: int,
        *,
        commit: bool,
        coordinator_epoch: int,
        now_ms: int,
    ) -> int:
        """End a producer's transaction, and fence what is late from it if the epoch is higher.

        Returns:
            An offset; the marker counts once the high watermark is above it. A marker that is there
            already is not written again.

        Raises:
            InvalidProducerEpochError, InvalidTxnStateError: the marker is out of date.
            StorageError: the disk failed, now or before.
        """
        self._check_writable()
        if self._producers.is_repeated_marker(producer_id, producer_epoch):
            return self.log_end_offset - 1
        self._producers.check_marker(producer_id, producer_epoch, coordinator_epoch)
        batch = encode_control_batch(
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            commit=commit,
            coordinator_epoch=coordinator_epoch,
            timestamp=now_ms,
        )
        try:
            self._segments.active.txn_index.entries()  # later nothing may stop the note of an abort
        except OSError as error:
            raise self._unreadable(error) from error
        header = self._write(batch, parse_header(batch), now_ms)
        ended = self._producers.note_marker(header, coordinator_epoch, now_ms)
        if ended is not None and self._acknowledges_unsynced:
            self._ended_unsynced.append(ended)
        if ended is not None and not commit:
            stable = self._producers.stable_offset_at(ended.marker_offset)
            self._segments.active.txn_index.append(AbortedTransaction(*ended, stable))
        self._update_offsets()
        return header.base_offset

    def open_transactions(self) -> dict[int, int]:
        """Producer id -> epoch, of every transaction that is open here."""
        return self._producers.open_epochs()

    def next_sequence(self, producer_id: int, producer_epoch: int) -> int:
        """What the next batch of this producer must begin with."""
        return self._producers.next_sequence(producer_id, producer_epoch)

    def describe_producers(self) -> list[ProducerDescription]:
        """What is remembered of every producer that wrote here, by id."""
        return self._producers.describe()

    def expire_producers(self, before_ms: int) -> None:
        """Forget producers that wrote nothing since this time (producer.id.expiration.ms)."""
        self._producers.expire(before_ms)

    @property
    def failed(self) -> bool:
        """Whether a write or an fsync failed, so that appends are refused."""
        return self._error is not None

    @property
    def unflushed(self) -> bool:
        """Whether a flush would make something durable. After a failed write it may, what came
        before is whole; after a failed fsync never."""
        if self._flush_failed:
            return False
        if self._acknowledges_unsynced:
            return self._unsynced.has_sealed or self._flush_is_due
        return self.high_watermark < self.log_end_offset or self._unsynced.has_sealed

    @property
    def _flush_is_due(self) -> bool:
        unflushed = self.log_end_offset - self.durable_offset
        return self._flush_was_asked or unflushed >= self.config.flush_messages

    def ask_for_flush(self) -> None:
        """With durability "os": the next flush takes the active segment too (flush.ms is over)."""
        self._flush_was_asked = (
            self._acknowledges_unsynced and self.durable_offset < self.log_end_offset
        )

    def start_flush(self) -> Flush | None:
        """What an fsync has to do now; None when there is nothing, or one is running already.

        With durability "os" only closed segments are flushed, so that recovery need not read them,
        and the active one when flush.messages or flush.ms want it.
        """
        if self._unsynced.flush_is_running or self._closed or not self.unflushed:
            return None
        active = self._segments.active
        if self._acknowledges_unsynced and not self._flush_is_due:
            return self._unsynced.prepare(active.base_offset, None)
        self._flush_was_asked = False
        return self._unsynced.prepare(self.log_end_offset, active)

    def seal(self) -> bool:
        """Write down what a recovery needs that begins here; the next flush makes it durable and
        moves the recovery point. False when nothing has come since the last time.

        Raises:
            StorageError: the disk failed, now or before.
        """
        self._check_writable()
        if self.log_end_offset in (self.recovery_point, self._unsynced.sealed_to):
            return self._unsynced.has_sealed
        try:
            self._seal_active()
        except OSError as error:
            raise self._failed(error) from error
        return True

    def take_old_snapshots(self, recovery_point: int) -> list[str]:
        """Snapshot files that no recovery needs once this recovery point is on disk. Any thread."""
        taken = []
        while self._snapshots and self._snapshots[0] < recovery_point:
            taken.append(offset_file(self.folder, self._snapshots.popleft(), SNAPSHOT))
        return taken

    def finish_flush(self, flush: Flush, error: OSError | None) -> None:
        """The flush has run, or failed with `error`: then the partition takes no more writes."""
        self._unsynced.finish(flush, failed=error is not None)
        if error is not None:
            self._error, self._flush_failed = error, True
        else:
            self.recovery_point = max(self.recovery_point, flush.recovery_point)
            self.durable_offset = max(self.durable_offset, self.recovery_point, flush.offset)
            self.high_watermark = max(self.high_watermark, flush.offset)
            ended = self._ended_unsynced
            while ended and ended[0].marker_offset < self.durable_offset:
                ended.popleft()
            self._update_offsets()
        if self._closed:
            self._close_files()

    def close(self, *, clean: bool = True) -> None:
        """Close the files. A clean close flushes first and leaves nothing to recover; it must not
        come while a flush runs.

        Raises:
            StorageError: the disk failed, now or before; the files are closed all the same.
        """
        if self._closed:
            return
        try:
            if clean:
                self._check_writable()
                self._flush_all()
        finally:
            self._closed = True
            if not self._unsynced.flush_is_running:
                self._close_files()

    def _write(self, batch: bytes, header: BatchHeader, now_ms: int) -> BatchHeader:
        """Put a batch at the end of the log. Returns its header as stored."""
        header, parts = placed(batch, header, self.log_end_offset)
        self._is_sealed = False
        try:
            if not self._segments.active.takes(header, self.config, now_ms):
                self._roll()
            self._segments.active.append(header, parts, self.config.index_interval_bytes)
        except OSError as error:
            raise self._failed(error) from error
        self.log_end_offset = header.last_offset + 1
        return header

    def _roll(self) -> None:
        """Close the active segment and begin a new one."""
        event("segment rolled", partition=self.topic_partition, base_offset=self.log_end_offset)
        self._is_sealed = False
        self._seal_active()
        segment = Segment(self._files, self.folder, self.log_end_offset, create=True)
        self._snapshots.pop()  # a segment begins there now
        self._segments.add(segment)
        self._drop_below_start()

    def _close_active(self) -> None:
        self._check_writable()
        try:
            self._roll()
        except OSError as error:
            raise self._failed(error) from error

    def _seal_active(self) -> None:
        active = self._segments.active
        active.seal()
        self._write_snapshot()
        self._unsynced.note_sealed(active, self.log_end_offset)
        if not self._snapshots or self._snapshots[-1] != self.log_end_offset:
            self._snapshots.append(self.log_end_offset)

    def _write_snapshot(self) -> None:
        path = offset_file(self.folder, self.log_end_offset, SNAPSHOT)
        if not self._files.exists(path):  # the last clean stop may have left it, here, at the end
            self._unsynced.write_file(path, encode_snapshot(self._producers))

    def _flush_all(self) -> None:
        if self._is_sealed:
            return  # nothing was written since a clean start
        try:
            self._seal_active()
            flush = self._unsynced.prepare(self.log_end_offset, None)
        except OSError as error:
            raise self._failed(error) from error
        try:
            flush.run()
        except OSError as error:
            self.finish_flush(flush, error)
            raise self._refusal() from error
        self.finish_flush(flush, None)

    def _close_files(self) -> None:
        self._unsynced.close()
        for segment in self._segments:
            segment.close()

    def _check_writable(self) -> None:
        self._check_open()
        if self._error is not None:
            raise self._refusal() from self._error

    def _failed(self, error: OSError) -> StorageError:
        if isinstance(error, DiskFullError):
            return StorageError(
                f"Partition {self.topic_partition}: the disk is full ({error.strerror}); this was "
                f"not written. Make room under {self.folder}, or let records go sooner "
                "(retention.ms, retention.bytes, delete_records); then the partition takes writes "
                "again."
            )
        self._error = error
        return self._refusal()

    def _refusal(self) -> StorageError:
        return StorageError(
            f"Partition {self.topic_partition} takes no more writes: the disk failed "
            f"({self._error}) and nothing is known about what it kept. Mend the disk under "
            f"{self.folder} and open the log again; everything acknowledged is found then."
        )
