"""Where partitions are: DescribeLogDirs, DescribeTopicPartitions, ElectLeaders and
ListPartitionReassignments. On one node all of them are here, led by it, and stay."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

from millstream.log.broker.topics import Topic
from millstream.log.config import check_topic_name
from millstream.log.errors import InvalidRequestError, LogError
from millstream.log.record import TopicPartition
from millstream.log.server.handler import NODE_ID, Context, Fields, Handler
from millstream.log.storage.appending import LEADER_EPOCH
from millstream.log.storage.partition import Partition

from .metadata import TOPIC_OPERATIONS

__all__ = ["HANDLERS"]

_UNKNOWN_TOPIC_OR_PARTITION = 3
_KAFKA_STORAGE_ERROR = 56
_ELECTION_NOT_NEEDED = 84
_ELECTIONS = (0, 1)  # preferred, unclean
_PARTITIONS_MAX = 2000  # of one answer (max.request.partition.size.limit)


# DescribeLogDirs


async def _describe_log_dirs(request: Any, context: Context) -> Fields:
    """Sizes are those of the segments of records, as Kafka gives them; how large the disk is, is
    not told (-1)."""
    log_dir = {"log_dir": context.broker.folder}
    try:
        found = [_size(each) for each in _described(request, context)]
    except OSError:
        return {"results": [{**log_dir, "error_code": _KAFKA_STORAGE_ERROR, "topics": []}]}
    topics = [
        {"name": name, "partitions": [fields for _, fields in sizes]}
        for name, sizes in groupby(found, key=lambda each: each[0])
    ]
    return {"results": [{**log_dir, "topics": topics}]}


def _described(request: Any, context: Context) -> list[Partition]:
    """Of those asked for, the ones there are; by topic and number."""
    found = {each.topic_partition: each for each in context.broker.partitions}
    if request.topics is not None:
        asked = {
            TopicPartition(each.topic, number)
            for each in request.topics
            for number in each.partitions
        }
        found = {key: found[key] for key in asked if key in found}
    return [found[key] for key in sorted(found)]


def _size(partition: Partition) -> tuple[str, Fields]:
    topic, number = partition.topic_partition
    return topic, {"partition_index": number, "partition_size": partition.size_bytes}


# DescribeTopicPartitions: a page of topics at a time, KIP-966


class _Place(NamedTuple):
    """Where an answer begins, or the next one does."""

    topic_name: str
    partition_index: int


async def _describe_topic_partitions(request: Any, context: Context) -> Fields:
    partitions = context.broker.partitions
    names = sorted({each.name for each in request.topics}) or partitions.topics()
    begin = _begin(request.cursor)
    left = min(max(request.response_partition_limit, 1), _PARTITIONS_MAX)
    answers: list[Fields] = []
    for name in names:
        if name < begin.topic_name:
            continue
        if left <= 0:
            return {"topics": answers, "next_cursor": _Place(name, 0)._asdict()}
        try:
            check_topic_name(name)
            topic = partitions.topic(name)
        except LogError as error:
            answers.append({"name": name, "error_code": error.kafka_code})
            continue
        first = begin.partition_index if name == begin.topic_name else 0
        end = min(first + left, topic.partitions)
        answers.append(_topic(topic, range(first, end)))
        left -= max(end - first, 0)
        if end < topic.partitions:
            return {"topics": answers, "next_cursor": _Place(name, end)._asdict()}
    return {"topics": answers}


def _begin(cursor: Any) -> _Place:
    if cursor is None:
        return _Place("", 0)
    if cursor.partition_index < 0:
        raise InvalidRequestError(f"a cursor at partition {cursor.partition_index}.")
    return _Place(cursor.topic_name, cursor.partition_index)


def _topic(topic: Topic, numbers: Iterable[int]) -> Fields:
    here = [NODE_ID]
    return {
        "name": topic.name,
        "topic_id": topic.topic_id,
        "is_internal": topic.internal,
        "partitions": [
            {
                "partition_index": number,
                "leader_id": NODE_ID,
                "leader_epoch": LEADER_EPOCH,
                "replica_nodes": here,
                "isr_nodes": here,
                "eligible_leader_replicas": [],
                "last_known_elr": [],
            }
            for number in numbers
        ],
        "topic_authorized_operations": TOPIC_OPERATIONS,
    }


def _describe_failed(request: Any, code: int) -> Fields:
    return {"topics": [{"name": each.name, "error_code": code} for each in request.topics]}


# ElectLeaders, ListPartitionReassignments


async def _elect_leaders(request: Any, context: Context) -> Fields:
    """The leader is the preferred one, always; asked for all, only those that moved are told."""
    if request.election_type not in _ELECTIONS:
        raise InvalidRequestError(f"there is no election of type {request.election_type}.")
    asked = request.topic_partitions or ()
    return {
        "replica_election_results": [
            {"topic": each.topic, "partition_result": list(_elected(each, context))}
            for each in asked
        ]
    }


def _elected(topic: Any, context: Context) -> Iterator[Fields]:
    for number in topic.partitions:
        try:
            context.broker.partitions.partition(TopicPartition(topic.topic, number))
            code, message = _ELECTION_NOT_NEEDED, "The only node leads it."
        except LogError as error:
            code, message = error.kafka_code, str(error)
        yield {"partition_id": number, "error_code": code, "error_message": message}


def _election_failed(request: Any, code: int) -> Fields:
    results = [
        {
            "topic": each.topic,
            "partition_result": [
                {"partition_id": number, "error_code": code} for number in each.partitions
            ],
        }
        for each in request.topic_partitions or ()
    ]
    return {"error_code": code, "replica_election_results": results}


async def _list_partition_reassignments(_request: Any, _context: Context) -> Fields:
    return {"topics": []}


HANDLERS = {
    35: Handler(range(1, 5), _describe_log_dirs),
    43: Handler(range(3), _elect_leaders, failed=_election_failed),
    46: Handler(range(1), _list_partition_reassignments),
    75: Handler(range(1), _describe_topic_partitions, failed=_describe_failed),
}
