"""Committed offsets: commit, fetch, and commit within a transaction (KIP-447)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from millstream.log.broker.broker import Broker
from millstream.log.broker.txn_records import BY_OLD_PRODUCER, BY_PRODUCER
from millstream.log.errors import (
    ConcurrentTransactionsError,
    LogError,
    ProducerFencedError,
    UnsupportedError,
)
from millstream.log.record import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition
from millstream.log.server.handler import Context, Fields, Handler

__all__ = ["HANDLERS"]

_OFFSET_METADATA_TOO_LARGE = 12
_COORDINATOR_LOAD_IN_PROGRESS = 14
_INVALID_COMMIT_OFFSET_SIZE = 28
_INVALID_REQUEST = 42
_INVALID_PRODUCER_EPOCH = 47
_NO_OFFSET = -1
_BUMPS_EPOCHS_FROM = 5
"""From this version of TxnOffsetCommit on nothing was announced (KIP-890)."""
_KNOWS_EPOCHS = 9
"""From this version of OffsetCommit on it is for members of every protocol."""
_MANY_GROUPS = 8
"""From this version of OffsetFetch on it is about several groups."""

Offsets = dict[TopicPartition, OffsetAndMetadata]
Codes = dict[TopicPartition, int]


async def _offset_commit(request: Any, context: Context) -> Fields:
    offsets, codes = _fit(request, context.broker)
    member = _member(request, request.generation_id_or_member_epoch)
    code = 0
    try:
        if context.version < _KNOWS_EPOCHS:
            _check_is_classic(context.broker, member)
        await context.broker.offsets.commit(member, offsets)
    except LogError as error:
        code = error.kafka_code
    return _answered(request, codes, code)


def _check_is_classic(broker: Broker, member: ConsumerGroupMetadata) -> None:
    group = broker.groups.modern.get(member.group)
    if group is not None and member.member_id in group.members:
        raise UnsupportedError(
            f"Group {member.group}: members with group.protocol=consumer commit with version "
            f"{_KNOWS_EPOCHS} of OffsetCommit. Use a newer client."
        )


async def _txn_offset_commit(request: Any, context: Context) -> Fields:
    offsets, codes = _fit(request, context.broker)
    code = 0
    try:
        await context.broker.offsets.commit_in_transaction(
            request.transactional_id,
            request.producer_id,
            request.producer_epoch,
            _member(request, request.generation_id),
            offsets,
            version=BY_PRODUCER if context.version >= _BUMPS_EPOCHS_FROM else BY_OLD_PRODUCER,
        )
    except LogError as error:
        code = _code_in_transaction(error)
    return _answered(request, codes, code)


def _code_in_transaction(error: LogError) -> int:
    """Clients know neither PRODUCER_FENCED nor CONCURRENT_TRANSACTIONS as answers to
    TxnOffsetCommit; the latter they try again when they hear that the coordinator is loading."""
    if type(error) is ProducerFencedError:
        return _INVALID_PRODUCER_EPOCH
    if isinstance(error, ConcurrentTransactionsError):
        return _COORDINATOR_LOAD_IN_PROGRESS
    return error.kafka_code


def _member(request: Any, generation: int) -> ConsumerGroupMetadata:
    return ConsumerGroupMetadata(
        request.group_id, generation, request.member_id, request.group_instance_id
    )


def _fit(request: Any, broker: Broker) -> tuple[Offsets, Codes]:
    """The offsets that can be committed, and what is wrong with the others."""
    offsets: Offsets = {}
    codes: Codes = {}
    for topic in request.topics:
        for entry in topic.partitions:
            where = TopicPartition(topic.name, entry.partition_index)
            offset = OffsetAndMetadata(entry.committed_offset, entry.committed_metadata or "")
            code = _refused(broker, where, offset)
            if code:
                codes[where] = code
            else:
                offsets[where] = offset
    return offsets, codes


def _refused(broker: Broker, where: TopicPartition, offset: OffsetAndMetadata) -> int:
    try:
        broker.partitions.partition(where)
    except LogError as error:
        return error.kafka_code
    if len(offset.metadata.encode()) > broker.config.offset_metadata_max_bytes:
        return _OFFSET_METADATA_TOO_LARGE
    return _INVALID_COMMIT_OFFSET_SIZE if offset.offset < 0 else 0


def _answered(request: Any, codes: Codes, code: int) -> Fields:
    """What was wrong with a partition, else how all the others fared."""
    return {
        "topics": [
            {
                "name": topic.name,
                "partitions": [
                    {
                        "partition_index": each.partition_index,
                        "error_code": codes.get(
                            TopicPartition(topic.name, each.partition_index), code
                        ),
                    }
                    for each in topic.partitions
                ],
            }
            for topic in request.topics
        ]
    }


async def _offset_fetch(request: Any, context: Context) -> Fields:
    if context.version < _MANY_GROUPS:
        return _fetched(request, context.broker, stable=request.require_stable)
    times = Counter(each.group_id for each in request.groups)
    return {
        "groups": [
            {
                "group_id": each.group_id,
                **(
                    _fetched_by_member(each, context, stable=request.require_stable)
                    if times[each.group_id] == 1
                    else {"error_code": _INVALID_REQUEST}  # an answer may be long
                ),
            }
            for each in request.groups
        ]
    }


def _fetched_by_member(wanted: Any, context: Context, *, stable: bool) -> Fields:
    """Members of a group of KIP-848 say who they are, and are told when they are out of date."""
    try:
        context.broker.groups.modern.check_fetch(
            wanted.group_id, wanted.member_id, wanted.member_epoch
        )
    except LogError as error:
        return {"error_code": error.kafka_code}
    return _fetched(wanted, context.broker, stable=stable)


def _fetched(wanted: Any, broker: Broker, *, stable: bool) -> Fields:
    """What one group committed; -1 for a partition it committed nothing for, whether or not there
    is such a group."""
    partitions = None
    if wanted.topics is not None:
        partitions = [
            TopicPartition(topic.name, each)
            for topic in wanted.topics
            for each in topic.partition_indexes
        ]
    found = broker.offsets.committed(wanted.group_id, partitions, stable=stable)
    topics: dict[str, list[Fields]] = {}
    for (topic, partition), committed in sorted(found.items()):
        if committed is not None or partitions is not None:
            topics.setdefault(topic, []).append(_entry(partition, committed))
    return {"topics": [{"name": name, "partitions": each} for name, each in topics.items()]}


def _entry(partition: int, committed: OffsetAndMetadata | LogError | None) -> Fields:
    entry = {"partition_index": partition, "committed_offset": _NO_OFFSET, "metadata": ""}
    if isinstance(committed, LogError):
        return {**entry, "error_code": committed.kafka_code}
    if committed is not None:
        entry |= {"committed_offset": committed.offset, "metadata": committed.metadata}
    return entry


HANDLERS = {
    8: Handler(range(2, 10), _offset_commit),
    9: Handler(range(1, 10), _offset_fetch),
    28: Handler(range(6), _txn_offset_commit),
}
