"""The 61 bytes of a header, field by field, and what they mean."""

from __future__ import annotations

import struct

import pytest

from millstream.log.errors import CorruptRecordError
from millstream.log.format.checksum import checksum
from millstream.log.format.header import BatchHeader, check_batch, parse_header, seal_batch

HEADER = BatchHeader(
    base_offset=1_000,
    batch_length=49 + 3,
    leader_epoch=6,
    magic=2,
    crc=0,
    attributes=0,
    last_offset_delta=9,
    base_timestamp=20,
    max_timestamp=30,
    producer_id=40,
    producer_epoch=5,
    base_sequence=60,
    records_count=7,
)


def test_fields_lie_where_kafka_has_them():
    batch = seal_batch(HEADER, b"abc")
    fields = {0: ">q", 8: ">i", 12: ">i", 16: ">b", 17: ">I", 21: ">h", 23: ">i", 27: ">q"}
    fields |= {35: ">q", 43: ">q", 51: ">h", 53: ">i", 57: ">i"}
    found = tuple(struct.unpack_from(form, batch, at)[0] for at, form in fields.items())
    assert found == HEADER._replace(crc=checksum(batch[21:]))
    assert parse_header(b"." + batch, 1) == found
    assert batch[61:] == b"abc"


def test_offset_and_epoch_are_outside_the_checksum():
    batch = bytearray(seal_batch(HEADER, b"abc"))
    struct.pack_into(">q", batch, 0, 77)
    struct.pack_into(">i", batch, 12, 8)
    header = parse_header(batch)
    check_batch(batch, 0, header)
    assert (header.base_offset, header.leader_epoch, header.last_offset) == (77, 8, 86)


def test_checksum_is_castagnolis():
    assert checksum(b"123456789") == 0xE3069283  # the check value of CRC-32C
    assert checksum(b"456789", checksum(b"123")) == 0xE3069283
    assert checksum(b"\x00" * 32) == 0x8A9136AA  # RFC 3720, B.4


@pytest.mark.parametrize(
    ("attributes", "name", "value"),
    [
        (0x00, "compression", 0),
        (0x04, "compression", 4),
        (0x78, "compression", 0),
        (0x08, "is_log_append_time", True),
        (0x77, "is_log_append_time", False),
        (0x10, "is_transactional", True),
        (0x6F, "is_transactional", False),
        (0x20, "is_control", True),
        (0x5F, "is_control", False),
        (0x40, "delete_horizon_ms", 20),
        (0x3F, "delete_horizon_ms", None),
    ],
)
def test_attributes(attributes, name, value):
    assert getattr(HEADER._replace(attributes=attributes), name) == value


@pytest.mark.parametrize(
    ("base_sequence", "last_offset_delta", "last_sequence"),
    [
        (-1, 9, -1),
        (0, 0, 0),
        (60, 9, 69),
        ((1 << 31) - 1, 0, (1 << 31) - 1),
        ((1 << 31) - 1, 1, 0),
        ((1 << 31) - 3, 9, 6),
    ],
)
def test_sequences_wrap(base_sequence, last_offset_delta, last_sequence):
    header = HEADER._replace(base_sequence=base_sequence, last_offset_delta=last_offset_delta)
    assert header.last_sequence == last_sequence


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"magic": 1}, "magic is 1, not 2; it was written before Kafka 0.11"),
        ({"magic": 3}, "magic is 3, not 2"),
        ({"batch_length": 48}, "batchLength 48"),
        ({"base_offset": -1}, "base offset -1"),
        ({"last_offset_delta": -1}, "lastOffsetDelta is -1"),
        ({"records_count": 11}, "11 records on 10 offsets"),
        ({"records_count": -1}, "-1 records"),
        ({"attributes": 7}, "codec 7"),
    ],
)
def test_what_no_header_says(change, match):
    with pytest.raises(CorruptRecordError, match=match):
        parse_header(seal_batch(HEADER._replace(**change), b"abc"))


@pytest.mark.parametrize(("size", "position"), [(60, 0), (61, 1), (0, 0), (100, -1)])
def test_a_header_takes_61_bytes(size, position):
    with pytest.raises(CorruptRecordError, match="needs 61 bytes"):
        parse_header(bytes(size), position)
