"""Transactions as producers on the network run them (KIP-98, KIP-360), and what an operator asks.

They speak Kafka's transaction version 2 (KIP-890), with Produce 12, TxnOffsetCommit 5 and EndTxn 5,
or version 1: a producer announces each partition before it writes to it, and keeps its epoch from
one transaction to the next.
"""

from __future__ import annotations

import asyncio
from typing import Any

from millstream.log.broker.broker import check_not_internal
from millstream.log.broker.txn_admin import STATE_NAMES, description, listings
from millstream.log.broker.txn_records import BY_OLD_PRODUCER, BY_PRODUCER
from millstream.log.errors import InvalidRequestError, LogError, ProducerFencedError
from millstream.log.record import ProducerDescription, TopicPartition
from millstream.log.server.handler import Context, Fields, Handler

__all__ = ["HANDLERS"]

_INVALID_PRODUCER_EPOCH = 47
_OPERATION_NOT_ATTEMPTED = 55
_BUMPS_EPOCHS_FROM = 5
"""EndTxn answers the epoch of the next transaction from this version on (KIP-890)."""
_FENCED_SINCE = {22: 4, 24: 2, 25: 2, 26: 2}
"""API -> the version from which on its clients know PRODUCER_FENCED (KIP-588)."""


def _code(error: LogError, context: Context) -> int:
    """The error as this version of the request knows it."""
    if type(error) is ProducerFencedError and context.version < _FENCED_SINCE[context.api_key]:
        return _INVALID_PRODUCER_EPOCH
    return error.kafka_code


async def _init_producer_id(request: Any, context: Context) -> Fields:
    if (request.producer_id < 0) is not (request.producer_epoch < 0):
        raise InvalidRequestError("A producer that asks for its next epoch names id and epoch.")
    current = None
    if request.producer_id >= 0:
        current = request.producer_id, request.producer_epoch
    try:
        producer_id, epoch = await context.broker.transactions.init_producer_id(
            request.transactional_id,
            request.transaction_timeout,
            version=BY_OLD_PRODUCER,
            current=current,
        )
    except ProducerFencedError as error:  # also when another producer id is in force
        return {"error_code": _code(ProducerFencedError(*error.args), context)}
    return {"producer_id": producer_id, "producer_epoch": epoch}


async def _add_partitions_to_txn(request: Any, context: Context) -> Fields:
    topics = request.v3_and_below_topics
    named = [TopicPartition(topic.name, each) for topic in topics for each in topic.partitions]
    codes = {each: _missing(context, each) for each in named}
    if any(codes.values()):
        codes = {each: code or _OPERATION_NOT_ATTEMPTED for each, code in codes.items()}
    else:
        try:
            await context.broker.transactions.announce_partitions(
                request.v3_and_below_transactional_id,
                request.v3_and_below_producer_id,
                request.v3_and_below_producer_epoch,
                named,
            )
        except LogError as error:
            codes = dict.fromkeys(named, _code(error, context))
    return {
        "results_by_topic_v3_and_below": [
            {
                "name": topic.name,
                "results_by_partition": [
                    {
                        "partition_index": each,
                        "partition_error_code": codes[TopicPartition(topic.name, each)],
                    }
                    for each in topic.partitions
                ],
            }
            for topic in topics
        ]
    }


def _missing(context: Context, where: TopicPartition) -> int:
    """Whether the partition can be written to by clients."""
    try:
        check_not_internal(where.topic)
        context.broker.partitions.partition(where)
    except LogError as error:
        return error.kafka_code
    return 0


async def _add_offsets_to_txn(request: Any, context: Context) -> Fields:
    try:
        await context.broker.offsets.announce(
            request.transactional_id, request.producer_id, request.producer_epoch, request.group_id
        )
    except LogError as error:
        return {"error_code": _code(error, context)}
    return {}


