"""A batch in another codec: what a topic does whose `compression.type` is its own.

Everything but codec, length and checksum stays: offsets, times, and the producer's sequence, by
which a repeated batch is told.
"""

from __future__ import annotations

from millstream.log.errors import CorruptRecordError, RecordTooLargeError
from millstream.log.limits import DECOMPRESSED_ITEMS_MAX

from .codec import decode_batch
from .compression import COMPRESSION_TYPES, compress, decompress
from .header import CODEC_MASK, HEADER_SIZE_BYTES, LENGTH_END, BatchHeader, parse_header, seal_batch

__all__ = ["recompressed"]

UNCOMPRESSED = "uncompressed"
"""What a topic calls it; a producer says none."""


def recompressed(
    batch: bytes, header: BatchHeader, compression_type: str, level: int | None
) -> bytes:
    """The batch in the codec of that name; the very same object when it is in that codec already,
    at whatever level (as in Kafka).

    Raises:
        CorruptRecordError: the records cannot be decompressed.
        RecordTooLargeError: they are so many that no reader would take them compressed.
        ConfigError: the codec has no such level.
    """
    codec = 0 if compression_type == UNCOMPRESSED else COMPRESSION_TYPES[compression_type]
    if header.compression == codec:
        return batch
    with memoryview(batch) as view, view[HEADER_SIZE_BYTES : header.size_bytes] as stored:
        records: bytes | memoryview = stored
        if header.compression:
            records = decompress(header.compression, stored)
        size_bytes = len(records)
        if codec:
            records = compress(codec, records, level)
        changed = header._replace(
            batch_length=HEADER_SIZE_BYTES - LENGTH_END + len(records),
            attributes=header.attributes & ~CODEC_MASK | codec,
        )
        written = seal_batch(changed, records)
    if codec and size_bytes >= DECOMPRESSED_ITEMS_MAX:
        _check_readable(written)
    return written


def _check_readable(batch: bytes) -> None:
    """What a compressed batch may become is bounded, and this one came uncompressed."""
    try:
        decode_batch(batch, 0, parse_header(batch))
    except CorruptRecordError as error:
        raise RecordTooLargeError(
            f"compressed, as compression.type of the topic wants it, the batch could not be read "
            f"again ({error}); send fewer records at once"
        ) from error
