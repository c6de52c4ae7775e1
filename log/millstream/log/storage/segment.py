"""One segment of a partition: a file of record batches and its three indexes.

    BASE.log        batches one after the other, exactly the bytes a fetch returns
    BASE.index      offset -> position           see offset_index.py
    BASE.timeindex  timestamp -> offset          see time_index.py
    BASE.txnindex   aborted transactions         see txn_index.py

The indexes of the active segment are in memory and written when it is sealed, so an append is one
write. What a crash takes of them recovery finds again in the batches: they are trusted only in
segments that were sealed and synced.

Owns bytes and positions. Knows nothing of producers, high watermarks or which segment is active.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from millstream.log.config import TopicConfig
from millstream.log.errors import CorruptRecordError
from millstream.log.format.codec import HEADER_SIZE_BYTES, BatchHeader, parse_header
from millstream.log.format.header import checksum
from millstream.log.limits import FIND_BYTES, WALK_BYTES

from .disk_full import append_or_nothing, make_or_nothing
from .files import FileHandle, Files
from .layout import CLEANED, INDEX, LOG, SNAPSHOT, TIME_INDEX, TXN_INDEX, offset_file
from .offset_index import ENTRY as OFFSET_ENTRY
from .offset_index import OffsetIndex
from .stored_entries import StoredEntries
from .time_index import ENTRY as TIME_ENTRY
from .time_index import TimeIndex
from .txn_index import TxnIndex

__all__ = ["NO_TIMESTAMP", "Segment"]

NO_TIMESTAMP = -1
RELATIVE_OFFSET_MAX = (1 << 31) - 1
"""Indexes hold offsets relative to the base offset in 32 bits."""
INDEX_ENTRY_BYTES = OFFSET_ENTRY.size
TIME_INDEX_ENTRY_BYTES = TIME_ENTRY.size


class _Bounds(NamedTuple):
    """How far the segment may grow by these settings and what its indexes hold; worked out when one
    of them has changed, not for every batch."""

    config: TopicConfig
    size_bytes: int
    age_ms: int


class Segment:
    """Batches from `base_offset` on, and where they lie.

    Args:
        create: the segment is new; its file is made.
        suffix: what its files' names end in beside the usual, while compaction has them.
    """

    def __init__(
        self, files: Files, folder: str, base_offset: int, *, create: bool = False, suffix: str = ""
    ) -> None:
        self.base_offset = base_offset
        self._folder = folder
        self.path = self._name(LOG, suffix)
        self.index = OffsetIndex(files, self._name(INDEX, suffix), base_offset)
        self.time_index = TimeIndex(files, self._name(TIME_INDEX, suffix), base_offset)
        self.txn_index = TxnIndex(files, self._name(TXN_INDEX, suffix))
        self._files = files
        self._handle: FileHandle | None = make_or_nothing(files, self.path) if create else None
        self._size_bytes: int | None = None
        self._largest: tuple[int, int] | None = None
        self._first_timestamp: int | None = None
        self._unindexed_bytes: int | None = None
        self._since_ms: int | None = None
        self._read_end = -1, 0
        self._on_open: Callable[[Segment], None] | None = None
        self.is_synced = not create
        """Whether a flush has ended since the last append, or since its indexes were written."""
        self._bounds: _Bounds | None = None
        if create:
            self.clear_indexes()

    def __repr__(self) -> str:
        return f"Segment({self.path})"

    @property
    def handle(self) -> FileHandle:
        """The open .log file."""
        if self._handle is None:
            self._handle = self._files.open(self.path)
            self._opened()
        return self._handle

    @property
    def size_bytes(self) -> int:
        """Size of the .log file: of the whole batches in it, should a write have failed."""
        if self._size_bytes is None:
            is_open = self._handle is not None
            self._size_bytes = self.handle.size() if is_open else self._files.size(self.path)
        return self._size_bytes

    @property
    def largest_timestamp(self) -> int:
        """The latest time of any record; -1 when none has one."""
        return self.largest[0]

    @property
    def largest(self) -> tuple[int, int]:
        """The latest time of any record, and the last offset of the first batch that has it; after
        a restart from the last index entry, which seal() added. (-1, base offset) without times."""
        if self._largest is None:
            self._largest = self.time_index.last() or (NO_TIMESTAMP, self.base_offset)
            self.time_index.stored.close()  # nothing is in there that was not synced
        return self._largest

    @property
    def first_timestamp(self) -> int:
        """The time that segment.ms counts from: that of the first batch, -1 when it has none."""
        if self._first_timestamp is None:
            if not self.size_bytes:
                return NO_TIMESTAMP
            _, header = next(self.batches(0, FIND_BYTES))
            self._first_timestamp = NO_TIMESTAMP if header.is_control else header.max_timestamp
        return self._first_timestamp

    def append(
        self, header: BatchHeader, parts: tuple[bytes | memoryview, ...], index_interval_bytes: int
    ) -> None:
        """Write a batch at the end. `header` is that of the batch as stored.

        Raises:
            DiskFullError: there was no room; nothing was written.
            OSError: the disk failed. Part of the batch may be in the file.
        """
        position = self.size_bytes
        self.is_synced = False
        append_or_nothing(self._files, self.path, self.handle, position, *parts)
        self._size_bytes = position + header.size_bytes
        self.note(header, position, index_interval_bytes)

    def note(self, header: BatchHeader, position: int, index_interval_bytes: int) -> None:
        """Take the batch at `position`, which is now the last one, into the indexes."""
        largest = self.largest
        if header.max_timestamp > largest[0] and not header.is_control:
            largest = self._largest = (header.max_timestamp, header.last_offset)
        if self._unindexed_bytes is None:
            last = self.index.last()
            self._unindexed_bytes = position - (last[1] if last else 0)
        if self._unindexed_bytes > index_interval_bytes:
            self.index.append(header.last_offset, position)
            self.time_index.append(*largest)
            self._unindexed_bytes = 0
            self._bounds = None
        self._unindexed_bytes += header.size_bytes

    def read(self, position: int, size_bytes: int) -> bytes:
        """Bytes of the .log file, never past the last whole batch."""
        return self.handle.read(position, min(size_bytes, self.size_bytes - position))

    def note_read(self, offset: int, position: int) -> None:
        """Batches before `offset`, which begins at `position`, were read: the next reader who goes
        on there need not look it up in the index."""
        self._read_end = offset, position

    def find(self, offset: int) -> tuple[int, BatchHeader] | None:
        """Position and header of the first batch that ends at `offset` or later.

        It may begin after `offset`, where compaction left a gap. None when all end before it.
        """
        read_to, begin = self._read_end
        if offset == read_to:
            return self._find_from(begin, offset)
        begin = self.index.floor(offset)
        if not 0 <= begin < max(self.size_bytes, 1):
            begin = 0
        try:
            found = self._find_from(begin, offset)
        except CorruptRecordError:
            if not begin:
                raise
        else:
            # The batch an entry points to ends at or before the offset that was looked for.
            if found is None or found[0] != begin or found[1].last_offset <= offset:
                return found
        return self._find_from(0, offset)  # the index was damaged, or the first batch is meant

    def _find_from(self, begin: int, offset: int) -> tuple[int, BatchHeader] | None:
        for position, header in self.batches(begin, FIND_BYTES):
            if header.last_offset >= offset:
                return position, header
        return None

    def batches(
        self, position: int = 0, read_bytes: int = WALK_BYTES
    ) -> Iterator[tuple[int, BatchHeader]]:
        """Position and header of each batch from `position`, where one must begin, to the end.

        Checksums are not looked at.

        Raises:
            CorruptRecordError: something else lies there; the message names file and position.
        """
        end = self.size_bytes
        chunk, chunk_position = b"", position
        while position < end:
            skipped = position - chunk_position
            if len(chunk) - skipped < HEADER_SIZE_BYTES:
                chunk, chunk_position, skipped = self.read(position, read_bytes), position, 0
            try:
                header = parse_header(chunk, skipped)
            except CorruptRecordError as error:
                raise self.damaged(position, str(error)) from error
            if position + header.size_bytes > end:
                raise self.damaged(position, f"the batch of {header.size_bytes} bytes is cut off")
            yield position, header
            position += header.size_bytes

    def damaged(self, position: int, what: str) -> CorruptRecordError:
        """The error for bytes that are not what was written."""
        return CorruptRecordError(
            f"{self.path} at position {position}: {what}. The file was damaged after it was "
            "written: restore it from a backup, or delete the records from there on by removing "
            "recovery-point-offset-checkpoint, replication-offset-checkpoint and "
            ".kafka_cleanshutdown and opening the log again."
        )

    def takes(self, header: BatchHeader, config: TopicConfig, now_ms: int) -> bool:
        """Whether this batch still belongs here: there is room and segment.ms, less its jitter, is
        not over. The first batch always does."""
        size_now = self.size_bytes
        if not size_now:
            self._since_ms = now_ms
            return True
        bounds = self._bounds
        if bounds is None or bounds.config is not config:
            bounds = self._bounds = self._bounds_by(config)
        return (
            size_now + header.size_bytes <= bounds.size_bytes
            and header.last_offset - self.base_offset <= RELATIVE_OFFSET_MAX
            and self._age_ms(header, now_ms) <= bounds.age_ms
        )

    def _bounds_by(self, config: TopicConfig) -> _Bounds:
        entries_max = config.segment_index_bytes // INDEX_ENTRY_BYTES
        # One entry fewer: sealing adds the last.
        times_max = config.segment_index_bytes // TIME_INDEX_ENTRY_BYTES - 1
        has_room = self.index.count < entries_max and self.time_index.count < times_max
        return _Bounds(config, config.segment_bytes if has_room else 0, self.age_max_ms(config))

    def age_max_ms(self, config: TopicConfig) -> int:
        """How long batches are appended here, counted from the first. segment.jitter.ms shortens
        it, so that many partitions do not close their segments at once: drawn from partition and
        base offset, another for each segment and the same again after a restart."""
        age_max_ms = config.segment_age_max_ms
        jitter_max_ms = min(config.segment_jitter_ms, age_max_ms)
        if not jitter_max_ms:
            return age_max_ms
        folder, name = self.path.rsplit("/", 2)[-2:]
        return age_max_ms - checksum(f"{folder}/{name}".encode()) % jitter_max_ms

    def _age_ms(self, header: BatchHeader, now_ms: int) -> int:
        """From the first batch to this one, in the records' own time where they have one. After a
        restart the wall clock's time counts from the first look."""
        first = self.first_timestamp
        if NO_TIMESTAMP not in (first, header.max_timestamp) and not header.is_control:
            return header.max_timestamp - first
        if self._since_ms is None:
            self._since_ms = now_ms
        return now_ms - self._since_ms

    def seal(self) -> None:
        """Write the indexes to their files. More batches may follow, and another seal."""
        self.time_index.append(*self.largest)
        self._bounds = None
        self.index.seal()
        self.time_index.seal()
        self.txn_index.seal()

    def replace_indexes(self) -> None:
        """Write indexes that were built anew, durably, and only then in the place of the old: those
        may be trusted, and a crash must not leave them half written. Syncs no names."""
        if not self.txn_index.count:
            self.txn_index.stored.remove()
        for entries, kind in zip(self._stored(), (INDEX, TIME_INDEX, TXN_INDEX), strict=True):
            entries.leave(self._name(kind, CLEANED))
        self.seal()
        for entries in self._stored():
            entries.fsync()
        self.rename_indexes("")

    def fsync(self) -> None:
        """Make the batches durable, and what seal() wrote. Runs in any thread."""
        self.handle.fsync()
        for entries in self._stored():
            entries.fsync()

    def truncate(self, size_bytes: int) -> None:
        """Cut the .log file. The indexes are the caller's to build anew."""
        self.handle.truncate(size_bytes)
        self._size_bytes = size_bytes

    def clear_indexes(self) -> None:
        """Forget what the index files say: they are about to be built anew by `note`."""
        self.index.clear()
        self.time_index.clear()
        self.txn_index.clear()
        self._largest = (NO_TIMESTAMP, self.base_offset)
        self._unindexed_bytes = 0

    def remove(self) -> None:
        """Remove all files of the segment, and the snapshot taken where it begins if the segment is
        in its place."""
        self.close()
        self._files.remove(self.path)
        for entries in self._stored():
            entries.remove()
        snapshot = self._name(SNAPSHOT)
        if self.path == self._name(LOG) and self._files.exists(snapshot):
            self._files.remove(snapshot)

    def rename_indexes(self, suffix: str) -> None:
        """Let the names of the index files end in `suffix`, beside the usual. Open files stay open,
        so reading goes on in another thread."""
        self.index.stored.rename(self._name(INDEX, suffix))
        self.time_index.stored.rename(self._name(TIME_INDEX, suffix))
        self.txn_index.stored.rename(self._name(TXN_INDEX, suffix))

    def rename_log(self, suffix: str) -> None:
        """The same for the .log file."""
        path = self._name(LOG, suffix)
        if path != self.path:
            self._files.rename(self.path, path)
            self.path = path

    def watch(self, on_open: Callable[[Segment], None] | None) -> None:
        """Have this called when a file of the segment is opened that was not open."""
        self._on_open = on_open
        for entries in self._stored():
            entries.on_open = self._opened

    def _opened(self) -> None:
        if self._on_open is not None:
            self._on_open(self)

    @property
    def may_be_closed(self) -> bool:
        """Whether nothing waits for its files: they are synced, and in their place."""
        return self.is_synced and self.path == self._name(LOG)

    def close(self) -> None:
        """Close the files; reading opens them again."""
        if self._handle is not None:
            self._handle.close()
            self._handle = None
        for entries in self._stored():
            entries.close()

    def _name(self, kind: str, suffix: str = "") -> str:
        """Path of one of the segment's files."""
        return offset_file(self._folder, self.base_offset, kind) + suffix

    def _stored(self) -> tuple[StoredEntries, ...]:
        return self.index.stored, self.time_index.stored, self.txn_index.stored
