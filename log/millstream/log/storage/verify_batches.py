"""The batches of one .log file, read with no trust in any byte of it, for verify and dump.

Memory is one chunk, whatever the length fields say: the checksum of a batch that is larger is taken
piece by piece. A batch with a wrong checksum does not end the walk, as long as the next one begins
where it says; bytes that are no batch do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from millstream.log.errors import CorruptRecordError
from millstream.log.format.codec import HEADER_SIZE_BYTES, BatchHeader, parse_header
from millstream.log.format.header import CRC_START, checksum

from .files import FileHandle

__all__ = ["FoundBatch", "OnBytes", "found_batches", "ignore_bytes"]

CHUNK_BYTES = 1 << 20

OnBytes = Callable[[int], None]
"""Told how many bytes have been read since the last call: for progress bars."""


def ignore_bytes(count: int) -> None:
    """For those who want no progress."""


class FoundBatch(NamedTuple):
    """One batch, or the bytes behind which nothing can be told any more (`header` is None).

    `problem` is empty when header and checksum are right. `data` is the whole batch, or None when
    it is larger than a chunk.
    """

    position: int
    header: BatchHeader | None
    data: memoryview | None
    problem: str


def found_batches(handle: FileHandle, on_bytes: OnBytes = ignore_bytes) -> Iterator[FoundBatch]:
    """Every batch from the start of the file to its end.

    Raises:
        OSError: the disk could not be read.
    """
    end, position = handle.size(), 0
    chunk, chunk_position = b"", 0
    while position < end:
        start = position - chunk_position
        if len(chunk) - start < HEADER_SIZE_BYTES:
            chunk, chunk_position, start = handle.read(position, CHUNK_BYTES), position, 0
        try:
            header = parse_header(chunk, start)
        except CorruptRecordError as error:
            yield FoundBatch(position, None, None, str(error))
            return
        size_bytes = header.size_bytes
        if size_bytes > end - position:
            what = f"a batch of {size_bytes} bytes is cut off after {end - position}"
            yield FoundBatch(position, None, None, what)
            return
        if size_bytes > len(chunk) - start and size_bytes <= CHUNK_BYTES:
            chunk, chunk_position, start = handle.read(position, CHUNK_BYTES), position, 0
        data = None
        if size_bytes <= len(chunk) - start:
            data = memoryview(chunk)[start : start + size_bytes]
            crc = checksum(data[CRC_START:])
        else:
            crc = _checksum_in_pieces(handle, position + CRC_START, position + size_bytes)
        problem = ""
        if crc != header.crc:
            problem = f"CRC-32C is {crc:#010x} where the header says {header.crc:#010x}"
        on_bytes(size_bytes)
        yield FoundBatch(position, header, data, problem)
        position += size_bytes


def _checksum_in_pieces(handle: FileHandle, position: int, end: int) -> int:
    crc = 0
    while position < end:
        piece = handle.read(position, min(CHUNK_BYTES, end - position))
        if not piece:
            break
        crc = checksum(piece, crc)
        position += len(piece)
    return crc
