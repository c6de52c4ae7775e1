"""Whatever the bytes are: records, or CorruptRecordError. Never another error, never bytes that
belong to somebody else, and never gigabytes."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from millstream.log.errors import CorruptRecordError
from millstream.log.format.header import BatchHeader, check_batch, parse_header, seal_batch

INT64_MAX = (1 << 63) - 1


def varint(value, size=0):
    """Zig-zag; padded to `size` bytes where that is longer than needed."""
    raw = (value << 1) ^ (value >> 63) if value < 0 else value << 1
    out = bytearray()
    while raw >= 0x80 or len(out) < size - 1:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    return bytes(out)


ZERO, NULL, V = varint(0), varint(-1), varint(1) + b"v"


def record(*, time=ZERO, offset=ZERO, key=NULL, value=V, headers=ZERO):
    body = b"\x00" + time + offset + key + value + headers
    return varint(len(body)) + body


def batch(records, *, count=1, last_offset_delta=None, **fields):
    header = BatchHeader(
        base_offset=0,
        batch_length=49 + len(records),
        leader_epoch=0,
        magic=2,
        crc=0,
        attributes=0,
        last_offset_delta=count - 1 if last_offset_delta is None else last_offset_delta,
        base_timestamp=0,
        max_timestamp=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        records_count=count,
    )
    return seal_batch(header._replace(**fields), records)


def outcome(form, data, position=0):
    """The columns, or that the data is corrupt; any other error fails the test."""
    try:
        header = form.codec.parse_header(data, position)
        return form.codec.decode_batch(data, position, header, size_bytes_max=1 << 20)
    except CorruptRecordError:
        return "corrupt"


def test_the_records_of_this_file_are_records(form):
    data = batch(record(key=varint(1) + b"k", headers=varint(1) + varint(1) + b"h" + varint(-1)))
    assert outcome(form, data) == (range(1), [b"k"], [b"v"], [0], [(("h", None),)])


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_padded_numbers_are_numbers(form, size):
    """Java reads them, too."""
    data = batch(record(offset=varint(0, size), key=varint(-1, size), headers=varint(0, size)))
    assert outcome(form, data) == (range(1), [None], [b"v"], [0], None)


@pytest.mark.parametrize("delta", [0, 63, 64, -65, 1 << 31, -(1 << 62), INT64_MAX, -INT64_MAX - 1])
def test_a_time_has_64_bits(form, delta):
    assert outcome(form, batch(record(time=varint(delta)))).timestamps == [delta]


BAD = {
    "length is negative": varint(-1) + record()[1:],
    "length is too short": varint(5) + record()[1:6],
    "length goes past the batch": varint(100) + record()[1:],
    "length is cut off": b"\xff\xff",
    "length has 33 bits": varint(1 << 32) + record()[1:],
    "length has six bytes": varint(7, 6) + record()[1:],
    "time has eleven bytes": record(time=varint(0, 11)),
    "time has 65 bits": record(time=b"\xff" * 9 + b"\x02"),
    "time is cut off": varint(6) + b"\x00" + b"\xff" * 5,
    "offset is negative": record(offset=varint(-1)),
    "offset is after the last": record(offset=varint(1)),
    "offset has 33 bits": record(offset=varint(1 << 32)),
    "offset has six bytes": record(offset=varint(0, 6)),
    "key length is -2": record(key=varint(-2)),
    "key goes past the record": record(key=varint(4) + b"k"),
    "key is huge": record(key=varint((1 << 31) - 1)),
    "value goes past the record": record(value=varint(3) + b"v"),
    "no header count": record(headers=b""),
    "header count is negative": record(headers=varint(-1)),
    "header count is huge": record(headers=varint((1 << 31) - 1)),
    "headers are missing": record(headers=varint(1)),
    "header key is null": record(headers=varint(1) + varint(-1) + varint(-1)),
    "header key is not UTF-8": record(headers=varint(1) + varint(1) + b"\xff" + varint(-1)),
    "header value goes past": record(headers=varint(1) + varint(0) + varint(1)),
    "record has bytes left": record(headers=b"\x00\x00"),
    "batch has bytes left": record() + b"\x00",
    "batch has a record more": record() + record(offset=varint(1)),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("tail", [b"", b"\x00" * 64, b"\xff" * 64])
def test_a_bad_record_is_corrupt(form, name, tail):
    assert outcome(form, batch(BAD[name]) + tail) == "corrupt"


@pytest.mark.parametrize(
    "data",
    [
        batch(record() + record(), count=2),
        batch(record(offset=varint(1)) + record(), count=2),
        batch(record(), count=2),
        batch(varint(8) + record()[1:] + record(offset=varint(1)), count=2),
        batch(record(), count=0, last_offset_delta=0),
        batch(record(), count=2, last_offset_delta=0),
        batch(record(), count=-1, last_offset_delta=0),
        batch(record(), last_offset_delta=-1),
        batch(b"", count=1 << 30),
        batch(record(time=varint(1)), base_timestamp=INT64_MAX),
        batch(record(time=varint(-1)), base_timestamp=-INT64_MAX - 1),
        batch(record(), attributes=5),
        batch(record(), magic=1),
        batch(record(), base_offset=-1),
        batch(record(), base_offset=INT64_MAX),
        batch(record(), batch_length=48),
        batch(record(), batch_length=-1),
        batch(record())[:-1],
        batch(record())[:60],
        b"",
    ],
)
def test_a_batch_that_contradicts_itself_is_corrupt(form, data):
    assert outcome(form, data) == "corrupt"


def test_no_batch_lies_before_the_buffer(form):
    data = batch(record())
    with pytest.raises(CorruptRecordError, match="ends too early"):
        form.codec.decode_batch(data, -1, form.codec.parse_header(data))


def test_the_message_says_where(form):
    data = batch(record() + record(offset=varint(3)), count=2, base_offset=40)
    with pytest.raises(CorruptRecordError, match=r"offset 40 has a bad record at byte 12 of 16"):
        form.codec.decode_batch(data, 0, form.codec.parse_header(data))


@pytest.mark.parametrize("position", range(21, 61 + len(record())))
def test_a_flipped_bit_fails_the_checksum(position):
    data = bytearray(batch(record()))
    header = parse_header(data)
    check_batch(data, 0, header)
    data[position] ^= 0x10
    with pytest.raises(CorruptRecordError, match="offset 0 has CRC-32C"):
        check_batch(data, 0, header)


def test_a_short_batch_fails_the_check():
    data = batch(record())
    with pytest.raises(CorruptRecordError, match="ends too early"):
        check_batch(data[:-1], 0, parse_header(data))


@given(st.binary(max_size=200), st.integers(0, 30), st.integers(0, 40), st.integers(0, 0x7F))
@example(b"\x0c\x00\x00\x00\x01\x01\x00" * 3, 3, 2, 0)
def test_any_bytes(form, interpreted, data, count, last_offset_delta, attributes):
    whole = batch(data, count=count, last_offset_delta=last_offset_delta, attributes=attributes)
    found = outcome(form, whole)
    assert found == outcome(interpreted, whole)
    assert found == outcome(form, b"\x00" + whole + b"\xff" * 20, 1)
    assert found == outcome(form, whole + b"\x01" * 20)


@given(
    st.lists(st.tuples(st.none() | st.binary(max_size=20), st.binary(max_size=90)), min_size=1),
    st.integers(0, 4),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=4),
    st.integers(0, 1 << 20),
    st.booleans(),
)
def test_a_damaged_batch(form, interpreted, records, compression, changes, cut, is_cut):
    keys, values = (list(column) for column in zip(*records, strict=True))
    whole = form.codec.encode_batch(
        keys, values, [5] * len(keys), None, 0, len(keys), compression=compression
    )
    header = parse_header(whole)
    payload = bytearray(whole[61:])
    for position, byte in changes:
        payload[position % len(payload)] = byte
    if is_cut:
        del payload[cut % len(payload) :]
    damaged = seal_batch(header._replace(batch_length=49 + len(payload)), bytes(payload))
    found = outcome(form, damaged)
    assert found == outcome(interpreted, damaged)
    if not is_cut and bytes(payload) == whole[61:]:
        assert found == (range(len(keys)), keys, values, [5] * len(keys), None)


@given(st.binary(max_size=120))
def test_any_header(form, data):
    outcome(form, data)
