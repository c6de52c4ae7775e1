"""What is true on disk after an unclean stop.

    1. What lies below the recovery point was synced, indexes and all: it is trusted.
    2. The rest is read batch by batch. What is not one whole batch with a right checksum and the
       next offset ends the log: a write that was torn, bytes that never came, or old ones.
    3. What lies behind is cut off, later segments are removed. Nothing acknowledged is lost by it:
       that was synced, and every batch before it too.
    4. Indexes, snapshots and producer state are built anew from the batches that were read.
    5. The batches above the recovery point are written over themselves before they are synced. If
       an fsync failed before the stop, the kernel may show bytes that are not on disk and call them
       clean; then only writing them again brings them there.

Only after step 5 do the recovered batches count as durable. Until then nothing was lost that
another recovery would need, so a crash on the way changes nothing.

Invalid bytes below the recovery point are another matter: they were synced and have changed since.
Cutting them off would lose acknowledged records silently, so that is an error, and nothing is
touched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from millstream.log.errors import CorruptRecordError
from millstream.log.events import event
from millstream.log.format.codec import HEADER_SIZE_BYTES, BatchHeader, check_batch, parse_header
from millstream.log.limits import RECOVERY_READ_BYTES

from .files import Files, write_file
from .layout import SNAPSHOT, offset_file
from .producer_snapshot import encode_snapshot
from .replay import note
from .resuming import ResumePoint
from .segment import Segment

__all__ = ["Recovery", "valid_batches"]

logger = logging.getLogger(__name__)


@dataclass
class Scanned:
    """What a scan found in one segment."""

    segment: Segment
    start: int
    """Position it began at. With 0 the indexes are built anew, else they hold what is before."""
    valid_bytes: int
    unsynced_position: int | None = None
    """Where the batches above the recovery point begin; None when it has none."""


@dataclass
class Recovery:
    """The recovery of one partition: `scan`, which only reads, then `apply`.

    Args:
        segments: from the first that is not trusted as a whole on; at least one.
        start: where in the first one to begin; its state is brought to the end of the log.
        old_snapshots: offsets of the snapshot files there are.
        durable_offset: everything below it was synced.
        clean_offset: what lies below it was compacted: gaps are no damage there, even where nobody
            knows any more what was synced.
    """

    files: Files
    folder: str
    segments: list[Segment]
    start: ResumePoint
    old_snapshots: list[int]
    durable_offset: int
    clean_offset: int
    index_interval_bytes: int
    now_ms: int
    scanned: list[Scanned] = field(default_factory=list)
    snapshots: list[tuple[int, bytes]] = field(default_factory=list)
    log_end_offset: int = 0
    problem: str = ""
    """Why the log ends where it does, when it does not simply end."""

    def scan(self) -> None:
        """Read everything, find where the valid batches end, and build indexes in memory.

        Raises:
            CorruptRecordError: batches below the recovery point are not what was written.
            OSError: the disk could not be read.
        """
        self.log_end_offset = self.start.offset
        self._scan_segment(self.segments[0], self.start.position)
        for segment in self.segments[1:]:
            if self.problem:
                break
            if not self._continues(segment.base_offset):
                self.problem = f"{segment.path} begins later"
                break
            self.log_end_offset = segment.base_offset
            self._scan_segment(segment, 0)
        if self.log_end_offset < self.durable_offset:
            last = self.scanned[-1]
            raise last.segment.damaged(
                last.valid_bytes,
                f"{self.problem or 'the file ends'}; offsets up to {self.durable_offset} had been "
                "made durable",
            )

    def apply(self) -> list[Segment]:
        """Make the disk say what the scan found, durably. Returns the segments that are left.

        Raises:
            OSError: the disk failed; recovery may begin again.
        """
        kept = [scanned.segment for scanned in self.scanned]
        self._write_snapshots()
        self._cut()
        for scanned in self.scanned:
            if scanned.unsynced_position is not None:
                _rewrite(scanned.segment, scanned.unsynced_position)
            if scanned.segment is not kept[-1]:
                if scanned.start:
                    scanned.segment.seal()
                else:
                    scanned.segment.replace_indexes()
            scanned.segment.fsync()
            scanned.segment.close()  # there may be more than a process may have open
        self.files.fsync_dir(self.folder)
        return kept

    def _continues(self, base_offset: int) -> bool:
        """Whether a batch of this offset may come next. Compaction leaves gaps, but only below the
        recovery point. No checksum covers a batch's offset: what lies beyond is damage."""
        last = max(self.durable_offset, self.clean_offset, self.log_end_offset)
        return self.log_end_offset <= base_offset <= last

    def _scan_segment(self, segment: Segment, start: int) -> None:
        """From position `start` on."""
        scanned = Scanned(segment, start, start)
        self.scanned.append(scanned)
        if not start:
            segment.clear_indexes()
            if segment.base_offset != self.start.snapshot:
                self.snapshots.append((segment.base_offset, encode_snapshot(self.start.state)))
        try:
            for position, header, batch in valid_batches(segment, start):
                if not self._continues(header.base_offset):
                    raise CorruptRecordError(
                        f"the batch at offset {header.base_offset} follows {self.log_end_offset}"
                    )
                aborted = note(self.start.state, header, batch, self.now_ms)
                segment.note(header, position, self.index_interval_bytes)
                if aborted is not None:
                    segment.txn_index.append(aborted)
                if header.base_offset >= self.durable_offset and scanned.unsynced_position is None:
                    scanned.unsynced_position = position
                self.log_end_offset = header.last_offset + 1
                scanned.valid_bytes = position + header.size_bytes
        except CorruptRecordError as error:
            self.problem = f"{segment.path} from position {scanned.valid_bytes} on: {error}"
        segment.close()

    def _cut(self) -> None:
        last = self.scanned[-1]
        gone = self.segments[len(self.scanned) :]
        excess_bytes = last.segment.size_bytes - last.valid_bytes
        if not gone and not excess_bytes:
            return
        event(
            "log cut after an unclean stop",
            logging.WARNING,
            folder=self.folder,
            log_end_offset=self.log_end_offset,
            removed_bytes=excess_bytes,
            removed_segments=len(gone),
            problem=self.problem,
        )
        for segment in reversed(gone):
            segment.remove()
        if excess_bytes:
            last.segment.truncate(last.valid_bytes)

    def _write_snapshots(self) -> None:
        """Those between the scanned segments. Later ones describe batches that may be gone; the one
        this recovery began with may be the only source there is, and stays untouched."""
        for offset in self.old_snapshots:
            if offset > self.start.offset:
                self.files.remove(offset_file(self.folder, offset, SNAPSHOT))
        for offset, data in self.snapshots:
            write_file(self.files, offset_file(self.folder, offset, SNAPSHOT), data)


def valid_batches(
    segment: Segment, position: int = 0
) -> Iterator[tuple[int, BatchHeader, memoryview]]:
    """Position, header and bytes of each batch from `position` on whose checksum is right.

    Raises:
        CorruptRecordError: where the first comes that is not, before the end of the file.
    """
    end = segment.size_bytes
    chunk, chunk_position = b"", position
    while position < end:
        start = position - chunk_position
        if len(chunk) - start < HEADER_SIZE_BYTES:
            chunk, chunk_position, start = segment.read(position, RECOVERY_READ_BYTES), position, 0
        header = parse_header(chunk, start)
        if len(chunk) - start < header.size_bytes <= end - position:
            size = max(RECOVERY_READ_BYTES, header.size_bytes)
            chunk, chunk_position, start = segment.read(position, size), position, 0
        check_batch(chunk, start, header)
        yield position, header, memoryview(chunk)[start : start + header.size_bytes]
        position += header.size_bytes


def _rewrite(segment: Segment, position: int) -> None:
    while position < segment.size_bytes:
        data = segment.read(position, RECOVERY_READ_BYTES)
        segment.handle.overwrite(position, data)
        position += len(data)
