"""The three indexes of a segment against its batches, entry by entry, as the batches go by.

What an index may leave out is not looked for: an offset index with fewer entries is slower and not
wrong. The time index must end with the largest timestamp of its segment, because retention and
searches by time believe it; the transaction index must be complete, because readers do.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from millstream.log.format.codec import BatchHeader

from .files import Files
from .findings import Finding, error
from .layout import INDEX, SWAP, TIME_INDEX, TXN_INDEX, offset_file
from .offset_index import ENTRY as OFFSET_ENTRY
from .time_index import ENTRY as TIME_ENTRY
from .txn_index import ENTRY as TXN_ENTRY
from .txn_index import VERSION as TXN_VERSION
from .txn_index import AbortedTransaction

__all__ = ["IndexCheck", "stored_entries"]

READ_BYTES = 1 << 16
NEXT_OPENING = "The next opening builds it anew"
REBUILD = "Remove the file and .kafka_cleanshutdown: the next opening builds it anew"
REBUILD_ALL = (
    "Remove the index files of the segment (.index, .timeindex, .txnindex) and "
    ".kafka_cleanshutdown: the next opening builds them anew"
)
"""A transaction index that alone is gone is taken for one that never was: few segments have one."""
Located = tuple[int, tuple[int, ...]]


def stored_entries(files: Files, path: str, entry: struct.Struct) -> Iterator[Located]:
    """Position and fields of every whole entry, read a piece at a time."""
    handle = files.open(path)
    try:
        step = READ_BYTES // entry.size * entry.size
        for begin in range(0, handle.size() // entry.size * entry.size, step):
            data = handle.read(begin, step)
            whole = memoryview(data)[: len(data) // entry.size * entry.size]
            for i, fields in enumerate(entry.iter_unpack(whole)):
                yield begin + i * entry.size, fields
    finally:
        handle.close()


class IndexCheck:
    """The indexes of one segment. `batch` is called with each batch, in order, then `finish`.

    Args:
        swapped: compaction has put this segment in place of others; its indexes may still have
            their names of then.
    """

    def __init__(self, files: Files, folder: str, base_offset: int, *, swapped: bool) -> None:
        self._files = files
        self._base_offset = base_offset
        self._paths: dict[str, str] = {}
        for kind in (INDEX, TIME_INDEX, TXN_INDEX):
            path = offset_file(folder, base_offset, kind)
            self._paths[kind] = path + SWAP if swapped and files.exists(path + SWAP) else path
        self._offsets = self._entries(INDEX, OFFSET_ENTRY)
        self._times = self._entries(TIME_INDEX, TIME_ENTRY)
        self._offset = next(self._offsets, None)
        self._time = next(self._times, None)
        self._last_position = 0
        self._largest = -1
        self._last_time = -1
        self._aborted: list[AbortedTransaction] = []
        self._without_records: set[int] = set()  # offsets of markers

    def _entries(self, suffix: str, entry: struct.Struct) -> Iterator[Located]:
        path = self._paths[suffix]
        return stored_entries(self._files, path, entry) if self._files.exists(path) else iter(())

    def sizes(self, *, needed: bool) -> Iterator[Finding]:
        """What the names and sizes of the files say already."""
        for suffix, entry in ((INDEX, OFFSET_ENTRY), (TIME_INDEX, TIME_ENTRY)):
            path = self._paths[suffix]
            if not self._files.exists(path):
                if needed:
                    yield error(path, -1, "the index is missing", NEXT_OPENING)
            else:
                yield from self._torn(path, entry, REBUILD)
        if self._files.exists(self._paths[TXN_INDEX]):
            yield from self._torn(self._paths[TXN_INDEX], TXN_ENTRY, REBUILD_ALL)

    def _torn(self, path: str, entry: struct.Struct, advice: str) -> Iterator[Finding]:
        size_bytes = self._files.size(path)
        excess = size_bytes % entry.size
        if excess:
            what = f"{size_bytes} bytes are no whole number of entries of {entry.size}"
            yield error(path, size_bytes - excess, what, advice)

    def batch(self, position: int, header: BatchHeader) -> Iterator[Finding]:
        """The next batch of the segment."""
        if self._offset is not None and self._offset[1][1] <= position:
            yield from self._offsets_to(position, header)
        if not header.is_control and header.max_timestamp > self._largest:
            self._largest = header.max_timestamp
            attained = True
        else:
            attained = False
        if self._time is not None and self._time[1][1] <= header.last_offset - self._base_offset:
            yield from self._times_to(header, attained)

    def _offsets_to(self, position: int, header: BatchHeader) -> Iterator[Finding]:
        while self._offset is not None and self._offset[1][1] <= position:
            at, (relative, points_to) = self._offset
            if points_to <= self._last_position:
                what = f"position {points_to} does not ascend; the first batch is never indexed"
                yield error(self._paths[INDEX], at, what, REBUILD)
            elif points_to != position:
                what = f"it points to position {points_to}, where no batch begins"
                yield error(self._paths[INDEX], at, what, REBUILD)
            elif relative + self._base_offset != header.last_offset:
                what = (
                    f"it says that the batch at position {position} ends with offset "
                    f"{relative + self._base_offset}; that ends with {header.last_offset}"
                )
                yield error(self._paths[INDEX], at, what, REBUILD)
            self._last_position = points_to
            self._offset = next(self._offsets, None)

    def _times_to(self, header: BatchHeader, attained: bool) -> Iterator[Finding]:
        path = self._paths[TIME_INDEX]
        while self._time is not None:
            at, (timestamp, relative) = self._time
            offset = relative + self._base_offset
            if offset > header.last_offset:
                return
            if offset != header.last_offset or not attained:
                what = f"offset {offset} has no batch with a new largest timestamp"
                yield error(path, at, what, REBUILD)
            elif timestamp != self._largest:
                what = f"it says {timestamp} for offset {offset}, the batch says {self._largest}"
                yield error(path, at, what, REBUILD)
            elif timestamp <= self._last_time:
                yield error(path, at, f"{timestamp} does not ascend", REBUILD)
            self._last_time = timestamp
            self._time = next(self._times, None)

    def aborted(self, transaction: AbortedTransaction, *, has_records: bool) -> None:
        """A marker in this segment aborts this transaction. One whose records compaction has taken
        needs no entry: there is nothing left for a reader to skip."""
        self._aborted.append(transaction)
        if not has_records:
            self._without_records.add(transaction.last_offset)

    def finish(self, *, compacted: bool) -> Iterator[Finding]:
        """Every batch was seen."""
        if self._offset is not None:
            at, (_, points_to) = self._offset
            what = f"it points to position {points_to}, behind the last batch"
            yield error(self._paths[INDEX], at, what, REBUILD)
        if self._time is not None:
            at, (_, relative) = self._time
            what = f"offset {relative + self._base_offset} is behind the last batch"
            yield error(self._paths[TIME_INDEX], at, what, REBUILD)
        elif self._last_time < self._largest and self._files.exists(self._paths[TIME_INDEX]):
            what = (
                f"the largest timestamp is {self._largest}, the last entry says {self._last_time}"
            )
            yield error(self._paths[TIME_INDEX], -1, what, REBUILD)
        yield from self._check_aborted(compacted)

    def _check_aborted(self, compacted: bool) -> Iterator[Finding]:
        path = self._paths[TXN_INDEX]
        missing = {each.last_offset: each for each in self._aborted}
        last_offset = -1
        for at, (version, *fields) in self._entries(TXN_INDEX, TXN_ENTRY):
            entry = AbortedTransaction(*fields)
            if version != TXN_VERSION:
                yield error(path, at, f"version {version} is unknown", REBUILD_ALL)
            if entry.last_offset <= last_offset:
                yield error(path, at, f"{_told(entry)} does not ascend", REBUILD_ALL)
            last_offset = entry.last_offset
            found = missing.pop(entry.last_offset, None)
            if not _agree(entry, found, compacted):
                said = "no marker says so" if found is None else f"the batches say {_told(found)}"
                yield error(path, at, f"{_told(entry)} was aborted, but {said}", REBUILD_ALL)
        for each in missing.values():
            if each.last_offset not in self._without_records:
                yield error(path, -1, f"{_told(each)} was aborted, and has no entry", REBUILD_ALL)


def _agree(entry: AbortedTransaction, found: AbortedTransaction | None, compacted: bool) -> bool:
    """Whether an entry and what the batches say are the same; compaction may have taken the first
    batches of a transaction, or all of them, and left the entry. A stable offset that is too high
    would end a reader's search too early."""
    if not compacted:
        return entry == found
    if found is None:
        return 0 <= entry.last_stable_offset <= entry.last_offset + 1
    return (
        entry.producer_id == found.producer_id
        and entry.first_offset <= found.first_offset
        and 0 <= entry.last_stable_offset <= found.last_stable_offset
    )


def _told(aborted: AbortedTransaction) -> str:
    return (
        f"the transaction of producer {aborted.producer_id} from offset {aborted.first_offset} to "
        f"{aborted.last_offset} (last stable offset {aborted.last_stable_offset})"
    )
