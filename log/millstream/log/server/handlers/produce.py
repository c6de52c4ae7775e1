"""Produce: record batches as they came, to the log.

A batch is in the page cache before the first await, so that pipelined requests are appended in
order; then all of a request wait for the disk together, and requests for each other's fsync. acks=1
means what acks=all does: there is one copy, and what is acknowledged is as durable as the log
promises.
"""

from __future__ import annotations

import asyncio
import struct
from typing import Any

from millstream.log.broker.txn_records import BY_OLD_PRODUCER, BY_PRODUCER
from millstream.log.errors import (
    ConcurrentTransactionsError,
    InvalidRecordError,
    LogError,
    ProducerFencedError,
)
from millstream.log.record import TopicPartition
from millstream.log.server.handler import Context, Fields, Handler, HangUpError

__all__ = ["HANDLERS"]

_INVALID_REQUIRED_ACKS = 21
_NOT_ENOUGH_REPLICAS = 19
_UNKNOWN_TOPIC_ID = 100
_INVALID_PRODUCER_EPOCH = 47
_UNSUPPORTED_COMPRESSION_TYPE = 76
_UNSUPPORTED_FOR_MESSAGE_FORMAT = 43
_HEAD = struct.Struct(">qiibIh")  # offset, length, leader epoch, magic, crc, attributes
_LENGTH_STARTS = 12
_MAGIC = 2
_ZSTD = 4
_CODEC_MASK = 7
_ZSTD_FROM = 7
_BUMPS_EPOCHS_FROM = 12
_TEXT_MAX = 1000
"""Characters of a text about an error. There is one for each partition, and a name that no topic
has may be of 32 KB."""


Answer = dict[str, Any]


async def _produce(request: Any, context: Context) -> Fields | None:
    if request.acks not in (-1, 0, 1):
        return _failed(request, _INVALID_REQUIRED_ACKS)
    waiting: list[tuple[Answer, asyncio.Future[None]]] = []
    responses = []
    for topic in request.topic_data:
        name = _name(topic, context)
        answers = []
        for each in topic.partition_data:
            answer: Answer = {"index": each.index, "base_offset": -1}
            if name is None:
                answer["error_code"] = _UNKNOWN_TOPIC_ID
            else:
                partition = TopicPartition(name, each.index)
                _append(partition, each.records, request, context, answer, waiting)
            answers.append(answer)
        responses.append(
            {"name": name or "", "topic_id": topic.topic_id, "partition_responses": answers}
        )
    if request.acks == 0:
        _check_silently(responses, waiting)
        return None
    for answer, future in waiting:
        try:
            await future
        except LogError as error:
            answer.update(_refusal(error, context))
    return {"responses": responses}


def _append(
    partition: TopicPartition,
    records: bytes | None,
    request: Any,
    context: Context,
    answer: Answer,
    waiting: list[tuple[Answer, asyncio.Future[None]]],
) -> None:
    """Append one partition's batch; `waiting` gets its acknowledgement, or `answer` the error."""
    broker = context.broker
    try:
        batch = _checked(partition, records, context.version, answer)
        if batch is None:
            return
        version = BY_PRODUCER if context.version >= _BUMPS_EPOCHS_FROM else BY_OLD_PRODUCER
        joined = broker.admit(partition, batch, request.transactional_id, version)
        info = broker.partitions.append(partition, batch)
        if joined is not None:
            waiting.append((answer, broker.partitions.durable(*joined)))
        answer["base_offset"] = info.base_offset
        answer["log_append_time"] = info.timestamp
        answer["log_start_offset"] = broker.partitions.beginning_offset(partition)
        waiting.append((answer, broker.partitions.durable(partition, info.last_offset + 1)))
    except LogError as error:
        answer.update(_refusal(error, context))


def _checked(
    partition: TopicPartition, records: bytes | None, version: int, answer: Answer
) -> bytes | None:
    """The one batch there must be; None with the error in `answer` for what this version of the
    request cannot carry.

    Raises:
        InvalidRecordError: there is none, or more than one.
    """
    if records is None or len(records) < _HEAD.size:
        raise InvalidRecordError(f"Partition {partition}: no record batch was sent.")
    _, length, _, magic, _, attributes = _HEAD.unpack_from(records)
    if magic != _MAGIC:
        answer["error_code"] = _UNSUPPORTED_FOR_MESSAGE_FORMAT
        return None
    if attributes & _CODEC_MASK == _ZSTD and version < _ZSTD_FROM:
        answer["error_code"] = _UNSUPPORTED_COMPRESSION_TYPE
        return None
    if 0 <= length < len(records) - _LENGTH_STARTS:
        raise InvalidRecordError(f"Partition {partition}: more than one record batch was sent.")
    return records


def _name(topic: Any, context: Context) -> str | None:
    """By name up to version 12, by id from then on."""
    if topic.topic_id is None:
        return topic.name or None
    found = context.broker.partitions.topic_with_id(topic.topic_id)
    return None if found is None else found.name


def _refusal(error: LogError, context: Context) -> Answer:
    """A producer that was fenced learns it here as an old epoch, in every version; one whose last
    transaction is still ending is told something it will try again after, where it does not know
    the code (KIP-890)."""
    code = error.kafka_code
    if isinstance(error, ProducerFencedError):
        code = _INVALID_PRODUCER_EPOCH if code == ProducerFencedError.kafka_code else code
    elif isinstance(error, ConcurrentTransactionsError) and context.version < _BUMPS_EPOCHS_FROM:
        code = _NOT_ENOUGH_REPLICAS
    return {
        "error_code": code,
        "error_message": str(error)[:_TEXT_MAX],
        "base_offset": -1,
        "log_append_time": -1,
        "log_start_offset": -1,
    }


def _check_silently(
    responses: list[dict[str, Any]], waiting: list[tuple[Answer, asyncio.Future[None]]]
) -> None:
    """acks=0: there is no response, so an error closes the connection for the client to notice."""
    for _, future in waiting:
        future.cancel()
    for topic in responses:
        for answer in topic["partition_responses"]:
            if answer.get("error_code", 0):
                raise HangUpError(
                    f"{topic['name']}-{answer['index']} refused a batch sent with acks=0, error "
                    f"{answer['error_code']}."
                )


def _failed(request: Any, code: int) -> Fields:
    if request.acks == 0:
        raise HangUpError(f"a produce request with acks=0 failed with error {code}.")
    return {
        "responses": [
            {
                "name": topic.name,
                "topic_id": topic.topic_id,
                "partition_responses": [
                    {"index": each.index, "error_code": code, "base_offset": -1}
                    for each in topic.partition_data
                ],
            }
            for topic in request.topic_data
        ]
    }


HANDLERS = {
    0: Handler(range(3, 14), _produce, failed=_failed, advertised_from=0, overlaps=True),
}
"""Versions below 3 are advertised and not answered, as Kafka does: old librdkafka takes a server
that does not speak them for one that knows no compression (KAFKA-18659)."""
