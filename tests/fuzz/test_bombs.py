"""Compressed bombs: what a batch may become is bounded by named limits, and so is its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

from millstream.log.errors import CorruptRecordError, RecordTooLargeError
from millstream.log.format import codec, compression
from millstream.log.format.codec import decode_batch, encode_batch
from millstream.log.format.compression import COMPRESSION_TYPES, compress, decompress
from millstream.log.format.header import BatchHeader, parse_header, seal_batch
from millstream.log.limits import DECOMPRESSED_BYTES_MAX, DECOMPRESSED_ITEMS_MAX

CODECS = {name: number for name, number in COMPRESSION_TYPES.items() if number}
MIB = 1 << 20


def bomb(number: int, records: bytes, count: int) -> bytes:
    """A batch of these records, whatever they are."""
    packed = compress(number, records)
    return seal_batch(
        BatchHeader(0, 49 + len(packed), 0, 2, 0, number, count - 1, 0, 0, -1, -1, -1, count),
        packed,
    )


def headers_of_one_record(count: int) -> bytes:
    """A record with so many headers, each of an empty key and no value."""
    body = b"\x00\x00\x00\x01\x01" + varint(count) + b"\x00\x01" * count
    return varint(len(body)) + body


def varint(value: int) -> bytes:
    raw, out = value << 1, bytearray()
    while raw >= 0x80:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    return bytes([*out, raw])


@pytest.mark.parametrize("name", CODECS)
def test_what_becomes_too_large_is_refused(name: str) -> None:
    packed = compress(CODECS[name], bytes(2 * MIB))
    with pytest.raises(CorruptRecordError, match=r"larger|limit"):
        decompress(CODECS[name], packed, MIB)
    assert decompress(CODECS[name], packed, 2 * MIB) == bytes(2 * MIB)


def test_as_many_headers_as_a_compressed_batch_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "DECOMPRESSED_ITEMS_MAX", 1000)
    whole = bomb(4, headers_of_one_record(999), 1)
    assert len(decode_batch(whole, 0, parse_header(whole)).headers[0]) == 999
    too_many = bomb(4, headers_of_one_record(1000), 1)
    with pytest.raises(CorruptRecordError, match="it has 1000 headers"):
        decode_batch(too_many, 0, parse_header(too_many))


def test_as_many_records_as_a_compressed_batch_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [b""] * 11
    made = encode_batch(None, values, [0] * 11, None, 0, 11, compression=4)
    monkeypatch.setattr(codec, "DECOMPRESSED_ITEMS_MAX", 10)
    with pytest.raises(CorruptRecordError, match="11 records, more than the 10"):
        decode_batch(made, 0, parse_header(made))
    plain = encode_batch(None, values, [0] * 11, None, 0, 11)
    assert len(decode_batch(plain, 0, parse_header(plain)).values) == 11


def test_what_no_reader_would_take_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "DECOMPRESSED_BYTES_MAX", 1000)
    monkeypatch.setattr(codec, "DECOMPRESSED_ITEMS_MAX", 20)
    with pytest.raises(RecordTooLargeError, match="1000 bytes"):
        encode_batch(None, [bytes(1001)], [0], None, 0, 1, compression=1)
    headers = [(("", None),) * 20]
    with pytest.raises(RecordTooLargeError, match="21 records and headers"):
        encode_batch(None, [b"v"], [0], headers, 0, 1, compression=1)
    encode_batch(None, [bytes(1001)], [0], headers, 0, 1)
    encode_batch(None, [b""], [0], [headers[0][:19]], 0, 1, compression=1)


BOMBS = {
    "zeros": (lambda: bytes(100 * MIB), 3 * 128),
    "too many zeros": (lambda: bytes(600 * MIB), 2 * 128),
    "headers": (lambda: headers_of_one_record(DECOMPRESSED_ITEMS_MAX - 2), 512),
    "too many headers": (lambda: headers_of_one_record(12 * DECOMPRESSED_ITEMS_MAX), 3 * 128),
}
"""What is packed, and how many MiB reading it may take: what it becomes, and a copy in which its
size is known; headers as objects."""
CHILD = """
import resource, sys
sys.path.insert(0, {tests!r})
from fuzz.test_bombs import bomb, headers_of_one_record
from millstream.log.errors import CorruptRecordError
from millstream.log.format.codec import decode_batch
from millstream.log.format.header import parse_header

data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_batch(data, 0, parse_header(data))
except CorruptRecordError:
    pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("codec_name", CODECS)
def test_memory_of_a_bomb(name: str, codec_name: str) -> None:
    """Measured from outside: what the codecs allocate, Python does not see."""
    make_records, memory_mib_max = BOMBS[name]
    records = make_records()
    data = bomb(CODECS[codec_name], records, 1)
    assert len(data) < len(records) // 15
    child = CHILD.format(tests=str(__file__).rpartition("/fuzz/")[0])
    done = subprocess.run(
        [sys.executable, "-c", child], input=data, capture_output=True, check=True
    )
    assert int(done.stdout) < memory_mib_max


def test_the_limit_is_one_number() -> None:
    assert compression.DECOMPRESSED_BYTES_MAX == DECOMPRESSED_BYTES_MAX == 128 * MIB
