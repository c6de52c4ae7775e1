"""The compression codecs of record batches, in the framing Kafka's clients write and read.

    1 gzip     gzip members (RFC 1952)
    2 snappy   xerial framing: 16-byte header, then int32 size + raw snappy block, 32 KB each
    3 lz4      LZ4 frame, independent blocks of 64 KB, no checksums but that of the header
    4 zstd     Zstandard frames (RFC 8878)

Decompression is bounded: how large the result can become is known before it is made (or, for gzip,
while), so that a few crafted kilobytes cannot claim gigabytes. The codecs are imported when first
used.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from millstream.log.errors import ConfigError, CorruptRecordError
from millstream.log.limits import DECOMPRESSED_BYTES_MAX, GZIP_MEMBERS_MAX

__all__ = ["COMPRESSION_TYPES", "compress", "decompress"]

COMPRESSION_TYPES = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
"""Values of `compression.type` and their number in a batch's attributes."""

Data = bytes | bytearray | memoryview

LEVELS = {"gzip": range(1, 10), "lz4": range(1, 18), "zstd": range(-131072, 23)}
"""Levels Kafka allows (KIP-390). gzip's -1 is its default, like None here."""
LZ4_LEVEL_DEFAULT = 9
"""Kafka's default level of lz4, and the one that means lz4's fast mode."""
ZSTD_LEVEL_DEFAULT = 3

XERIAL_MAGIC = b"\x82SNAPPY\x00"
XERIAL_HEADER = XERIAL_MAGIC + struct.pack(">ii", 1, 1)
XERIAL_BLOCK_BYTES = 32 * 1024

LZ4_MAGIC = b"\x04\x22\x4d\x18"
LZ4_HEADER = LZ4_MAGIC + b"\x60\x40\x82"
"""Version 1, independent blocks; blocks of 64 KB; second byte of xxHash32 over those two."""
LZ4_BLOCK_BYTES = 64 * 1024
LZ4_END = b"\x00\x00\x00\x00"
LZ4_STORED = 0x80000000
LZ4_BLOCK_CHECKSUM = 0x10
LZ4_HC_LEVELS = (3, 12)
"""The levels lz4's slower mode has; Kafka's others mean the nearest of these."""
LZ4_RATIO_MAX = 255

ZSTD_MAGIC = 0xFD2FB528
ZSTD_SKIPPABLE = 0x184D2A50
ZSTD_SKIPPABLE_MASK = 0xFFFFFFF0
ZSTD_BLOCK_BYTES = 128 * 1024
ZSTD_BLOCK_HEADER_BYTES = 3
ZSTD_CHECKSUM_BYTES = 4
ZSTD_REPEATED = 1
"""Block types: 0 stored, 1 one byte repeated, 2 compressed; both of the first say their size."""


def compress(codec: int, data: Data, level: int | None = None) -> bytes:
    """Compress the records of a batch. `level` None is Kafka's default for the codec.

    Raises:
        ConfigError: there is no such codec, or the codec has no such level.
    """
    name = _name(codec)
    if name == "gzip" and level == -1:
        level = None
    if level is not None and level not in LEVELS.get(name, ()):
        allowed = LEVELS.get(name)
        hint = f"use {allowed.start} to {allowed.stop - 1}" if allowed else "leave it out"
        raise ConfigError(f"compression.{name}.level {level} does not exist; {hint}")
    return COMPRESSORS[name](data, level)


def decompress(codec: int, data: Data, size_bytes_max: int = DECOMPRESSED_BYTES_MAX) -> bytes:
    """Decompress the records of a batch to at most `size_bytes_max` bytes.

    Raises:
        CorruptRecordError: the data is damaged or would become larger.
    """
    import cramjam

    name = _name(codec)
    try:
        return DECOMPRESSORS[name](data, size_bytes_max)
    except (cramjam.DecompressionError, struct.error) as error:
        raise CorruptRecordError(
            f"the {name} data is damaged or becomes larger than {size_bytes_max} bytes: {error}"
        ) from error


def _name(codec: int) -> str:
    for name, number in COMPRESSION_TYPES.items():
        if number == codec and number:
            return name
    raise ConfigError(
        f"compression codec {codec} does not exist; use 1 to {len(COMPRESSION_TYPES) - 1}"
    )


