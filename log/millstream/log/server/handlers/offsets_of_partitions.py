"""ListOffsets and OffsetForLeaderEpoch: where partitions begin and end, and where a time is."""

from __future__ import annotations

from typing import Any

from millstream.log.errors import LogError
from millstream.log.record import TopicPartition
from millstream.log.server.handler import Context, Fields, Handler
from millstream.log.storage.appending import LEADER_EPOCH
from millstream.log.storage.partition import Partition

from .fetch import epoch_error

__all__ = ["HANDLERS"]

_UNSUPPORTED_VERSION = 35
_INVALID_REQUEST = 42
_LATEST = -1
_EARLIEST = -2
_MAX_TIMESTAMP = -3
_EARLIEST_LOCAL = -4
_LATEST_TIERED = -5
_SINCE = {_LATEST: 1, _EARLIEST: 1, _MAX_TIMESTAMP: 7, _EARLIEST_LOCAL: 8, _LATEST_TIERED: 9}
"""What is asked for by a number below 0 -> the version of ListOffsets that has it first."""
_NONE: tuple[int, int] = (-1, -1)


async def _list_offsets(request: Any, context: Context) -> Fields:
    seen: set[tuple[str, int]] = set()
    twice: set[tuple[str, int]] = set()
    for topic in request.topics:
        for each in topic.partitions:
            at = (topic.name, each.partition_index)
            (twice if at in seen else seen).add(at)
    committed = request.isolation_level == 1
    return {
        "topics": [
            {
                "name": topic.name,
                "partitions": [
                    _listed(topic.name, each, context, committed)
                    if (topic.name, each.partition_index) not in twice
                    else _refused(each, _INVALID_REQUEST)
                    for each in topic.partitions
                ],
            }
            for topic in request.topics
        ]
    }


def _listed(name: str, wanted: Any, context: Context, committed: bool) -> Fields:
    code = epoch_error(wanted.current_leader_epoch)
    if code:
        return _refused(wanted, code)
    if wanted.timestamp < 0 and context.version < _SINCE.get(wanted.timestamp, context.version + 1):
        return _refused(wanted, _UNSUPPORTED_VERSION)
    try:
        partition = context.broker.partitions.partition(
            TopicPartition(name, wanted.partition_index)
        )
        offset, timestamp = _found(partition, wanted.timestamp, committed)
    except LogError as error:
        return _refused(wanted, error.kafka_code)
    return {
        "partition_index": wanted.partition_index,
        "offset": offset,
        "timestamp": timestamp,
        "leader_epoch": LEADER_EPOCH if offset >= 0 else -1,
    }


def _found(partition: Partition, timestamp: int, committed: bool) -> tuple[int, int]:
    """Offset and time; -1 for both where nothing is found (KIP-79, KIP-734, KIP-405)."""
    end = partition.last_stable_offset if committed else partition.high_watermark
    if timestamp == _LATEST:
        return end, -1
    if timestamp in (_EARLIEST, _EARLIEST_LOCAL):
        return partition.log_start_offset, -1
    if timestamp == _LATEST_TIERED:
        return _NONE  # nothing is ever moved to another storage
    found = partition.max_timestamp() if timestamp == _MAX_TIMESTAMP else None
    if timestamp >= 0:
        found = partition.first_at(timestamp)
    return _NONE if found is None or found[0] >= end else found


def _refused(wanted: Any, code: int) -> Fields:
    return {"partition_index": wanted.partition_index, "error_code": code}


async def _offset_for_leader_epoch(request: Any, context: Context) -> Fields:
    return {
        "topics": [
            {
                "topic": topic.topic,
                "partitions": [_epoch_end(topic.topic, each, context) for each in topic.partitions],
            }
            for topic in request.topics
        ]
    }


def _epoch_end(name: str, wanted: Any, context: Context) -> Fields:
    answer: dict[str, Any] = {
        "partition": wanted.partition,
        "error_code": epoch_error(wanted.current_leader_epoch),
    }
    try:
        found = context.broker.partitions.partition(TopicPartition(name, wanted.partition))
    except LogError as error:
        return answer | {"error_code": error.kafka_code}
    if answer["error_code"] == 0 and wanted.leader_epoch == LEADER_EPOCH:
        answer |= {"leader_epoch": LEADER_EPOCH, "end_offset": found.log_end_offset}
    return answer


def _list_failed(request: Any, code: int) -> Fields:
    return {
        "topics": [
            {"name": topic.name, "partitions": [_refused(each, code) for each in topic.partitions]}
            for topic in request.topics
        ]
    }


def _epochs_failed(request: Any, code: int) -> Fields:
    return {
        "topics": [
            {
                "topic": topic.topic,
                "partitions": [
                    {"partition": each.partition, "error_code": code} for each in topic.partitions
                ],
            }
            for topic in request.topics
        ]
    }


HANDLERS = {
    2: Handler(range(1, 11), _list_offsets, failed=_list_failed),
    23: Handler(range(2, 5), _offset_for_leader_epoch, failed=_epochs_failed),
}
