# cython: language_level=3, annotation_typing=False, boundscheck=False, wraparound=False
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

This module is the one hot loop of the log. It is compiled by Cython where a C compiler is at hand
and runs as it is where not; both do the same. Types are given by `cython.locals`, so a typed
assignment converts; `data` assigned to a `p_uchar` is a pointer when compiled and the bytes
themselves when not, and every index into it is checked against the end first.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import CorruptRecordError, RecordTooLargeError
from ..record import Headers
from .compression import DECOMPRESSED_BYTES_MAX, compress, decompress
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

try:
    import cython
except ImportError:
    from . import cython_shim as cython

if cython.compiled:
    from cython.cimports.libc.string import memcpy

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
    "murmur2",
    "parse_header",
    "partitions_for_keys",
]

COMPILED: bool = cython.compiled
"""Whether this module runs as machine code."""

RECORD_OVERHEAD_BYTES_MAX = 36
"""Record length, attributes, timestamp, offset, two lengths and a header count at their longest."""
RECORD_SIZE_BYTES_MIN = 7
RECORD_BODY_BYTES_MIN = 6
BATCH_LENGTH_MAX = (1 << 31) - 1
TIMESTAMP_MAX = 1 << 61
"""Far beyond any date, and deltas between two such times fit 64 bits."""
NO_HEADERS = b"\x00"
INT64_MAX = (1 << 63) - 1


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
        RecordTooLargeError: the batch would not fit the 31 bits of its length field.
        ConfigError: there is no such compression or level.
        TypeError, OverflowError, ValueError: a key or value that is not bytes, a timestamp out of
            range, no records.
    """
    if not 0 <= start < stop <= min(len(values), len(timestamps)):
        raise ValueError(f"records {start} to {stop} of {len(values)}: a batch needs at least one")
    key_list = None if keys is None else _as_list(keys)
    value_list, time_list = _as_list(values), _as_list(timestamps)
    blobs = None if headers is None else [_header_blob(headers[i]) for i in range(start, stop)]
    bound, max_timestamp = _measure(key_list, value_list, time_list, blobs, start, stop)
    if bound > BATCH_LENGTH_MAX:
        raise RecordTooLargeError(
            f"{stop - start} records of up to {bound} bytes do not fit one batch; send fewer at once"
        )
    buffer = bytearray(bound)
    end = _write_records(key_list, value_list, time_list, blobs, start, stop, buffer)
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
            base_timestamp=time_list[start],
            max_timestamp=max_timestamp,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            base_sequence=base_sequence,
            records_count=stop - start,
        )
        return seal_batch(header, records)


def estimate_size(key: bytes | None, value: bytes | None, headers: Headers = ()) -> int:
    """Bytes a record may take in a batch, before compression; never too few."""
    size = RECORD_OVERHEAD_BYTES_MAX
    if key is not None:
        size += len(key)
    if value is not None:
        size += len(value)
    return size + len(_header_blob(headers)) if headers else size


@cython.locals(
    start=cython.Py_ssize_t, i=cython.Py_ssize_t, count=cython.Py_ssize_t, room=cython.longlong,
    base=cython.longlong, body=cython.longlong, key=bytes, value=bytes,
    key_list=list, value_list=list, time_list=list,
)  # fmt: skip
def fill_batches(
    keys: Sequence[bytes | None] | None,
    values: Sequence[bytes | None],
    timestamps: Sequence[int],
    headers: Sequence[Headers] | None,
    start: int,
    size_bytes_max: int,
) -> int:
    """Where a batch that begins with record `start` must stop to stay within `size_bytes_max`.

    The size is that of the uncompressed batch, header included. At least one record is taken,
    however large it is.
    """
    key_list = None if keys is None else _as_list(keys)
    value_list, time_list = _as_list(values), _as_list(timestamps)
    count = len(value_list)
    room = size_bytes_max - HEADER_SIZE_BYTES
    if start >= count:
        return count
    base = time_list[start]
    for i in range(start, count):
        key = None if key_list is None else key_list[i]
        value = value_list[i]
        body = _body_size(_zigzag(time_list[i] - base), i - start, key, value)
        body += 1 if headers is None else len(_header_blob(headers[i]))
        room -= body + _varint_size(body << 1)
        if room < 0 and i > start:
            return i
    return count


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
    if end > len(buffer):
        raise CorruptRecordError(
            f"the record batch at offset {header.base_offset} is {header.size_bytes} bytes long, only "
            f"{len(buffer) - position} are there; the data ends too early"
        )
    if header.compression:
        with memoryview(buffer) as view, view[start:end] as packed:
            data = decompress(header.compression, packed, size_bytes_max)
        start, end = 0, len(data)
    elif isinstance(buffer, bytes):
        data = buffer
    else:
        data = bytes(buffer[start:end])
        start, end = 0, len(data)
    return _read_records(data, start, end, header)


@cython.locals(
    p=cython.p_uchar, position=cython.Py_ssize_t, stop=cython.Py_ssize_t, end=cython.Py_ssize_t,
    count=cython.Py_ssize_t, i=cython.Py_ssize_t, packed=cython.longlong, size=cython.longlong,
    delta=cython.longlong, last_delta=cython.longlong, gaps=cython.Py_ssize_t,
    first_offset_delta=cython.longlong, offset_delta=cython.longlong, last_offset_delta=cython.longlong,
    keys=list, values=list, times=list, deltas=list, headers=list,
)  # fmt: skip
def _read_records(data: bytes, position: int, stop: int, header: BatchHeader) -> Columns:
    count = header.records_count
    if count * RECORD_SIZE_BYTES_MIN > stop - position:
        raise _odd(header, 0, f"{stop - position} bytes cannot hold {count} records")
    keys, values, headers, deltas = [None] * count, [None] * count, None, None
    base = header.base_timestamp
    last_offset_delta = header.last_offset_delta
    offset_delta, first_offset_delta, last_delta, i = -1, 0, 0, 0
    time = base
    times = [time] * count
    p = data
    for i in range(count):
        packed = _varint(p, position, stop)
        position += packed & 15
        size = packed >> 4
        if size < RECORD_BODY_BYTES_MIN or size > stop - position:
            break
        end = position + size
        position += 1  # attributes: no bit of them has a meaning yet
        packed = _varint(p, position, end)
        delta = packed >> 4
        if packed == -17:
            packed = _varlong_size(p, position, end)
            delta = _varlong(p, position, packed)
            if packed == 0:
                break
        position += packed & 15
        if delta != last_delta:
            if _overflows(base, delta):
                break
            last_delta = delta
            time = base + delta
        times[i] = time
        packed = _varint(p, position, end)
        position += packed & 15
        delta = packed >> 4
        if delta <= offset_delta or delta > last_offset_delta:
            break
        if i == 0:
            first_offset_delta = delta
        elif deltas is not None:
            deltas.append(delta)
        elif delta != offset_delta + 1:
            deltas = [*range(first_offset_delta, offset_delta + 1), delta]
        offset_delta = delta
        packed = _varint(p, position, end)
        position += packed & 15
        size = packed >> 4
        if size >= 0:
            if size > end - position:
                break
            keys[i] = p[position : position + size]
            position += size
        elif size < -1:
            break
        packed = _varint(p, position, end)
        position += packed & 15
        size = packed >> 4
        if size >= 0:
            if size > end - position:
                break
            values[i] = p[position : position + size]
            position += size
        elif size < -1:
            break
        if position >= end:
            break
        if p[position] == 0:
            position += 1
        else:
            record_headers = _read_headers(data, position, end)
            if record_headers is None:
                break
            if headers is None:
                headers = [()] * count
            headers[i] = record_headers
            position = end
        if position != end:
            break
    else:
        if position == stop:
            first = header.base_offset + first_offset_delta
            return Columns(
                range(first, first + count)
                if deltas is None
                else [header.base_offset + delta for delta in deltas],
                keys,
                values,
                [header.max_timestamp] * count if header.is_log_append_time else times,
                headers,
            )
    raise _odd(header, i, f"position {position}")


def _odd(header: BatchHeader, i: int, reason: str) -> CorruptRecordError:
    return CorruptRecordError(
        f"record {i} of {header.records_count} in the batch at offset {header.base_offset} is damaged: "
        f"{reason}"
    )


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.longlong)
@cython.locals(
    p=cython.p_uchar, position=cython.Py_ssize_t, end=cython.Py_ssize_t,
    raw=cython.longlong, byte=cython.longlong, size=cython.longlong,
)  # fmt: skip
def _varint(p: bytes, position: int, end: int) -> int:
    """The 32-bit varint at `position` as value * 16 + size; -17 (value -2, size 15) if there is none.

    Value and size travel in one integer because compiled code can return one and no more.
    """
    if position >= end:
        return -17
    raw = p[position]
    if raw < 0x80:
        return ((raw >> 1) ^ -(raw & 1)) << 4 | 1
    raw &= 0x7F
    size = 1
    while position + size < end and size < 5:
        byte = p[position + size]
        raw |= (byte & 0x7F) << (7 * size)
        size += 1
        if byte < 0x80:
            if raw > 0xFFFFFFFF:
                return -17
            return ((raw >> 1) ^ -(raw & 1)) << 4 | size
    return -17


@cython.cfunc
@cython.exceptval(check=False)
@cython.returns(cython.longlong)
@cython.locals(
    p=cython.p_uchar, position=cython.Py_ssize_t, end=cython.Py_ssize_t, size=cython.longlong
)
def _varlong_size(p: bytes, position: int, end: int) -> int:
    """Bytes of the 64-bit varint at `position`; 0 when it is cut off or longer than 64 bits."""
    size = 1
    while position + size <= end and size <= 10:
        if p[position + size - 1] < 0x80:
            return size if size < 10 or p[position + 9] < 2 else 0
        size += 1
    return 0


@cython.cfunc
@cython.exceptval(check=False)
@cython.returns(cython.longlong)
@cython.locals(
    p=cython.p_uchar, position=cython.Py_ssize_t, size=cython.longlong, i=cython.longlong,
    raw=cython.ulonglong, byte=cython.ulonglong,
)  # fmt: skip
def _varlong(p: bytes, position: int, size: int) -> int:
    raw = 0
    for i in range(size):
        byte = p[position + i]
        raw |= (byte & 0x7F) << (7 * i)
    return (raw >> 1) ^ -(raw & 1)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.longlong)
@cython.locals(base=cython.longlong, delta=cython.longlong)
def _overflows(base: int, delta: int) -> bool:
    """Whether base + delta leaves the signed 64 bits of a timestamp."""
    if base >= 0:
        return delta > INT64_MAX - base
    return delta < -INT64_MAX - 1 - base


@cython.locals(
    p=cython.p_uchar, position=cython.Py_ssize_t, end=cython.Py_ssize_t, packed=cython.longlong,
    size=cython.longlong, count=cython.longlong, i=cython.longlong, found=list,
)  # fmt: skip
def _read_headers(data: bytes, position: int, end: int) -> Headers | None:
    """The headers that take exactly the bytes up to `end`, or None where those are no headers."""
    p = data
    packed = _varint(p, position, end)
    position += packed & 15
    count = packed >> 4
    if count < 0 or count * 2 > end - position:
        return None
    found = []
    for i in range(count):
        packed = _varint(p, position, end)
        position += packed & 15
        size = packed >> 4
        if size < 0 or size > end - position:
            return None
        name = p[position : position + size]
        position += size
        packed = _varint(p, position, end)
        position += packed & 15
        size = packed >> 4
        if size < -1 or size > end - position:
            return None
        value = None
        if size >= 0:
            value = p[position : position + size]
            position += size
        try:
            found.append((name.decode(), value))
        except UnicodeDecodeError:
            return None
    return tuple(found) if position == end else None


def _as_list(column: Sequence[object]) -> list:
    return column if isinstance(column, list) else list(column)


def _header_blob(headers: Headers) -> bytes:
    """The headers of one record, count included, as they stand at its end."""
    if not headers:
        return NO_HEADERS
    parts = [_varint_bytes(len(headers))]
    for key, value in headers:
        name = key.encode()
        parts += (_varint_bytes(len(name)), name)
        parts += (_varint_bytes(-1),) if value is None else (_varint_bytes(len(value)), value)
    return b"".join(parts)


def _varint_bytes(value: int) -> bytes:
    buffer = bytearray(10)
    end = _put_varint(buffer, 0, _zigzag(value))
    return bytes(buffer[:end])


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.ulonglong)
@cython.locals(value=cython.longlong)
def _zigzag(value: int) -> int:
    return (value << 1) ^ (value >> 63)


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.Py_ssize_t)
@cython.locals(raw=cython.ulonglong, size=cython.Py_ssize_t)
def _varint_size(raw: int) -> int:
    size = 1
    while raw >= 0x80:
        raw >>= 7
        size += 1
    return size


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.Py_ssize_t)
@cython.locals(q=cython.p_uchar, position=cython.Py_ssize_t, raw=cython.ulonglong)
def _put_varint(q: bytearray, position: int, raw: int) -> int:
    while raw >= 0x80:
        q[position] = (raw & 0x7F) | 0x80
        raw >>= 7
        position += 1
    q[position] = raw
    return position + 1


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.Py_ssize_t)
@cython.locals(
    q=cython.p_uchar, position=cython.Py_ssize_t, p=cython.p_uchar, size=cython.Py_ssize_t
)
def _put_bytes(q: bytearray, position: int, p: bytes, size: int) -> int:
    if cython.compiled:
        memcpy(q + position, p, size)
    else:
        q[position : position + size] = p
    return position + size


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.Py_ssize_t)
@cython.locals(q=cython.p_uchar, position=cython.Py_ssize_t, data=bytes, size=cython.Py_ssize_t)
def _put_data(q: bytearray, position: int, data: bytes | None) -> int:
    """A key or a value with its length in front; null is length -1."""
    if data is None:
        q[position] = 1
        return position + 1
    size = len(data)
    position = _put_varint(q, position, size << 1)
    return _put_bytes(q, position, data, size)


@cython.cfunc
@cython.inline
@cython.returns(cython.longlong)
@cython.exceptval(check=False)
@cython.locals(
    time=cython.ulonglong,
    offset=cython.ulonglong,
    key=bytes,
    value=bytes,
    size=cython.longlong,
    length=cython.longlong,
)
def _body_size(time: int, offset: int, key: bytes | None, value: bytes | None) -> int:
    """Bytes of a record after its length and before its headers; `time`, `offset` are zig-zag."""
    size = 1 + _varint_size(time) + _varint_size(offset)
    length = -1 if key is None else len(key)
    size += 1 if key is None else length + _varint_size(length << 1)
    length = -1 if value is None else len(value)
    return size + (1 if value is None else length + _varint_size(length << 1))


@cython.cfunc
@cython.locals(
    start=cython.Py_ssize_t,
    stop=cython.Py_ssize_t,
    i=cython.Py_ssize_t,
    bound=cython.longlong,
    time=cython.longlong,
    latest=cython.longlong,
    key_list=list,
    value_list=list,
    time_list=list,
    blobs=list,
)
def _measure(key_list, value_list, time_list, blobs, start, stop):
    """(bytes these records take at most, their latest timestamp); checks the types on the way."""
    bound = (stop - start) * RECORD_OVERHEAD_BYTES_MAX
    latest = -1
    for i in range(start, stop):
        value = value_list[i]
        if type(value) is bytes:
            bound += len(value)
        elif value is not None:
            raise TypeError(f"record value {i} is {type(value).__name__}; give bytes or None")
        if key_list is not None:
            value = key_list[i]
            if type(value) is bytes:
                bound += len(value)
            elif value is not None:
                raise TypeError(f"record key {i} is {type(value).__name__}; give bytes or None")
        time = time_list[i]
        if time < -1 or time > TIMESTAMP_MAX:
            raise OverflowError(
                f"timestamp {time} of record {i} is no time in milliseconds; -1 is none"
            )
        if time > latest:
            latest = time
    if blobs is not None:
        bound += sum(map(len, blobs))
    return bound, latest


@cython.cfunc
@cython.locals(
    start=cython.Py_ssize_t,
    stop=cython.Py_ssize_t,
    i=cython.Py_ssize_t,
    position=cython.Py_ssize_t,
    body=cython.longlong,
    base=cython.longlong,
    time=cython.ulonglong,
    offset=cython.ulonglong,
    key_list=list,
    value_list=list,
    time_list=list,
    blobs=list,
    q=cython.p_uchar,
    key=bytes,
    value=bytes,
)
def _write_records(key_list, value_list, time_list, blobs, start, stop, buffer):
    key, blob = None, NO_HEADERS
    base = time_list[start]
    q = buffer
    position = 0
    for i in range(start, stop):
        if key_list is not None:
            key = key_list[i]
        value = value_list[i]
        if blobs is not None:
            blob = blobs[i - start]
        time = _zigzag(time_list[i] - base)
        offset = (i - start) << 1
        body = _body_size(time, offset, key, value) + len(blob)
        position = _put_varint(q, position, body << 1)
        q[position] = 0
        position = _put_varint(q, position + 1, time)
        position = _put_varint(q, position, offset)
        position = _put_data(q, position, key)
        position = _put_data(q, position, value)
        position = _put_bytes(q, position, blob, len(blob))
    return position