def _limit(name: str, size_bytes: int, size_bytes_max: int) -> int:
    if size_bytes > size_bytes_max:
        raise CorruptRecordError(
            f"the {name} data decompresses to {size_bytes} bytes or more, the limit is "
            f"{size_bytes_max}; it is damaged or made to exhaust memory"
        )
    return size_bytes


def _decompress_into(
    function: Callable[[Data, bytearray], int], data: Data, size_bytes: int
) -> bytes:
    buffer = bytearray(size_bytes)
    written = function(data, buffer)
    return bytes(memoryview(buffer)[:written])


def _gzip(data: Data, level: int | None) -> bytes:
    import cramjam

    return bytes(cramjam.gzip.compress(data, level))


def _gunzip(data: Data, size_bytes_max: int) -> bytes:
    """The standard library's, because it stops at a given size whatever the trailer says."""
    import zlib

    parts: list[bytes] = []
    size_bytes = 0
    rest: Data = data
    while len(rest) or not parts:
        if len(parts) == GZIP_MEMBERS_MAX:
            raise CorruptRecordError(f"the gzip data has more than {GZIP_MEMBERS_MAX} members")
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            part = member.decompress(rest, size_bytes_max - size_bytes + 1)
        except zlib.error as error:
            raise CorruptRecordError(f"the gzip data is damaged: {error}") from error
        size_bytes = _limit("gzip", size_bytes + len(part), size_bytes_max)
        if not member.eof:
            raise CorruptRecordError("the gzip data ends too early")
        parts.append(part)
        rest = member.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _snappy(data: Data, _level: int | None) -> bytes:
    import cramjam

    parts = [XERIAL_HEADER]
    with memoryview(data) as view:
        for start in range(0, len(view), XERIAL_BLOCK_BYTES):
            block = bytes(cramjam.snappy.compress_raw(view[start : start + XERIAL_BLOCK_BYTES]))
            parts.append(len(block).to_bytes(4, "big"))
            parts.append(block)
    return b"".join(parts)


def _unsnappy(data: Data, size_bytes_max: int) -> bytes:
    view = memoryview(data)
    if view[: len(XERIAL_MAGIC)] != XERIAL_MAGIC:
        return _unsnappy_block(view, 0, size_bytes_max)
    parts: list[bytes] = []
    size_bytes = 0
    position = len(XERIAL_HEADER)
    while position < len(view):
        (block_bytes,) = struct.unpack_from(">I", view, position)
        position += 4
        if block_bytes > len(view) - position:
            raise CorruptRecordError("the snappy data ends too early")
        block = view[position : position + block_bytes]
        parts.append(_unsnappy_block(block, size_bytes, size_bytes_max))
        size_bytes += len(parts[-1])
        position += block_bytes
    return b"".join(parts)


def _unsnappy_block(block: memoryview, before_bytes: int, size_bytes_max: int) -> bytes:
    import cramjam

    size_bytes = cramjam.snappy.decompress_raw_len(block)
    _limit("snappy", before_bytes + size_bytes, size_bytes_max)
    return bytes(cramjam.snappy.decompress_raw(block))


def _lz4(data: Data, level: int | None) -> bytes:
    parts = [LZ4_HEADER]
    with memoryview(data) as view:
        for start in range(0, len(view), LZ4_BLOCK_BYTES):
            plain = view[start : start + LZ4_BLOCK_BYTES]
            if level is None or level == LZ4_LEVEL_DEFAULT:
                parts.append(_lz4_fast_block(plain))
            else:
                parts.append(_lz4_small_block(plain, level))
    parts.append(LZ4_END)
    return b"".join(parts)


def _lz4_fast_block(plain: memoryview) -> bytes:
    import cramjam

    block = bytes(cramjam.lz4.compress_block(plain, store_size=False))
    if len(block) < len(plain):
        return len(block).to_bytes(4, "little") + block
    return (len(plain) | LZ4_STORED).to_bytes(4, "little") + plain


def _lz4_small_block(plain: memoryview, level: int) -> bytes:
    """The one block of a frame of its own: cramjam has no other way to the slower levels."""
    import cramjam

    compressor = cramjam.lz4.Compressor(
        level=min(max(level, LZ4_HC_LEVELS[0]), LZ4_HC_LEVELS[1]),
        content_checksum=False,
        block_linked=False,
    )
    compressor.compress(bytes(plain))
    frame = bytes(compressor.finish())
    checksum_bytes = 4 if frame[4] & LZ4_BLOCK_CHECKSUM else 0
    return frame[len(LZ4_HEADER) : len(frame) - len(LZ4_END) - checksum_bytes]


