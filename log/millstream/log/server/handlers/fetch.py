"""Fetch: record batches as they are stored; a request without any waits for some.

Fetch sessions (KIP-227) are declined: every answer says session 0, and clients then name all their
partitions in every request.
"""

from __future__ import annotations

import struct
from typing import Any

from millstream.log.broker.partitions import Fetched, FetchRequest
from millstream.log.errors import LogError
from millstream.log.interface import Isolation
from millstream.log.record import TopicPartition
from millstream.log.server.handler import Context, Fields, Handler
from millstream.log.storage.appending import LEADER_EPOCH

__all__ = ["HANDLERS", "WAIT_MS_MAX", "epoch_error"]

WAIT_MS_MAX = 60_000
"""However long a client would wait: it may be gone, which nobody notices until it is answered."""

_FENCED_LEADER_EPOCH = 74
_UNKNOWN_LEADER_EPOCH = 75
_UNSUPPORTED_COMPRESSION_TYPE = 76
_FETCH_SESSION_ID_NOT_FOUND = 70
_UNKNOWN_TOPIC_ID = 100
_BY_ID_FROM = 13
_ZSTD_FROM = 10
_ZSTD = 4
_LENGTH = struct.Struct(">i")


async def _fetch(request: Any, context: Context) -> Fields:
    if request.session_id != 0:
        return {"error_code": _FETCH_SESSION_ID_NOT_FOUND}
    isolation: Isolation = "read_committed" if request.isolation_level == 1 else "read_uncommitted"
    names = [_name(topic, context) for topic in request.topics]
    wanted = [
        FetchRequest(
            TopicPartition(name, each.partition),
            each.fetch_offset,
            max(each.partition_max_bytes, 0),
        )
        for name, topic in zip(names, request.topics, strict=True)
        for each in topic.partitions
        if name is not None and not epoch_error(each.current_leader_epoch)
    ]
    if len({each.topic_partition for each in wanted}) < len(wanted):
        return await _fetch(_once(request), context)
    refused = len(wanted) < sum(len(topic.partitions) for topic in request.topics)
    answer = await context.broker.partitions.fetch(
        wanted,
        isolation=isolation,
        wait_ms_max=0 if refused or not wanted else min(max(request.max_wait, 0), WAIT_MS_MAX),
        size_bytes_min=request.min_bytes,
        size_bytes_max=min(max(request.max_bytes, 0), context.broker.config.fetch_max_bytes),
        room=context.room,
    )
    # Once more: meanwhile an id may have lost its topic, and the name have gone to another.
    names = [
        name and _name(topic, context) for name, topic in zip(names, request.topics, strict=True)
    ]
    return {
        "responses": [
            {
                "topic": topic.topic,
                "topic_id": topic.topic_id,
                "partitions": [
                    _partition(each, name, answer, context, isolation) for each in topic.partitions
                ],
            }
            for name, topic in zip(names, request.topics, strict=True)
        ]
    }


def _once(request: Any) -> Any:
    """The request with each partition in it once, as it was named last. An answer would have the
    same records as often as a small request can name them."""
    topics: dict[tuple[str, str | None], Any] = {}
    partitions: dict[tuple[str, str | None], dict[int, Any]] = {}
    for topic in request.topics:
        named = topic.topic, topic.topic_id
        topics[named] = topic
        partitions.setdefault(named, {}).update({each.partition: each for each in topic.partitions})
    once = [
        topic._replace(partitions=tuple(partitions[named].values()))
        for named, topic in topics.items()
    ]
    return request._replace(topics=tuple(once))


def _name(topic: Any, context: Context) -> str | None:
    if context.version < _BY_ID_FROM:
        return str(topic.topic)
    found = topic.topic_id and context.broker.partitions.topic_with_id(topic.topic_id)
    return found.name if found else None


def epoch_error(leader_epoch: int) -> int:
    """Of a client that knows of another leader epoch than there is (KIP-320); 0 for none."""
    if leader_epoch in (-1, LEADER_EPOCH):
        return 0
    return _FENCED_LEADER_EPOCH if leader_epoch < LEADER_EPOCH else _UNKNOWN_LEADER_EPOCH


def _partition(
    wanted: Any,
    name: str | None,
    answer: dict[TopicPartition, Fetched],
    context: Context,
    isolation: Isolation,
) -> Fields:
    if name is None:
        return _refusal(wanted.partition, _UNKNOWN_TOPIC_ID)
    epoch = epoch_error(wanted.current_leader_epoch)
    if epoch:
        return _refusal(wanted.partition, epoch)
    fetched = answer[TopicPartition(name, wanted.partition)]
    if isinstance(fetched, LogError):
        return _refusal(wanted.partition, fetched.kafka_code)
    if context.version < _ZSTD_FROM and _has_zstd(fetched.data):
        return _refusal(wanted.partition, _UNSUPPORTED_COMPRESSION_TYPE)
    aborted = [
        {"producer_id": producer_id, "first_offset": first_offset}
        for producer_id, first_offset in fetched.aborted
    ]
    return {
        "partition_index": wanted.partition,
        "high_watermark": fetched.high_watermark,
        "last_stable_offset": fetched.last_stable_offset,
        "log_start_offset": fetched.log_start_offset,
        "aborted_transactions": aborted if isolation == "read_committed" else None,
        "records": fetched.data,
    }


def _refusal(partition: int, code: int) -> Fields:
    return {
        "partition_index": partition,
        "error_code": code,
        "high_watermark": -1,
        "aborted_transactions": None,
        "records": b"",
    }


def _has_zstd(data: bytes) -> bool:
    """Whether a batch is in a codec that clients of old versions do not know (KIP-110)."""
    position = 0
    while position < len(data):
        if data[position + 22] & 7 == _ZSTD:
            return True
        position += 12 + _LENGTH.unpack_from(data, position + 8)[0]
    return False


def _failed(request: Any, code: int) -> Fields:
    return {
        "error_code": code,
        "responses": [
            {
                "topic": topic.topic,
                "topic_id": topic.topic_id,
                "partitions": [_refusal(each.partition, code) for each in topic.partitions],
            }
            for topic in request.topics
        ],
    }


HANDLERS = {1: Handler(range(4, 19), _fetch, failed=_failed, ends_with_client=True)}