async def _end_txn(request: Any, context: Context) -> Fields:
    try:
        ending = context.broker.transactions.end_txn(
            request.transactional_id,
            request.producer_id,
            request.producer_epoch,
            commit=request.committed,
            version=BY_PRODUCER if context.version >= _BUMPS_EPOCHS_FROM else BY_OLD_PRODUCER,
        )
        # A server that stops does not wait for slow requests, and the log may stay open.
        producer_id, epoch = await asyncio.shield(ending)
    except LogError as error:
        return {"error_code": _code(error, context)}
    return {"producer_id": producer_id, "producer_epoch": epoch}


# What an operator asks (KIP-664)


async def _describe_transactions(request: Any, context: Context) -> Fields:
    once = dict.fromkeys(request.transactional_ids)  # a description may be long
    return {"transaction_states": [_described(context, each) for each in once]}


def _described(context: Context, transactional_id: str) -> Fields:
    try:
        found = description(context.broker.transactions.table, transactional_id)
    except LogError as error:
        return {"error_code": error.kafka_code, "transactional_id": transactional_id}
    topics: dict[str, list[int]] = {}
    for topic, partition in found.partitions:
        topics.setdefault(topic, []).append(partition)
    return {
        "transactional_id": transactional_id,
        "transaction_state": found.state,
        "transaction_timeout": found.timeout_ms,
        "transaction_start_time": -1 if found.start_ms is None else found.start_ms,
        "producer_id": found.producer_id,
        "producer_epoch": found.producer_epoch,
        "topics": [{"topic": topic, "partitions": each} for topic, each in topics.items()],
    }


async def _list_transactions(request: Any, context: Context) -> Fields:
    known = set(STATE_NAMES.values())
    states = [each for each in request.state_filters if each in known]
    unknown = [each for each in request.state_filters if each not in known]
    found = []
    if states or not unknown:
        found = listings(
            context.broker.transactions.table,
            context.broker.clock.wall_ms(),
            states=states,
            producer_ids=request.producer_id_filters,
            open_longer_than_ms=request.duration_filter,
        )
    return {
        "unknown_state_filters": unknown,
        "transaction_states": [
            {
                "transactional_id": each.transactional_id,
                "producer_id": each.producer_id,
                "transaction_state": each.state,
            }
            for each in found
        ],
    }


async def _describe_producers(request: Any, context: Context) -> Fields:
    asked: dict[str, dict[int, None]] = {}  # each once: a partition may have many producers
    for topic in request.topics:
        asked.setdefault(topic.name, {}).update(dict.fromkeys(topic.partition_indexes))
    return {
        "topics": [
            {
                "name": name,
                "partitions": [_producers(context, TopicPartition(name, each)) for each in numbers],
            }
            for name, numbers in asked.items()
        ]
    }


def _producers(context: Context, where: TopicPartition) -> Fields:
    try:
        producers = context.broker.partitions.partition(where).describe_producers()
    except LogError as error:
        return {
            "partition_index": where.partition,
            "error_code": error.kafka_code,
            "error_message": str(error),
        }
    return {
        "partition_index": where.partition,
        "active_producers": [_producer(each) for each in producers],
    }


def _producer(producer: ProducerDescription) -> Fields:
    start_offset = producer.current_transaction_start_offset
    coordinator_epoch = producer.coordinator_epoch
    return {
        "producer_id": producer.producer_id,
        "producer_epoch": producer.producer_epoch,
        "last_sequence": producer.last_sequence,
        "last_timestamp": producer.last_timestamp,
        "coordinator_epoch": -1 if coordinator_epoch is None else coordinator_epoch,
        "current_txn_start_offset": -1 if start_offset is None else start_offset,
    }


HANDLERS = {
    22: Handler(range(6), _init_producer_id),
    24: Handler(range(4), _add_partitions_to_txn),
    25: Handler(range(5), _add_offsets_to_txn),
    26: Handler(range(6), _end_txn),
    61: Handler(range(1), _describe_producers),
    65: Handler(range(1), _describe_transactions),
    66: Handler(range(2), _list_transactions),
}
