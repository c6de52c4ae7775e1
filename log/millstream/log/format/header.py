"""The 61 bytes in front of every record batch, and what is checked before the records are read.

Does not look inside the records: that is `codec.py`, which also draws the layout.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from millstream.log.errors import CorruptRecordError
from millstream.log.record import Headers

from .checksum import checksum

__all__ = [
    "ATTRIBUTE_CONTROL",
    "ATTRIBUTE_DELETE_HORIZON",
    "ATTRIBUTE_LOG_APPEND_TIME",
    "ATTRIBUTE_TRANSACTIONAL",
    "HEADER_SIZE_BYTES",
    "TIMESTAMP_MAX",
    "BatchHeader",
    "Columns",
    "check_batch",
    "checksum",
    "parse_header",
    "seal_batch",
]

HEADER = struct.Struct(">qiibIhiqqqhii")
HEADER_SIZE_BYTES = 61
CRC = struct.Struct(">I")
LENGTH_END = 12
"""batchLength counts the bytes after itself: a batch is 12 bytes larger than it says."""
CRC_START = 21
"""The checksum covers everything from the attributes on: not baseOffset and leaderEpoch, so that
the broker can set them without computing it again."""
MAGIC = 2
CODEC_MASK = 0x07
ATTRIBUTE_LOG_APPEND_TIME = 0x08
ATTRIBUTE_TRANSACTIONAL = 0x10
ATTRIBUTE_CONTROL = 0x20
ATTRIBUTE_DELETE_HORIZON = 0x40
CODEC_MAX = 4
SEQUENCES = 1 << 31
"""Sequence numbers wrap to 0 after 2^31 - 1."""
OFFSET_MAX = (1 << 63) - 1
TIMESTAMP_MAX = 1 << 61
"""Far beyond any date; the difference of two such times fits the 64 bits of a delta."""


class BatchHeader(NamedTuple):
    """The header of a record batch, field by field as in Kafka's message format.

    `crc` is unsigned, everything else signed. Producer id, epoch and sequence are -1 when the
    producer was not idempotent; `leader_epoch` and `base_offset` are the broker's.
    """

    base_offset: int
    batch_length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records_count: int

    @property
    def size_bytes(self) -> int:
        """Size of the whole batch, this header included."""
        return self.batch_length + LENGTH_END

    @property
    def last_offset(self) -> int:
        """Offset of the last record; compaction may have removed that record, the offset stays."""
        return self.base_offset + self.last_offset_delta

    @property
    def last_sequence(self) -> int:
        """Sequence of the last record, or -1 when there are no sequences."""
        if self.base_sequence < 0:
            return -1
        return (self.base_sequence + self.last_offset_delta) % SEQUENCES

    @property
    def compression(self) -> int:
        """0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."""
        return self.attributes & CODEC_MASK

    @property
    def is_log_append_time(self) -> bool:
        """Every record has the time the broker appended it, which is `max_timestamp`."""
        return self.attributes & ATTRIBUTE_LOG_APPEND_TIME != 0

    @property
    def is_transactional(self) -> bool:
        return self.attributes & ATTRIBUTE_TRANSACTIONAL != 0

    @property
    def is_control(self) -> bool:
        """A transaction marker, never shown to applications."""
        return self.attributes & ATTRIBUTE_CONTROL != 0

    @property
    def delete_horizon_ms(self) -> int | None:
        """When compaction may drop this batch's tombstones (KIP-534); None when not set."""
        return self.base_timestamp if self.attributes & ATTRIBUTE_DELETE_HORIZON else None


class Columns(NamedTuple):
    """The decoded records of one batch, in parallel columns.

    `offsets` is a range unless compaction left gaps; `headers` is None when no record has any.
    """

    offsets: Sequence[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    timestamps: list[int]
    headers: list[Headers] | None


def parse_header(buffer: bytes | bytearray | memoryview, position: int = 0) -> BatchHeader:
    """Read the header at `position`. The records themselves need not be in the buffer.

    Raises:
        CorruptRecordError: fewer than 61 bytes, another magic, or a field that cannot be.
    """
    if position < 0 or len(buffer) - position < HEADER_SIZE_BYTES:
        raise CorruptRecordError(
            f"a record batch header needs {HEADER_SIZE_BYTES} bytes, there are "
            f"{max(len(buffer) - position, 0)} at position {position}; the data ends too early"
        )
    fields = HEADER.unpack_from(buffer, position)
    base_offset, length, _, magic, _, attributes, delta, _, _, _, _, _, count = fields
    header = BatchHeader._make(fields)
    if not (  # one test for all that is as it should be: this is called for every batch
        magic == MAGIC
        and length >= HEADER_SIZE_BYTES - LENGTH_END
        and 0 <= base_offset <= OFFSET_MAX - SEQUENCES
        and 0 <= count <= delta + 1
        and delta >= 0
        and attributes & CODEC_MASK <= CODEC_MAX
    ):
        raise CorruptRecordError(
            f"no record batch at position {position} (base offset {base_offset}): "
            f"{_odd_field(header)}"
        )
    return header


def _odd_field(header: BatchHeader) -> str:
    """What of it no record batch can say about itself."""
    if header.magic != MAGIC:
        hint = (
            "; it was written before Kafka 0.11, write it again" if header.magic in (0, 1) else ""
        )
        return f"magic is {header.magic}, not {MAGIC}{hint}"
    if header.size_bytes < HEADER_SIZE_BYTES:
        return f"batchLength {header.batch_length} is shorter than the header"
    if header.last_offset_delta < 0:
        return f"lastOffsetDelta is {header.last_offset_delta}"
    if not 0 <= header.base_offset <= OFFSET_MAX - SEQUENCES:
        return "that is no offset"
    if not 0 <= header.records_count <= header.last_offset_delta + 1:
        return f"{header.records_count} records on {header.last_offset_delta + 1} offsets"
    return f"compression codec {header.compression} is unknown"


def check_batch(buffer: bytes | bytearray | memoryview, position: int, header: BatchHeader) -> None:
    """Check that the batch at `position` is whole and its CRC-32C right.

    Raises:
        CorruptRecordError: it is not; the message says which.
    """
    end = position + header.size_bytes
    if len(buffer) < end:
        raise CorruptRecordError(
            f"the record batch at offset {header.base_offset} is {header.size_bytes} bytes long, "
            f"{len(buffer) - position} are there; the data ends too early"
        )
    found = checksum(memoryview(buffer)[position + CRC_START : end])
    if found != header.crc:
        raise CorruptRecordError(
            f"the record batch at offset {header.base_offset} has CRC-32C {found:#010x}, its "
            f"header says {header.crc:#010x}; the bytes were damaged after they were written"
        )


def seal_batch(header: BatchHeader, records: bytes | memoryview) -> bytes:
    """The whole batch: the header with the right checksum, then the (compressed) records."""
    front = bytearray(HEADER.pack(*header))
    crc = checksum(records, checksum(front[CRC_START:]))
    CRC.pack_into(front, CRC_START - CRC.size, crc)
    return b"".join((front, records))
