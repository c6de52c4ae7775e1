"""What a batch must be before a partition takes it, and what the partition writes into it.

Of the header, the broker owns base offset and leader epoch, which the checksum leaves out; and
under LogAppendTime the time, which it covers. A topic with a codec of its own has every batch in
that one.

The records themselves are looked at only where a setting of the topic makes it necessary.
"""

from __future__ import annotations

import struct

from millstream.log.config import TopicConfig
from millstream.log.errors import (
    CorruptRecordError,
    InvalidRecordError,
    InvalidTimestampError,
    NotEnoughReplicasError,
    RecordTooLargeError,
)
from millstream.log.format.codec import (
    BatchHeader,
    Columns,
    check_batch,
    decode_batch,
    first_without_key,
    parse_header,
)
from millstream.log.format.header import (
    ATTRIBUTE_LOG_APPEND_TIME,
    CRC_START,
    HEADER_SIZE_BYTES,
    checksum,
)
from millstream.log.record import TopicPartition
from millstream.log.settings import LONG_MAX

from .segment import NO_TIMESTAMP

__all__ = ["LEADER_EPOCH", "as_stored", "check_for_append", "placed"]

LEADER_EPOCH = 0
"""One node leads for ever; there is no second epoch."""
REPLICAS = 1
"""Copies of a record that one node keeps."""

_PLACE = struct.Struct(">qii")
_PLACE_END = 16
_CRC = struct.Struct(">I")
_ATTRIBUTES = struct.Struct(">h")
_MAX_TIMESTAMP = struct.Struct(">q")
_CRC_POSITION = 17
_MAX_TIMESTAMP_POSITION = 35


def check_for_append(
    batch: bytes, config: TopicConfig, topic_partition: TopicPartition, now_ms: int
) -> BatchHeader:
    """The header of a batch a client may write.

    Raises:
        NotEnoughReplicasError: the topic asks for more copies than there are.
        RecordTooLargeError: larger than max.message.bytes.
        CorruptRecordError: not one whole valid batch, or a control batch.
        InvalidTimestampError: a time outside the topic's limits.
        InvalidRecordError: a record without a key in a compacted topic.
    """
    if config.min_insync_replicas > REPLICAS:
        raise NotEnoughReplicasError(
            f"Partition {topic_partition}: min.insync.replicas of the topic is "
            f"{config.min_insync_replicas}, and this log keeps {REPLICAS} copy. Nothing was "
            f"written. Set min.insync.replicas of topic {topic_partition.topic} to 1."
        )
    _check_size(batch, config, topic_partition)
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
    if header.is_log_append_time:
        raise InvalidTimestampError(
            f"Partition {topic_partition}: the batch says that its time is that of its append, "
            "which only the log can say. Nothing was written; mend the producer."
        )
    if config.compacts or _time_needs_a_look(header, config, now_ms):
        _check_records(batch, header, config, topic_partition, now_ms)
    return header


def _check_size(batch: bytes, config: TopicConfig, topic_partition: TopicPartition) -> None:
    if len(batch) > config.max_message_bytes:
        raise RecordTooLargeError(
            f"Partition {topic_partition}: a batch of {len(batch)} bytes, max.message.bytes is "
            f"{config.max_message_bytes}. Send smaller records or batches, or raise it for topic "
            f"{topic_partition.topic}."
        )


def _time_needs_a_look(header: BatchHeader, config: TopicConfig, now_ms: int) -> bool:
    """Whether a record may be outside the limits. The header knows the latest time, and not the
    earliest: that of the first record is only the usual one."""
    if config.is_log_append_time:
        return False
    return (
        header.max_timestamp - now_ms > config.message_timestamp_after_max_ms
        or config.message_timestamp_before_max_ms != LONG_MAX
    )


def _check_records(
    batch: bytes,
    header: BatchHeader,
    config: TopicConfig,
    topic_partition: TopicPartition,
    now_ms: int,
) -> None:
    """Look at the records, as far as the topic's settings make it necessary."""
    try:
        keyless = first_without_key(batch, header) if config.compacts else -1
        if _time_needs_a_look(header, config, now_ms):
            _check_times(decode_batch(batch, 0, header), config, topic_partition, now_ms)
    except CorruptRecordError as error:
        raise CorruptRecordError(f"Partition {topic_partition}: {error}.") from error
    if keyless >= 0:
        raise InvalidRecordError(
            f"Partition {topic_partition}: record {keyless} of {header.records_count} (counted "
            f"from 0) has no key, and topic {topic_partition.topic} is compacted by key "
            "(cleanup.policy). Nothing of the batch was written. Give every record a key, or take "
            "compact out of cleanup.policy."
        )


def _check_times(
    columns: Columns, config: TopicConfig, topic_partition: TopicPartition, now_ms: int
) -> None:
    earliest = now_ms - config.message_timestamp_before_max_ms
    latest = now_ms + config.message_timestamp_after_max_ms
    for i, time in enumerate(columns.timestamps):
        if time != NO_TIMESTAMP and not earliest <= time <= latest:
            where = f"Partition {topic_partition}: record {i} of {len(columns.timestamps)}"
            raise _invalid_timestamp(where, time, config, now_ms)


def _invalid_timestamp(
    where: str, time: int, config: TopicConfig, now_ms: int
) -> InvalidTimestampError:
    if time > now_ms:
        side, limit = "after", config.message_timestamp_after_max_ms
    else:
        side, limit = "before", config.message_timestamp_before_max_ms
    return InvalidTimestampError(
        f"{where} (counted from 0) has timestamp {time}, {abs(time - now_ms)} ms {side} the log's "
        f"clock; message.timestamp.{side}.max.ms of the topic is {limit}. Nothing of the batch was "
        "written. Mend the record's time, or raise that setting."
    )


def _unfit(header: BatchHeader, size_bytes: int) -> str:
    if header.size_bytes != size_bytes:
        return f"{size_bytes} bytes were sent for a batch of {header.size_bytes}"
    if size_bytes == HEADER_SIZE_BYTES:
        return f"no bytes were sent for {header.records_count} records"
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


def as_stored(
    batch: bytes,
    header: BatchHeader,
    config: TopicConfig,
    topic_partition: TopicPartition,
    now_ms: int,
) -> tuple[bytes, BatchHeader]:
    """The batch as the topic wants it: in its codec, with its kind of time. Mostly as it came.

    Raises:
        CorruptRecordError: it says that it is compressed, and is not.
        RecordTooLargeError: in the topic's codec it is larger than max.message.bytes.
    """
    if config.compression_type != "producer":
        from millstream.log.format.recompression import recompressed  # few topics need it

        try:
            sent, batch = (
                batch,
                recompressed(batch, header, config.compression_type, config.compression_level),
            )
        except CorruptRecordError as error:
            raise CorruptRecordError(f"Partition {topic_partition}: {error}.") from error
        if batch is not sent:
            header = parse_header(batch)
            _check_size(batch, config, topic_partition)
    if config.is_log_append_time:
        return _with_append_time(batch, header, now_ms)
    return batch, header


def _with_append_time(batch: bytes, header: BatchHeader, now_ms: int) -> tuple[bytes, BatchHeader]:
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
    # What `_replace` does, in a third of its time.
    at_offset = BatchHeader._make((base_offset, header.batch_length, LEADER_EPOCH, *header[3:]))
    return at_offset, (place, memoryview(batch)[_PLACE_END:])
