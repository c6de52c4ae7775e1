"""The framing Kafka expects of each codec, and how large decompressed data may become."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from random import Random

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.errors import ConfigError, CorruptRecordError
from millstream.log.format.compression import COMPRESSION_TYPES, compress, decompress

GZIP, SNAPPY, LZ4, ZSTD = (COMPRESSION_TYPES[name] for name in ("gzip", "snappy", "lz4", "zstd"))
CODECS = pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
TEXT = b"".join(b'{"id": %d, "name": "somebody"}\n' % i for i in range(12_000))
NOISE = Random(5).randbytes(200_000)


@CODECS
@pytest.mark.parametrize("data", [b"", b"a", TEXT[:2000], TEXT, NOISE, NOISE[:70_000] + TEXT])
def test_round_trip(codec, data):
    packed = compress(codec, data)
    assert decompress(codec, packed) == data
    assert decompress(codec, memoryview(packed), len(data)) == data
    assert compress(codec, memoryview(data)) == packed


@CODECS
@given(st.binary(max_size=200))
def test_any_bytes_become_bytes_or_are_corrupt(codec, data):
    with suppress(CorruptRecordError):
        assert len(decompress(codec, data, 1 << 16)) <= 1 << 16


@CODECS
@given(st.integers(0), st.integers(0, 255), st.booleans())
def test_damaged_data_becomes_bytes_or_is_corrupt(codec, position, byte, cut):
    packed = bytearray(compress(codec, TEXT[:2000]))
    packed[position % len(packed)] = byte
    if cut:
        del packed[position % len(packed) :]
    with suppress(CorruptRecordError):
        assert len(decompress(codec, packed, 1 << 16)) <= 1 << 16


@CODECS
def test_cut_data_is_corrupt(codec):
    packed = compress(codec, NOISE)
    for end in (0, 1, 7, 20, len(packed) // 2, len(packed) - 1):
        with pytest.raises(CorruptRecordError):
            decompress(codec, packed[:end])


@CODECS
def test_one_byte_over_the_limit_is_corrupt(codec):
    packed = compress(codec, TEXT)
    assert decompress(codec, packed, len(TEXT)) == TEXT
    with pytest.raises(CorruptRecordError, match=f"{len(TEXT) - 1}"):
        decompress(codec, packed, len(TEXT) - 1)


def zstd_bomb():
    """4 KB that claim 128 MB: a frame of blocks that repeat one byte, 128 KB each."""
    block = (1 << 17) << 3 | 1 << 1
    blocks = [struct.pack("<HBB", block & 0xFFFF, block >> 16, 0)] * 1023
    last = block | 1
    blocks.append(struct.pack("<HBB", last & 0xFFFF, last >> 16, 0))
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(blocks)


BOMBS = {
    "gzip": (GZIP, zlib.compress(bytes(1 << 27), 9, 31)),
    "snappy raw": (SNAPPY, bytes(cramjam.snappy.compress_raw(bytes(1 << 27)))),
    "snappy xerial": (SNAPPY, compress(SNAPPY, bytes(1 << 27))),
    "snappy that lies": (SNAPPY, b"\xff\xff\xff\xff\x0f" + b"\x00" * 100),
    "lz4": (LZ4, compress(LZ4, bytes(1 << 27))),
    "zstd": (ZSTD, compress(ZSTD, bytes(1 << 27))),
    "zstd that does not tell": (ZSTD, zstd_bomb()),
    "zstd that lies": (ZSTD, b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8 + b"\x03\x00\x00"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_corrupt(name):
    codec, bomb = BOMBS[name]
    with pytest.raises(CorruptRecordError):
        decompress(codec, bomb, 1 << 20)


PEAK_OF_BOMBS = """
import pathlib, sys
from millstream.log.errors import CorruptRecordError
from millstream.log.format.compression import compress, decompress

def peak_bytes():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

for codec in (1, 2, 3, 4):
    decompress(codec, compress(codec, bytes(1 << 20)), 1 << 20)
before = peak_bytes()
for path in sys.argv[1:]:
    try:
        decompress(int(path[-1]), pathlib.Path(path).read_bytes(), 1 << 20)
    except CorruptRecordError:
        pass