def _unlz4(data: Data, size_bytes_max: int) -> bytes:
    import cramjam

    with memoryview(data) as view:
        size_bytes = sum(_lz4_block_bounds(view))
    return _decompress_into(cramjam.lz4.decompress_into, data, min(size_bytes, size_bytes_max))


def _lz4_block_bounds(view: memoryview) -> Iterator[int]:
    """How large each block of an LZ4 frame can become (LZ4 frame format 1.6.x)."""
    if view[:4] != LZ4_MAGIC or len(view) < len(LZ4_HEADER):
        raise CorruptRecordError("the lz4 data does not begin with a frame")
    flags, block_code = view[4], (view[5] >> 4) & 7
    if block_code < 4:
        raise CorruptRecordError(f"lz4 block size code {block_code} does not exist")
    block_bytes_max = 1 << (8 + 2 * block_code)
    position = len(LZ4_HEADER) + (8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0)
    while True:
        (word,) = struct.unpack_from("<I", view, position)
        if not word:
            return
        stored = word & ~LZ4_STORED
        yield stored if word & LZ4_STORED else min(block_bytes_max, stored * LZ4_RATIO_MAX)
        position += 4 + stored + (4 if flags & LZ4_BLOCK_CHECKSUM else 0)


def _zstd(data: Data, level: int | None) -> bytes:
    import cramjam

    return bytes(cramjam.zstd.compress(data, ZSTD_LEVEL_DEFAULT if level is None else level))


def _unzstd(data: Data, size_bytes_max: int) -> bytes:
    import cramjam

    with memoryview(data) as view:
        size_bytes = sum(_zstd_bounds(view))
    return _decompress_into(cramjam.zstd.decompress_into, data, min(size_bytes, size_bytes_max))


def _zstd_bounds(view: memoryview) -> Iterator[int]:
    """How large each frame can become: what it says, or what its blocks can (RFC 8878, 3.1)."""
    position = 0
    while position < len(view):
        (magic,) = struct.unpack_from("<I", view, position)
        if magic & ZSTD_SKIPPABLE_MASK == ZSTD_SKIPPABLE:
            position += 8 + int(struct.unpack_from("<I", view, position + 4)[0])
            continue
        if magic != ZSTD_MAGIC or position + 5 > len(view):
            raise CorruptRecordError("the zstd data does not begin with a frame")
        descriptor = view[position + 4]
        single_segment = descriptor & 0x20
        content_start = position + (5 if single_segment else 6) + (0, 1, 2, 4)[descriptor & 3]
        content_size_bytes = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
        content = view[content_start : content_start + content_size_bytes]
        content_bytes = int.from_bytes(content, "little") + (256 if content_size_bytes == 2 else 0)
        position, blocks_bytes = _zstd_blocks(view, content_start + content_size_bytes)
        if descriptor & 0x04:
            position += ZSTD_CHECKSUM_BYTES
        yield min(content_bytes, blocks_bytes) if content_size_bytes else blocks_bytes


def _zstd_blocks(view: memoryview, position: int) -> tuple[int, int]:
    """Where the blocks that begin at `position` end, and how large they can become."""
    size_bytes = 0
    last = False
    while not last:
        low, high = struct.unpack_from("<HB", view, position)
        word = low | high << 16
        last = word & 1 != 0
        kind, block_bytes = word >> 1 & 3, word >> 3
        repeated = kind == ZSTD_REPEATED
        position += ZSTD_BLOCK_HEADER_BYTES + (1 if repeated else block_bytes)
        size_bytes += block_bytes if kind <= ZSTD_REPEATED else ZSTD_BLOCK_BYTES
    return position, size_bytes


COMPRESSORS: dict[str, Callable[[Data, int | None], bytes]] = {
    "gzip": _gzip,
    "snappy": _snappy,
    "lz4": _lz4,
    "zstd": _zstd,
}
DECOMPRESSORS: dict[str, Callable[[Data, int], bytes]] = {
    "gzip": _gunzip,
    "snappy": _unsnappy,
    "lz4": _unlz4,
    "zstd": _unzstd,
}
