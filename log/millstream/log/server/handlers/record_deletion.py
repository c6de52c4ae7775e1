"""DeleteRecords: raises the log start offset of partitions (KIP-107)."""

from __future__ import annotations

from typing import Any

from millstream.log.broker.broker import Broker, check_not_internal
from millstream.log.errors import LogError, OffsetOutOfRangeError
from millstream.log.record import TopicPartition
from millstream.log.server.handler import Context, Fields, Handler

__all__ = ["HANDLERS"]

_HIGH_WATERMARK = -1
_NO_OFFSET = -1
_POLICY_VIOLATION = 44


async def _delete_records(request: Any, context: Context) -> Fields:
    return {
        "topics": [
            {
                "name": topic.name,
                "partitions": [
                    _answer(context.broker, topic.name, each) for each in topic.partitions
                ],
            }
            for topic in request.topics
        ]
    }


def _answer(broker: Broker, topic: str, wanted: Any) -> Fields:
    try:
        code, low_watermark = _deleted(
            broker, TopicPartition(topic, wanted.partition_index), wanted.offset
        )
    except LogError as error:
        code, low_watermark = error.kafka_code, _NO_OFFSET
    return {
        "partition_index": wanted.partition_index,
        "error_code": code,
        "low_watermark": low_watermark,
    }


def _deleted(broker: Broker, topic_partition: TopicPartition, before: int) -> tuple[int, int]:
    """Kafka's number of an error, and where the partition begins now."""
    check_not_internal(topic_partition.topic)
    partitions = broker.partitions
    config = partitions.partition(topic_partition).config
    if config.compacts and not config.deletes:
        return _POLICY_VIOLATION, _NO_OFFSET  # a compacted topic keeps the last of every key
    if before < _HIGH_WATERMARK:
        raise OffsetOutOfRangeError(f"{topic_partition} has no offset {before}.")
    partitions.delete_records(topic_partition, before)
    return 0, partitions.beginning_offset(topic_partition)


def _failed(request: Any, code: int) -> Fields:
    return {
        "topics": [
            {
                "name": topic.name,
                "partitions": [
                    {
                        "partition_index": each.partition_index,
                        "error_code": code,
                        "low_watermark": _NO_OFFSET,
                    }
                    for each in topic.partitions
                ],
            }
            for topic in request.topics
        ]
    }


HANDLERS = {21: Handler(range(3), _delete_records, failed=_failed)}
