"""What a batch must be before a partition takes it, and what the partition writes into it.

Of the header, the broker owns base offset and leader epoch, which the checksum leaves out; and
under LogAppendTime the time, which it covers.
"""

from __future__ import annotations

import struct

from millstream.log.config import TopicConfig
from millstream.log.errors import CorruptRecordError, RecordTooLargeError
from millstream.log.format.codec import BatchHeader, check_batch, parse_header
from millstream.log.format.header import ATTRIBUTE_LOG_APPEND_TIME, CRC_START, checksum
from millstream.log.record import TopicPartition

__all__ = ["LEADER_EPOCH", "check_for_append", "placed", "with_append_time"]

LEADER_EPOCH = 0
"""One node leads for ever; there is no second epoch."""

_PLACE = struct.Struct(">qii")
_PLACE_END = 16
_CRC = struct.Struct(">I")
_ATTRIBUTES = struct.Struct(">h")
_MAX_TIMESTAMP = struct.Struct(">q")
_CRC_POSITION = 17
_MAX_TIMESTAMP_POSITION = 35


def check_for_append(
    batch: bytes, config: TopicConfig, topic_partition: TopicPartition
) -> BatchHeader:
    """The header of a batch a client may write.

    Raises:
        RecordTooLargeError: larger than max.message.bytes.
        CorruptRecordError: not one whole valid batch, or a control batch.
    """
    if len(batch) > config.max_message_bytes:
        raise RecordTooLargeError(
            f"Partition {topic_partition}: a batch of {len(batch)} bytes, max.message.bytes is "
            f"{config.max_message_bytes}. Send smaller records or batches, or raise it for topic "
            f"{topic_partition.topic}."
        )
    try:
        header = parse_header(batch)
        check_batch(batch, 0, header)
    except CorruptRecordError as error:
        raise CorruptRecordError(f"Partition {topic_partition}: {error}.") from error
    what = _unfit(header, len(batch))
    if what:
        raise CorruptRecordError(
            f"Partition {topic_partition}: {what}. Nothing was written; mend the producer."
        )
    return header


def _unfit(header: BatchHeader, size_bytes: int) -> str:
    if header.size_bytes != size_bytes:
        return f"{size_bytes} bytes were sent for a batch of {header.size_bytes}"
    if header.is_control:
        return "a control batch, which only a transaction coordinator writes"
    if header.records_count != header.last_offset_delta + 1:
        return f"{header.records_count} records on {header.last_offset_delta + 1} offsets"
    if header.producer_id >= 0 and (header.producer_epoch < 0 or header.base_sequence < 0):
        return (
            f"producer id {header.producer_id} with epoch {header.producer_epoch} and sequence "
            f"{header.base_sequence}"
        )
    if header.producer_id < 0 and header.is_transactional:
        return "a transactional batch without a producer id"
    return ""


def with_append_time(batch: bytes, header: BatchHeader, now_ms: int) -> tuple[bytes, BatchHeader]:
    """The batch with the broker's time for every record (message.timestamp.type=LogAppendTime)."""
    attributes = header.attributes | ATTRIBUTE_LOG_APPEND_TIME
    buffer = bytearray(batch)
    _ATTRIBUTES.pack_into(buffer, CRC_START, attributes)
    _MAX_TIMESTAMP.pack_into(buffer, _MAX_TIMESTAMP_POSITION, now_ms)
    crc = checksum(memoryview(buffer)[CRC_START:])
    _CRC.pack_into(buffer, _CRC_POSITION, crc)
    return bytes(buffer), header._replace(attributes=attributes, max_timestamp=now_ms, crc=crc)


def placed(
    batch: bytes, header: BatchHeader, base_offset: int
) -> tuple[BatchHeader, tuple[bytes, memoryview]]:
    """Header and bytes of the batch at its offset; in two parts, so that nothing is copied."""
    place = _PLACE.pack(base_offset, header.batch_length, LEADER_EPOCH)
    at_offset = header._replace(base_offset=base_offset, leader_epoch=LEADER_EPOCH)
    return at_offset, (place, memoryview(batch)[_PLACE_END:])
