# cython: language_level=3, annotation_typing=False, boundscheck=False, wraparound=False
"""Reads the records of one batch into columns. The layout is drawn in `codec.py`.

Compiled by Cython where a C compiler is at hand, interpreted where not; both do the same. Types are
given by `cython.locals` and `cython.declare`, so that an assignment converts: bytes assigned to a
`p_uchar` are a pointer when compiled and stay bytes when not. Compiled, an index into it is checked
by nobody, so every read here is compared with the end first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.log.errors import CorruptRecordError
from millstream.log.record import Headers

from .header import BatchHeader, Columns

if TYPE_CHECKING:
    from . import cython_shim as cython
else:
    try:
        import cython
    except ImportError:
        from . import cython_shim as cython

__all__ = ["COMPILED", "first_without_key", "read_records"]

COMPILED: bool = cython.compiled

RECORD_BYTES_MIN = 7
"""Length, attributes, timestamp, offset, two lengths and a header count of one byte each."""
INT32_MAX = (1 << 31) - 1
INT64_MAX: int = cython.declare(cython.longlong, 0x7FFFFFFFFFFFFFFF)


@cython.final
@cython.cclass
class RecordReader:
    """A position in the records of one batch, and what is read there."""

    kept: bytes = cython.declare(bytes)
    p: bytes = cython.declare(cython.p_uchar)
    position: int = cython.declare(cython.Py_ssize_t)
    end: int = cython.declare(cython.Py_ssize_t)
    record_end: int = cython.declare(cython.Py_ssize_t)
    last_delta: int = cython.declare(cython.longlong)
    delta_max: int = cython.declare(cython.longlong)
    headers_left: int = cython.declare(cython.longlong)

    def __init__(
        self, data: bytes, position: int, end: int, last_offset_delta: int, headers_max: int
    ) -> None:
        self.kept = data  # what `p` points into must live as long as this
        self.p = data
        self.position = position
        self.end = end
        self.record_end = position
        self.last_delta = -1
        self.delta_max = last_offset_delta
        self.headers_left = headers_max

    @cython.cfunc
    @cython.inline
    @cython.returns(cython.longlong)
    @cython.exceptval(-2, check=True)
    @cython.locals(bits=cython.longlong, raw=cython.ulonglong, position=cython.Py_ssize_t)
    def varint(self, bits: int) -> int:
        """A signed number of up to 32 or 64 `bits`."""
        position = self.position
        if position >= self.record_end:
            raise CorruptRecordError("a number is cut off")
        raw = self.p[position]
        self.position = position + 1
        if raw >= 0x80:
            raw = self.long_varint(raw & 0x7F, bits)
        return (raw >> 1) ^ -(raw & 1)

    @cython.cfunc
    @cython.returns(cython.ulonglong)
    @cython.exceptval(0, check=True)
    @cython.locals(
        bits=cython.longlong, raw=cython.ulonglong, byte=cython.ulonglong, shift=cython.longlong,
        position=cython.Py_ssize_t,
    )  # fmt: skip
    def long_varint(self, raw: int, bits: int) -> int:
        """The rest of a varint whose first seven bits are `raw`, not yet zig-zag decoded."""
        shift = 7
        for position in range(self.position, self.record_end):
            byte = self.p[position]
            if shift + 7 > bits and byte >> (bits - shift):
                raise CorruptRecordError(f"a number has more than {bits} bits")
            raw |= (byte & 0x7F) << shift
            if byte < 0x80:
                self.position = position + 1
                return raw
            shift += 7
        raise CorruptRecordError("a number is cut off")

    @cython.cfunc
    @cython.inline
    @cython.exceptval(-1)
    @cython.returns(cython.longlong)
    @cython.locals(size=cython.longlong)
    def begin_record(self) -> int:
        """Step over the length, and the attributes, which have no meaning yet."""
        if self.position != self.record_end:
            raise CorruptRecordError(f"it says it ends at byte {self.record_end}")
        self.record_end = self.end
        size = self.varint(32)
        if size < RECORD_BYTES_MIN - 1 or size > self.end - self.position:
            raise CorruptRecordError(f"its length is {size}")
        self.record_end = self.position + size
        self.position += 1
        return size

    @cython.cfunc
    @cython.inline
    @cython.returns(cython.longlong)
    @cython.exceptval(-1)
    @cython.locals(delta=cython.longlong)
    def offset_delta(self) -> int:
        """Offsets grow from record to record and end with the one the header names."""
        delta = self.varint(32)
        if delta <= self.last_delta or delta > self.delta_max:
            raise CorruptRecordError(
                f"its offset delta is {delta} after {self.last_delta}, the last is {self.delta_max}"
            )
        self.last_delta = delta
        return delta

    @cython.cfunc
    @cython.inline
    @cython.locals(size=cython.longlong, start=cython.Py_ssize_t, end=cython.Py_ssize_t)
    def data(self) -> bytes | None:
        """A length and so many bytes; None for length -1."""
        size = self.varint(32)
        if size < 0:
            if size == -1:
                return None
            raise CorruptRecordError(f"a length is {size}")
        start = self.position
        if size > self.record_end - start:
            raise CorruptRecordError(f"a length of {size} goes past its end")
        end = start + size
        self.position = end
        return self.p[start:end]

    @cython.cfunc
    @cython.locals(count=cython.longlong)
    def headers(self) -> Headers:
        count = self.varint(32)
        if count == 0:
            return ()
        if count < 0 or count > self.headers_left:
            raise CorruptRecordError(f"it has {count} headers")
        self.headers_left -= count
        found: list[tuple[str, bytes | None]] = []
        for _ in range(count):
            key = self.data()
            if key is None:
                raise CorruptRecordError("a header has no key")
            try:
                found.append((key.decode(), self.data()))
            except UnicodeDecodeError as error:
                raise CorruptRecordError(f"a header's key is not UTF-8: {error}") from None
        return tuple(found)

    @cython.cfunc
    @cython.exceptval(-1)
    @cython.returns(cython.longlong)
    def finish(self) -> int:
        """The last record ends where the batch does."""
        if self.position != self.end:
            raise CorruptRecordError(f"its records do not end at byte {self.end}")
        return 0


@cython.locals(reader=RecordReader, position=cython.Py_ssize_t, end=cython.Py_ssize_t)
def read_records(
    data: bytes, position: int, end: int, header: BatchHeader, items_max: int = INT32_MAX
) -> Columns:
    """The records that take exactly `data[position:end]`; with their headers no more than
    `items_max`, because each becomes objects that are much larger than its bytes.

    Raises:
        CorruptRecordError: they do not, or they are not what the header says.
    """
    count = header.records_count
    if count > (end - position) // RECORD_BYTES_MIN:
        raise CorruptRecordError(
            f"the batch at offset {header.base_offset} cannot hold its {count} records in "
            f"{end - position} bytes; it was damaged, or made wrongly by its producer"
        )
    if count > items_max:
        raise CorruptRecordError(
            f"the batch at offset {header.base_offset} has {count} records, more than the "
            f"{items_max} that a compressed batch may have; it is made to exhaust memory"
        )
    reader = RecordReader(data, position, end, header.last_offset_delta, items_max - count)
    try:
        columns = _read_columns(reader, count, header.base_offset, header.base_timestamp)
    except CorruptRecordError as error:
        raise CorruptRecordError(
            f"the batch at offset {header.base_offset} has a bad record at byte "
            f"{reader.position - position} of {end - position}: {error}; it was damaged, or made "
            "wrongly by its producer"
        ) from None
    if header.is_log_append_time:
        return columns._replace(timestamps=[header.max_timestamp] * count)
    return columns


@cython.locals(
    reader=RecordReader, position=cython.Py_ssize_t, end=cython.Py_ssize_t, i=cython.Py_ssize_t,
    count=cython.Py_ssize_t,
)  # fmt: skip
def first_without_key(data: bytes, position: int, end: int, header: BatchHeader) -> int:
    """Index of the first of the records in `data[position:end]` whose key is null; -1 when all have
    one. Of each record only what comes before the key is read, and nothing is copied.

    Raises:
        CorruptRecordError: they are not the records that the header promises.
    """
    count = header.records_count
    reader = RecordReader(data, position, end, header.last_offset_delta, 0)
    try:
        for i in range(count):
            reader.begin_record()
            reader.varint(64)
            reader.offset_delta()
            if reader.varint(32) < 0:
                return i
            reader.position = reader.record_end
        reader.finish()
    except CorruptRecordError as error:
        raise CorruptRecordError(
            f"the batch at offset {header.base_offset} has a bad record at byte "
            f"{reader.position - position} of {end - position}: {error}; it was damaged, or made "
            "wrongly by its producer"
        ) from None
    return -1


@cython.cfunc
@cython.locals(
    reader=RecordReader, i=cython.Py_ssize_t, count=cython.Py_ssize_t, delta=cython.longlong,
    last_delta=cython.longlong, offset_delta=cython.longlong, keys=list, values=list, times=list,
    offsets=list, headers=list,
)  # fmt: skip
def _read_columns(
    reader: RecordReader, count: int, base_offset: int, base_timestamp: int
) -> Columns:
    keys: list[bytes | None] = [None] * count
    values: list[bytes | None] = [None] * count
    times = [base_timestamp] * count
    headers: list[Headers] | None = None
    offsets: list[int] | None = None
    time = base_timestamp
    last_delta = 0
    for i in range(count):
        reader.begin_record()
        delta = reader.varint(64)
        if delta != last_delta:
            time = _add(base_timestamp, delta)
            last_delta = delta
        times[i] = time
        offset_delta = reader.offset_delta()
        if offset_delta != i and offsets is None:
            offsets = list(range(base_offset, base_offset + i))
        if offsets is not None:
            offsets.append(base_offset + offset_delta)
        keys[i] = reader.data()
        values[i] = reader.data()
        found = reader.headers()
        if found:
            if headers is None:
                headers = [()] * count
            headers[i] = found
    reader.finish()
    return Columns(_dense(offsets, base_offset, count), keys, values, times, headers)


@cython.cfunc
@cython.inline
@cython.locals(base=cython.longlong, delta=cython.longlong)
def _add(base: int, delta: int) -> int:
    if delta > INT64_MAX - base if base >= 0 else delta < -INT64_MAX - 1 - base:
        raise CorruptRecordError(f"its time, {base} + {delta}, has more than 64 bits")
    return base + delta


def _dense(offsets: list[int] | None, base_offset: int, count: int) -> range | list[int]:
    """A range where there are no gaps, also when the first records of the batch are gone."""
    if offsets is None:
        return range(base_offset, base_offset + count)
    first, last = offsets[0], offsets[count - 1]
    if last - first == count - 1:
        return range(first, last + 1)
    return offsets
