"""Record batch, version 2: Kafka's unit of writing, reading, compressing and checking.

    position  bytes  field                    all integers big-endian
       0        8    baseOffset               set by the broker; 0 as encoded here
       8        4    batchLength              bytes after this field
      12        4    partitionLeaderEpoch     set by the broker
      16        1    magic                    2
      17        4    crc                      CRC-32C of everything that follows
      21        2    attributes               bits 0-2 codec, 3 LogAppendTime, 4 transactional,
                                              5 control, 6 baseTimestamp is the delete horizon
      23        4    lastOffsetDelta          kept when compaction removes the last record
      27        8    baseTimestamp            record deltas count from here
      35        8    maxTimestamp             the time of every record under LogAppendTime
      43        8    producerId               -1 when not idempotent
      51        2    producerEpoch
      53        4    baseSequence
      57        4    recordsCount             0 in a batch compaction emptied
      61             records                  compressed as one block when a codec is set

    record:  length, attributes (1 byte, 0), timestampDelta, offsetDelta, keyLength, key,
             valueLength, value, headerCount, headers
    header:  keyLength, key (UTF-8), valueLength, value

The lengths, deltas and counts of records are zig-zag varints as in protobuf: 32 bits in at most
5 bytes, the timestamp delta 64 bits in at most 10. Length -1 stands for null.
Source: Kafka message format v2 (KIP-98, KIP-82).

The loops over records, the log's one hot place, are in `record_reader.py` and `record_writer.py`:
compiled where a C compiler was at hand at installation, interpreted where not.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index

from millstream.log.errors import CorruptRecordError, RecordTooLargeError
from millstream.log.limits import DECOMPRESSED_BYTES_MAX, DECOMPRESSED_ITEMS_MAX
from millstream.log.record import Headers

from . import partitioner, record_reader, record_writer
from .compression import compress, decompress
from .header import (
    ATTRIBUTE_CONTROL,
    ATTRIBUTE_TRANSACTIONAL,
    HEADER_SIZE_BYTES,
    LENGTH_END,
    MAGIC,
    BatchHeader,
    Columns,
    check_batch,
    parse_header,
    seal_batch,
)
from .partitioner import murmur2, partitions_for_keys
from .record_reader import read_records
from .record_writer import estimate_size, fill_batches, header_bytes, write_records

__all__ = [
    "COMPILED",
    "HEADER_SIZE_BYTES",
    "BatchHeader",
    "Columns",
    "check_batch",
    "decode_batch",
    "encode_batch",
    "estimate_size",
    "fill_batches",
    "first_without_key",
    "murmur2",
    "parse_header",
    "partitions_for_keys",
]

HEADER_BYTES_MIN = 2
"""Of a record's header: two lengths."""

COMPILED: bool = record_reader.COMPILED and record_writer.COMPILED and partitioner.COMPILED
"""Whether records are read and written by machine code, or by the interpreter, much slower."""


