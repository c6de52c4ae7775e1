# cython: language_level=3, annotation_typing=False, boundscheck=False, wraparound=False
"""Writes records out of columns, and says how much room they take. The layout is in `codec.py`.

Compiled by Cython where a C compiler is at hand, interpreted where not, like `record_reader.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from millstream.log.errors import RecordTooLargeError
from millstream.log.record import Headers

from .header import HEADER_SIZE_BYTES
from .header import TIMESTAMP_MAX as _TIMESTAMP_MAX

if TYPE_CHECKING:
    from . import cython_shim as cython
else:
    try:
        import cython
    except ImportError:
        from . import cython_shim as cython

if cython.compiled:
    from cython.cimports.libc.string import memcpy

__all__ = ["COMPILED", "estimate_size", "fill_batches", "header_bytes", "write_records"]

COMPILED: bool = cython.compiled

NO_HEADERS = b"\x00"
RECORD_OVERHEAD_BYTES_MAX = 36
"""Length, attributes, timestamp, offset, two lengths and a header count, each at its longest."""
RECORDS_BYTES_MAX = (1 << 31) - 1 - HEADER_SIZE_BYTES
TIMESTAMP_MAX: int = cython.declare(cython.longlong, _TIMESTAMP_MAX)


def estimate_size(key: bytes | None, value: bytes | None, headers: Headers = ()) -> int:
    """Bytes a record may take in a batch, before compression; never too few."""
    size = RECORD_OVERHEAD_BYTES_MAX
    if key is not None:
        size += len(key)
    if value is not None:
        size += len(value)
    return size + len(header_bytes(headers)) if headers else size


@cython.boundscheck(True)
@cython.locals(
    start=cython.Py_ssize_t, i=cython.Py_ssize_t, count=cython.Py_ssize_t, room=cython.longlong,
    base=cython.longlong, time=cython.longlong, body=cython.longlong, offset=cython.longlong,
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

    The size is that of the uncompressed batch, header included. One record is always taken, however
    large it is.
    """
    count = len(values)
    if start >= count:
        return count
    room = size_bytes_max - HEADER_SIZE_BYTES
    base = timestamps[start]
    for i in range(start, count):
        offset, time = i - start, timestamps[i]
        body = 1 + _varint_size(_zigzag(time - base)) + _varint_size(_zigzag(offset))
        body += 1 if keys is None else _data_size(keys[i])
        body += _data_size(values[i])
        body += 1 if headers is None else len(header_bytes(headers[i]))
        room -= body + _varint_size(_zigzag(body))
        if room < 0 and offset > 0:
            return i
    return count


@cython.locals(
    i=cython.Py_ssize_t, count=cython.Py_ssize_t, bound=cython.longlong, time=cython.longlong,
    latest=cython.longlong, keys=list, values=list, times=list, headers=list,
)  # fmt: skip
def write_records(
    keys: list[bytes | None] | None,
    values: list[bytes | None],
    times: list[int],
    headers: list[bytes] | None,
) -> tuple[bytearray, int, int]:
    """All records of the columns: a buffer, how many of its bytes they take, the latest timestamp.

    The lists are as long as each other and belong to this call: nobody may change them meanwhile.

    Raises:
        RecordTooLargeError, TypeError, OverflowError: as `encode_batch` says.
    """
    count = len(values)
    bound = count * RECORD_OVERHEAD_BYTES_MAX
    latest = -1
    for i in range(count):
        bound += _checked_size(values[i], i)
        if keys is not None:
            bound += _checked_size(keys[i], i)
        if headers is not None:
            bound += _checked_size(headers[i], i)
        time = times[i]
        if time < -1 or time > TIMESTAMP_MAX:
            raise OverflowError(
                f"timestamp {time} of record {i}: give milliseconds, or -1 for none"
            )
        if time > latest:
            latest = time
    if bound > RECORDS_BYTES_MAX:
        raise RecordTooLargeError(
            f"{count} records of up to {bound} bytes do not fit one batch of {RECORDS_BYTES_MAX}; "
            "send fewer at once"
        )
    buffer = bytearray(bound)
    return buffer, _write(keys, values, times, headers, buffer), latest


@cython.cfunc
@cython.inline
@cython.exceptval(-1)
@cython.returns(cython.Py_ssize_t)
@cython.locals(i=cython.Py_ssize_t)
def _checked_size(data: bytes | None, i: int) -> int:
    if type(data) is bytes:
        return len(data)
    if data is None:
        return 0
    raise TypeError(f"key or value of record {i} is {type(data).__name__}; give bytes or None")


@cython.cfunc
@cython.returns(cython.Py_ssize_t)
@cython.exceptval(-1)
@cython.locals(
    q=cython.p_uchar, i=cython.Py_ssize_t, position=cython.Py_ssize_t, base=cython.longlong,
    time=cython.ulonglong, offset=cython.ulonglong, body=cython.ulonglong, keys=list, values=list,
    times=list, headers=list, key=bytes, value=bytes, extra=bytes,
)  # fmt: skip
def _write(
    keys: list[bytes | None] | None,
    values: list[bytes | None],
    times: list[int],
    headers: list[bytes] | None,
    buffer: bytearray,
) -> int:
    key = None
    extra = NO_HEADERS
    base = times[0]
    q = buffer
    position = 0
    for i in range(len(values)):
        if keys is not None:
            key = keys[i]
        if headers is not None:
            extra = headers[i]
        value = values[i]
        time = _zigzag(times[i] - base)
        offset = i << 1
        body = 1 + _varint_size(time) + _varint_size(offset)
        body += _data_size(key) + _data_size(value) + len(extra)
        position = _put_varint(q, position, body << 1)
        q[position] = 0
        position = _put_varint(q, position + 1, time)
        position = _put_varint(q, position, offset)
        position = _put_data(q, position, key)
        position = _put_data(q, position, value)
        position = _put_bytes(q, position, extra, len(extra))
    return position


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
@cython.returns(cython.ulonglong)
@cython.locals(value=cython.longlong, raw=cython.ulonglong)
def _zigzag(value: int) -> int:
    raw = value  # unsigned: C leaves it open what shifting a negative number does
    return (raw << 1) ^ (value >> 63)


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
@cython.exceptval(-1)
@cython.returns(cython.Py_ssize_t)
@cython.locals(size=cython.Py_ssize_t)
def _data_size(data: bytes | None) -> int:
    """Bytes of a key or a value with its length in front."""
    if data is None:
        return 1
    size = len(data)
    return size + _varint_size(size << 1)


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


@cython.locals(q=cython.p_uchar, position=cython.Py_ssize_t, size=cython.Py_ssize_t, part=bytes)
def header_bytes(headers: Headers) -> bytes:
    """The headers of one record, count included, as they stand at its end.

    Raises:
        TypeError: a key that is not str, a value that is not bytes or None.
    """
    if not headers:
        return NO_HEADERS
    size = _varint_size(len(headers) << 1)
    parts: list[bytes | None] = []
    for key, value in headers:
        if type(key) is not str or not (value is None or type(value) is bytes):
            raise TypeError(f"header {key!r}: give a str and bytes or None")
        name = key.encode()
        size += _data_size(name) + _data_size(value)
        parts += (name, value)
    buffer = bytearray(size)
    q = buffer
    position = _put_varint(q, 0, len(headers) << 1)
    for part in parts:
        position = _put_data(q, position, part)
    return bytes(buffer)