print(peak_bytes() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells the peak")
def test_bombs_take_no_memory(tmp_path):
    paths = []
    for i, (codec, bomb) in enumerate(BOMBS.values()):
        paths.append(tmp_path / f"{i}.{codec}")
        paths[-1].write_bytes(bomb)
    child = subprocess.run(
        [sys.executable, "-c", PEAK_OF_BOMBS, *map(str, paths)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(child.stdout) < 24 << 20


def test_zstd_blocks_that_repeat_a_byte_are_data():
    assert decompress(ZSTD, zstd_bomb()) == bytes(1 << 27)


def test_gzip_members_follow_each_other():
    assert decompress(GZIP, compress(GZIP, b"one ") + compress(GZIP, b"two")) == b"one two"


def test_gzip_members_have_an_end():
    """Each costs a copy of all that follow, so 50,000 of them would take minutes."""
    member = compress(GZIP, b"a")
    assert decompress(GZIP, member * 64) == b"a" * 64
    with pytest.raises(CorruptRecordError, match="more than 64 members"):
        decompress(GZIP, member * 65)


def test_zstd_frames_follow_each_other():
    skipped = struct.pack("<II", 0x184D2A53, 3) + b"abc"
    frames = compress(ZSTD, TEXT) + skipped + compress(ZSTD, b"two")
    assert decompress(ZSTD, frames) == TEXT + b"two"


def test_zstd_frames_with_a_checksum_or_a_dictionary_id_are_read():
    magic = b"\x28\xb5\x2f\xfd"
    empty = magic + b"\x24\x00" + b"\x01\x00\x00" + bytes.fromhex("99e9d851")  # XXH64 of nothing
    one = magic + b"\x21\x00\x01" + b"\x09\x00\x00" + b"a"  # dictionary 0 is no dictionary
    assert decompress(ZSTD, empty + one) == b"a"


def test_snappy_is_framed_as_snappy_java_does():
    packed = compress(SNAPPY, NOISE[:40_000])
    assert packed[:16] == b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
    (first,) = struct.unpack_from(">i", packed, 16)
    assert bytes(cramjam.snappy.decompress_raw(packed[20 : 20 + first])) == NOISE[: 32 * 1024]


def test_a_snappy_block_that_goes_past_the_end_is_corrupt():
    packed = bytearray(compress(SNAPPY, b"abc"))
    packed[19] += 1
    with pytest.raises(CorruptRecordError, match="too early"):
        decompress(SNAPPY, packed)


def test_raw_snappy_is_read_too():
    assert decompress(SNAPPY, bytes(cramjam.snappy.compress_raw(TEXT))) == TEXT


def test_lz4_is_a_frame_of_independent_blocks_of_64_kb():
    packed = compress(LZ4, TEXT)
    # Version 1, independent blocks | 64 KB | xxHash32 of those two bytes, second byte
    assert packed[:7] == bytes.fromhex("04224d18 60 40 82")
    assert packed[-4:] == bytes(4)
    (first,) = struct.unpack_from("<I", packed, 7)
    block = cramjam.lz4.decompress_block(packed[11 : 11 + first], output_len=1 << 16)
    assert bytes(block) == TEXT[: 1 << 16]
    assert bytes(cramjam.lz4.decompress(packed)) == TEXT


def test_lz4_stores_a_block_that_does_not_shrink():
    packed = compress(LZ4, NOISE[:1000])
    assert packed[7:11] == struct.pack("<I", 1000 | 1 << 31)
    assert packed[11:1011] == NOISE[:1000]


def test_lz4_frames_of_other_writers_are_read():
    packed = bytes(cramjam.lz4.compress(TEXT))  # says its size, has linked blocks
    assert packed[:7] != compress(LZ4, TEXT)[:7]
    assert decompress(LZ4, packed) == TEXT


def test_lz4_frames_that_say_their_size_are_read():
    header = bytes.fromhex("04224d18 68 40") + struct.pack("<Q", 5) + b"\x61"
    frame = header + struct.pack("<I", 5 | 1 << 31) + b"hello" + bytes(4)
    assert decompress(LZ4, frame) == b"hello"


def test_lz4_with_a_wrong_header_checksum_is_corrupt():
    packed = bytearray(compress(LZ4, TEXT))
    packed[6] ^= 1
    with pytest.raises(CorruptRecordError, match="lz4"):
        decompress(LZ4, packed)


@pytest.mark.parametrize(
    ("codec", "levels"),
    [(GZIP, (1, -1, 9)), (LZ4, (1, 9, 17)), (ZSTD, (-100, 1, 22))],
)
def test_levels(codec, levels):
    packed = [compress(codec, TEXT, level) for level in levels]
    assert [decompress(codec, each) for each in packed] == [TEXT] * len(levels)
    assert len(packed[-1]) < len(packed[0])


def test_lz4_level_9_is_the_default():
    """KIP-390: 9 stands for the fast mode, unlike 8 and 10."""
    assert compress(LZ4, TEXT, 9) == compress(LZ4, TEXT)
    assert compress(LZ4, TEXT, 8) != compress(LZ4, TEXT) != compress(LZ4, TEXT, 10)


@pytest.mark.parametrize(
    ("codec", "level", "match"),
    [
        (GZIP, 0, "compression.gzip.level 0 does not exist; use 1 to 9"),
        (GZIP, 10, "use 1 to 9"),
        (LZ4, 18, "use 1 to 17"),
        (ZSTD, 23, "use -131072 to 22"),
        (SNAPPY, 1, "leave it out"),
        (5, None, "codec 5 does not exist"),
        (0, None, "codec 0 does not exist"),
    ],
)
def test_what_does_not_exist_is_a_config_error(codec, level, match):
    with pytest.raises(ConfigError, match=match):
        compress(codec, TEXT, level)
