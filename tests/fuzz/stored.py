"""Decoders that read from files, on files in memory that hold the input."""

from __future__ import annotations

import struct
from contextlib import suppress

from millstream.log.broker.producer_ids import ProducerIds
from millstream.log.errors import CorruptRecordError
from millstream.log.format.header import HEADER_SIZE_BYTES, checksum, parse_header
from millstream.log.settings import LONG_MAX
from millstream.log.storage.files import write_file
from millstream.log.storage.layout import (
    INDEX,
    LOG,
    PRODUCER_ID_FILE,
    TIME_INDEX,
    TXN_INDEX,
    offset_file,
)
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.storage.offset_index import OffsetIndex
from millstream.log.storage.segment import Segment
from millstream.log.storage.segment_list import SegmentList
from millstream.log.storage.time_index import TimeIndex
from millstream.log.storage.time_lookup import first_at, max_timestamp
from millstream.log.storage.txn_index import TxnIndex

BASE = 1000
END = BASE + 100
OFFSETS = (0, BASE, BASE + 1, BASE + 9, BASE + 40, 1 << 62)


def with_checksum(data: bytes, position: int, start: int) -> bytes:
    """The same with the CRC-32C of everything from `start` on at `position`."""
    if len(data) < start:
        return data
    return data[:position] + struct.pack(">I", checksum(data[start:])) + data[start:]


def with_checksums(log: bytes) -> bytes:
    """Record batches one after the other, with right checksums as far as they are batches."""
    position = 0
    while True:
        try:
            header = parse_header(log, position)
        except CorruptRecordError:
            return log
        end = position + header.size_bytes
        log = log[:position] + with_checksum(log[position:end], 17, 21) + log[end:]
        position = end


def holding(contents: dict[str, bytes]) -> MemoryFiles:
    files = MemoryFiles()
    for path, data in contents.items():
        write_file(files, path, data)
    return files


def offset_index(data: bytes) -> None:
    index = OffsetIndex(holding({"i": data}), "i", BASE)
    for offset in OFFSETS:
        index.floor(offset)
        index.start_below(offset, 500)
    index.last()
    assert len(index.entries()) == index.count
    index.append(1 << 20, 1 << 20)
    assert index.last() == (1 << 20, 1 << 20)


def time_index(data: bytes) -> None:
    index = TimeIndex(holding({"i": data}), "i", BASE)
    for timestamp in (-1, 0, 1_700_000_000_000, 1 << 62):
        index.floor(timestamp)
    index.append(1 << 61, 5)
    index.last()
    assert len(index.entries()) == index.count


def txn_index(data: bytes) -> None:
    index = TxnIndex(holding({"i": data}), "i")
    for offset in OFFSETS:
        list(index.overlapping(offset, offset + 10))
        index.ends_search(offset)
    index.seal()


def segment(data: bytes) -> None:
    """flags (1 byte: 1 = mend the checksums), the sizes of three indexes (2 bytes each), the
    indexes, and the rest is the log."""
    if len(data) < 7:
        return
    flags, *sizes = struct.unpack_from(">BHHH", data)
    parts, rest = [], data[7:]
    for size in sizes:
        parts.append(rest[:size])
        rest = rest[size:]
    log = with_checksums(rest) if flags & 1 else rest
    names = [offset_file("p", 0, suffix) for suffix in (INDEX, TIME_INDEX, TXN_INDEX, LOG)]
    files = MemoryFiles()
    files.make_dir("p")
    for name, content in zip(names, [*parts, log], strict=True):
        write_file(files, name, content)
    for read in (_walk, _find, _read, _look_up_times, _look_up_aborted):
        with suppress(CorruptRecordError):
            read(Segment(files, "p", 0))


def _walk(found: Segment) -> None:
    position = 0
    for start, header in found.batches():
        assert start == position
        assert header.size_bytes >= HEADER_SIZE_BYTES
        position += header.size_bytes


def _find(found: Segment) -> None:
    for offset in (0, 5, 17, 1 << 40):
        found.find(offset)
    found.first_timestamp  # noqa: B018
    found.largest_timestamp  # noqa: B018


def _read(found: Segment) -> None:
    segments = SegmentList([found])
    for offset in (0, 5, 11):
        for size_bytes_max in (1, 200, 1 << 20):
            segments.read(offset, 13, 14, size_bytes_max)


def _look_up_times(found: Segment) -> None:
    for timestamp in (0, 1_700_000_000_003, 1 << 62):
        first_at([found], timestamp, 0, 14)
    max_timestamp([found], 0, 14)


def _look_up_aborted(found: Segment) -> None:
    SegmentList([found]).aborted(0, 14)


def producer_ids(data: bytes) -> None:
    files = holding({PRODUCER_ID_FILE: data})
    ids = ProducerIds(files, ".")
    first = ids.take()
    assert 0 <= first <= LONG_MAX
    assert ProducerIds(files, ".").take() > first