def encode_batch(
    keys: Sequence[bytes | None] | None,
    values: Sequence[bytes | None],
    timestamps: Sequence[int],
    headers: Sequence[Headers] | None,
    start: int,
    stop: int,
    *,
    compression: int = 0,
    level: int | None = None,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    transactional: bool = False,
    control: bool = False,
) -> bytes:
    """Records `start` to `stop` (exclusive) of the columns as one batch at base offset 0.

    `keys` None means no record has a key, `headers` None that none has headers. `timestamps` are
    milliseconds, -1 for none. `compression` is 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.

    Raises:
        RecordTooLargeError: the batch would not fit the 31 bits of its length field; or, when it is
            compressed, no reader would decompress it.
        ConfigError: there is no such compression or level.
        TypeError, OverflowError, ValueError: a key or value that is not bytes, a timestamp out of
            range, no records.
    """
    if not 0 <= start < stop <= min(len(values), len(timestamps)):
        raise ValueError(f"records {start} to {stop} of {len(values)}: a batch needs at least one")
    buffer, end, max_timestamp = write_records(
        None if keys is None else list(keys[start:stop]),
        list(values[start:stop]),
        list(timestamps[start:stop]),
        None if headers is None else [header_bytes(each) for each in headers[start:stop]],
    )
    if compression:
        _check_decompressed(end, stop - start, headers[start:stop] if headers else None)
    with memoryview(buffer) as view:
        records = compress(compression, view[:end], level) if compression else view[:end]
        attributes = compression
        attributes |= ATTRIBUTE_TRANSACTIONAL if transactional else 0
        attributes |= ATTRIBUTE_CONTROL if control else 0
        header = BatchHeader(
            base_offset=0,
            batch_length=HEADER_SIZE_BYTES - LENGTH_END + len(records),
            leader_epoch=-1,
            magic=MAGIC,
            crc=0,
            attributes=attributes,
            last_offset_delta=stop - start - 1,
            base_timestamp=index(timestamps[start]),
            max_timestamp=max_timestamp,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=base_sequence,
            records_count=stop - start,
        )
        return seal_batch(header, records)


def _check_decompressed(size_bytes: int, records: int, headers: Sequence[Headers] | None) -> None:
    """What `decode_batch` would refuse is not written."""
    if size_bytes > DECOMPRESSED_BYTES_MAX:
        raise RecordTooLargeError(
            f"{records} records of {size_bytes} bytes are more than a compressed batch may become, "
            f"{DECOMPRESSED_BYTES_MAX} bytes; send fewer at once, or without compression"
        )
    if size_bytes < DECOMPRESSED_ITEMS_MAX * HEADER_BYTES_MIN:
        return
    items = records + (sum(map(len, headers)) if headers is not None else 0)
    if items > DECOMPRESSED_ITEMS_MAX:
        raise RecordTooLargeError(
            f"{items} records and headers are more than a compressed batch may have, "
            f"{DECOMPRESSED_ITEMS_MAX}; send fewer at once, or without compression"
        )


def first_without_key(batch: bytes, header: BatchHeader) -> int:
    """Index of the first record of a batch, whose header was parsed, that has no key; -1 when all
    have one. Much cheaper than decoding it.

    Raises:
        CorruptRecordError: the records are not what the header says, or not records.
    """
    start, end = HEADER_SIZE_BYTES, header.size_bytes
    if not header.compression:
        return record_reader.first_without_key(batch, start, end, header)
    with memoryview(batch) as view, view[start:end] as packed:
        data = decompress(header.compression, packed, DECOMPRESSED_BYTES_MAX)
    return record_reader.first_without_key(data, 0, len(data), header)


def decode_batch(
    buffer: bytes | bytearray | memoryview,
    position: int,
    header: BatchHeader,
    *,
    size_bytes_max: int = DECOMPRESSED_BYTES_MAX,
) -> Columns:
    """The records of the batch at `position`, whose header was parsed, in columns.

    The checksum is not looked at: `check_batch` does that. Whatever the bytes are, nothing outside
    the batch is read, and compressed records become at most `size_bytes_max` bytes.

    Raises:
        CorruptRecordError: the records are not what the header says, or not records.
    """
    start, end = position + HEADER_SIZE_BYTES, position + header.size_bytes
    if position < 0 or end > len(buffer):
        raise CorruptRecordError(
            f"the record batch at offset {header.base_offset} is {header.size_bytes} bytes long, "
            f"{len(buffer) - position} are there; the data ends too early"
        )
    if header.compression:
        with memoryview(buffer) as view, view[start:end] as packed:
            data = decompress(header.compression, packed, size_bytes_max)
        return read_records(data, 0, len(data), header, DECOMPRESSED_ITEMS_MAX)
    if type(buffer) is bytes:
        data = buffer
    else:
        data = bytes(memoryview(buffer)[start:end])
        start, end = 0, len(data)
    return read_records(data, start, end, header)
