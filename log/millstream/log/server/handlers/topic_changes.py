"""CreateTopics, DeleteTopics, CreatePartitions: each topic of a request has its own answer.

There is one node, so the only replication factor is 1 and the only node to assign to is this one.
A change is on disk when it is answered, whatever time-out the request gives.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from millstream.log.broker.broker import Broker, check_not_internal
from millstream.log.broker.topics import Topic
from millstream.log.errors import (
    ConfigError,
    InvalidReplicaAssignmentError,
    InvalidReplicationFactorError,
    InvalidRequestError,
    LogError,
    UnknownTopicError,
)
from millstream.log.limits import PARTITIONS_PER_TOPIC_MAX
from millstream.log.server.config_entries import created_configs, topic_entries
from millstream.log.server.handler import NODE_ID, Context, Fields, Handler

__all__ = ["HANDLERS"]

_DEFAULT = -1  # partitions, replication factor: as the log has it
_POLICY_VIOLATION = 44
_PARTITIONS_MAX = 10_000
"""Of the topics of one request to create some, as in Kafka."""


async def answered(names: Fields, change: Callable[[], Awaitable[Fields]]) -> Fields:
    """The answer for one topic: what `change` answers, or its error. `names` is in both."""
    try:
        return {**names, **await change()}
    except LogError as error:
        return {**names, "error_code": error.kafka_code, "error_message": str(error)}


def check_once(name: str, times: Mapping[str, int]) -> None:
    """Raise InvalidRequestError for what a request names more than once."""
    if times[name] > 1:
        raise InvalidRequestError(f"{name} is named {times[name]} times; name each once.")


# CreateTopics


async def _create_topics(request: Any, context: Context) -> Fields:
    problem = _too_many(request, context.broker.config.num_partitions)
    if problem is not None:
        refused = {"error_code": _POLICY_VIOLATION, "error_message": problem}
        return {"topics": [{"name": each.name, **refused} for each in request.topics]}
    times = Counter(each.name for each in request.topics)
    answers = []
    for wanted in request.topics:
        if times[wanted.name] == 0:
            continue
        await asyncio.sleep(0)  # one that is only checked waits for nothing: others are served

        async def create(wanted: Any = wanted) -> Fields:
            check_once(wanted.name, times)
            return await _create_topic(wanted, context.broker, request.validate_only)

        answers.append(await answered({"name": wanted.name}, create))
        times[wanted.name] = 0  # one answer for each name
    return {"topics": answers}


def _too_many(request: Any, default: int) -> str | None:
    """An answer has every setting of every topic, and would be a hundred times its request. A topic
    that alone asks for too many is refused alone."""
    counts = [_partitions_asked(each, default) for each in request.topics]
    asked = sum(each for each in counts if 0 < each <= PARTITIONS_PER_TOPIC_MAX)
    if asked <= _PARTITIONS_MAX:
        return None
    return f"{asked} partitions in one request; it can be {_PARTITIONS_MAX}. Send several."


def _partitions_asked(wanted: Any, default: int) -> int:
    if wanted.assignments:
        return len(wanted.assignments)
    return default if wanted.num_partitions == _DEFAULT else int(wanted.num_partitions)


async def _create_topic(wanted: Any, broker: Broker, validate_only: bool) -> Fields:
    partitions = _partitions_wanted(wanted, broker)
    check_not_internal(wanted.name)
    for entry in wanted.configs:
        if entry.value is None:
            raise ConfigError(
                f"Topic {wanted.name}: {entry.name} is null. Leave it out for its default."
            )
    config = {entry.name: entry.value for entry in wanted.configs}
    if validate_only:
        topic = broker.partitions.check_new_topic(wanted.name, partitions, config)
        return {**_created(topic), "topic_id": None}
    return _created(await broker.create_topic(wanted.name, partitions, config))


def _partitions_wanted(wanted: Any, broker: Broker) -> int:
    if wanted.assignments:
        if (wanted.num_partitions, wanted.replication_factor) != (_DEFAULT, _DEFAULT):
            raise InvalidRequestError(
                f"Topic {wanted.name}: with assignments, the number of partitions and the "
                "replication factor are -1."
            )
        numbers = sorted(each.partition_index for each in wanted.assignments)
        if numbers != list(range(len(numbers))):
            raise InvalidReplicaAssignmentError(
                f"Topic {wanted.name}: partitions {numbers[:20]} are assigned; number them from 0, "
                "each once."
            )
        for each in wanted.assignments:
            _check_assigned(wanted.name, each.broker_ids)
        return len(numbers)
    if wanted.replication_factor not in (1, _DEFAULT):
        raise InvalidReplicationFactorError(
            f"Topic {wanted.name}: replication factor {wanted.replication_factor}; there is one "
            "node, so it can be 1."
        )
    if wanted.num_partitions == _DEFAULT:
        return broker.config.num_partitions
    return int(wanted.num_partitions)


def _check_assigned(name: str, nodes: Sequence[int]) -> None:
    if list(nodes) != [NODE_ID]:
        raise InvalidReplicaAssignmentError(
            f"Topic {name}: a partition is assigned to nodes {list(nodes)[:20]}; the only one is "
            f"{NODE_ID}."
        )


def _created(topic: Topic) -> Fields:
    return {
        "topic_id": topic.topic_id,
        "num_partitions": topic.partitions,
        "replication_factor": 1,
        "configs": created_configs(topic_entries(topic.config.to_strings(), topic.overrides)),
    }


def _create_failed(request: Any, code: int) -> Fields:
    return {"topics": [{"name": each.name, "error_code": code} for each in request.topics]}


# DeleteTopics


class _UnknownTopicIdError(UnknownTopicError):
    """No topic has this id."""

    kafka_code = 100


class _Asked(NamedTuple):
    """A topic to delete, by one of the two."""

    name: str | None
    topic_id: str | None


async def _delete_topics(request: Any, context: Context) -> Fields:
    partitions = context.broker.partitions
    asked = [_Asked(name, None) for name in request.topic_names]
    asked += [_Asked(each.name, each.topic_id) for each in request.topics]
    names = [_name(each, context.broker) for each in asked]
    times = Counter(name for name in names if name is not None)
    answers = []
    for each, name in zip(asked, names, strict=True):

        async def delete(each: _Asked = each, name: str | None = name) -> Fields:
            if each.name is not None and each.topic_id is not None:
                raise InvalidRequestError(f"Topic {each.name} has an id too; give one of them.")
            if name is None:
                raise _UnknownTopicIdError(f"There is no topic of id {each.topic_id}.")
            check_once(name, times)
            topic = partitions.topic(name)
            try:
                await context.broker.delete_topic(name, each.topic_id)
            except UnknownTopicError as error:  # somebody else was faster
                if each.topic_id is None:
                    raise
                raise _UnknownTopicIdError(str(error)) from error
            return {"topic_id": topic.topic_id}

        answers.append(await answered({"name": name, "topic_id": each.topic_id}, delete))
    return {"responses": answers}


def _name(asked: _Asked, broker: Broker) -> str | None:
    """None: there is no such topic."""
    if asked.name is not None or asked.topic_id is None:
        return asked.name or ""
    topic = broker.partitions.topic_with_id(asked.topic_id)
    return None if topic is None else topic.name


def _delete_failed(request: Any, code: int) -> Fields:
    names = [{"name": name, "error_code": code} for name in request.topic_names]
    return {"responses": names + [_delete_error(each, code) for each in request.topics]}


def _delete_error(topic: Any, code: int) -> dict[str, Any]:
    return {"name": topic.name, "topic_id": topic.topic_id, "error_code": code}


# CreatePartitions


async def _create_partitions(request: Any, context: Context) -> Fields:
    times = Counter(each.name for each in request.topics)
    answers = []
    for wanted in request.topics:

        async def create(wanted: Any = wanted) -> Fields:
            check_once(wanted.name, times)
            await _add_partitions(wanted, context.broker, request.validate_only)
            return {}

        answers.append(await answered({"name": wanted.name}, create))
    return {"results": answers}


async def _add_partitions(wanted: Any, broker: Broker, validate_only: bool) -> None:
    topic = broker.partitions.topic(wanted.name)
    altered = topic.altered(None, wanted.count)
    if wanted.assignments is not None:
        added = altered.partitions - topic.partitions
        if len(wanted.assignments) != added:
            raise InvalidReplicaAssignmentError(
                f"Topic {topic.name} gets {added} more partitions; {len(wanted.assignments)} are "
                "assigned."
            )
        for each in wanted.assignments:
            _check_assigned(topic.name, each.broker_ids)
    if not validate_only:
        await broker.alter_topic(topic.name, None, wanted.count)


def _partitions_failed(request: Any, code: int) -> Fields:
    return {"results": [{"name": each.name, "error_code": code} for each in request.topics]}


HANDLERS = {
    19: Handler(range(2, 8), _create_topics, failed=_create_failed),
    20: Handler(range(1, 7), _delete_topics, failed=_delete_failed),
    37: Handler(range(4), _create_partitions, failed=_partitions_failed),
}
