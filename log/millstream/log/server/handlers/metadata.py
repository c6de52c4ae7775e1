"""Metadata and DescribeCluster: which topics there are, and that one node has them all."""

from __future__ import annotations

from typing import Any

from millstream.log.broker.topics import Topic
from millstream.log.config import INTERNAL_TOPICS, check_topic_name
from millstream.log.errors import LogError, UnknownTopicError
from millstream.log.security.acl import Resource, operation_bits
from millstream.log.server.handler import NODE_ID, Context, Fields, Handler
from millstream.log.storage.appending import LEADER_EPOCH

__all__ = ["HANDLERS", "CLUSTER_OPERATIONS", "TOPIC_OPERATIONS"]

_UNKNOWN_TOPIC_ID = 100
_UNSUPPORTED_ENDPOINT_TYPE = 115
_BROKERS = 1
_NOT_ASKED = -(1 << 31)

TOPIC_OPERATIONS = operation_bits(Resource.TOPIC)
CLUSTER_OPERATIONS = operation_bits(Resource.CLUSTER)


async def _metadata(request: Any, context: Context) -> Fields:
    wanted = request.topics
    everything = wanted is None or (context.version == 0 and not wanted)
    partitions = context.broker.partitions
    if everything:
        topics = [_described(partitions.topic(name)) for name in partitions.topics()]
    else:
        once = dict.fromkeys(_meant(each, context.version) for each in wanted)  # answers are long
        # What goes while others are made is not made again: who asks need not be allowed to.
        missing = {name for name, _ in once if name and not partitions.has_topic(name)}
        topics = [await _topic(*each, each[0] in missing, request, context) for each in once]
    if request.include_topic_authorized_operations:
        for each in topics:
            each["topic_authorized_operations"] = TOPIC_OPERATIONS
    include_cluster = getattr(request, "include_cluster_authorized_operations", False)
    return {
        "brokers": _brokers(context, "node_id"),
        "cluster_id": context.identity.cluster_id,
        "controller_id": NODE_ID,
        "topics": topics,
        "cluster_authorized_operations": CLUSTER_OPERATIONS if include_cluster else _NOT_ASKED,
    }


def _meant(wanted: Any, version: int) -> tuple[str | None, str | None]:
    """The name by which a topic is asked for, or its id, and None for the other."""
    if wanted.name is None or (wanted.topic_id is not None and version >= 12):
        return None, wanted.topic_id
    return wanted.name, None


async def _topic(
    name: str | None, topic_id: str | None, is_missing: bool, request: Any, context: Context
) -> dict[str, Any]:
    partitions = context.broker.partitions
    if name is None:
        found = topic_id and partitions.topic_with_id(topic_id)
        if not found:
            return {
                "error_code": _UNKNOWN_TOPIC_ID,
                "topic_id": topic_id,
                "name": None if context.version >= 12 else "",
            }
        return _described(found)
    try:
        return _described(await _named(name, is_missing, request, context))
    except LogError as error:
        return {
            "error_code": error.kafka_code,
            "name": name,
            "is_internal": name in INTERNAL_TOPICS,
        }


async def _named(name: str, is_missing: bool, request: Any, context: Context) -> Topic:
    """The topic, created now where that is wished and allowed."""
    partitions, config = context.broker.partitions, context.broker.config
    try:
        return partitions.topic(name)
    except UnknownTopicError:
        allowed = request.allow_auto_topic_creation and config.auto_create_topics_enable
        if name in INTERNAL_TOPICS or not allowed or not is_missing:
            check_topic_name(name)
            raise
    return await partitions.create_topic(name, config.num_partitions, exist_ok=True)


def _described(topic: Topic) -> dict[str, Any]:
    return {
        "name": topic.name,
        "topic_id": topic.topic_id,
        "is_internal": topic.internal,
        "partitions": [
            {
                "partition_index": number,
                "leader_id": NODE_ID,
                "leader_epoch": LEADER_EPOCH,
                "replica_nodes": (NODE_ID,),
                "isr_nodes": (NODE_ID,),
            }
            for number in range(topic.partitions)
        ],
    }


def _brokers(context: Context, id_name: str) -> list[Fields]:
    identity = context.identity
    return [{id_name: NODE_ID, "host": identity.host, "port": identity.port}]


async def _describe_cluster(request: Any, context: Context) -> Fields:
    if request.endpoint_type != _BROKERS:
        return {
            "error_code": _UNSUPPORTED_ENDPOINT_TYPE,
            "error_message": "There are no controllers to be asked; ask for brokers.",
            "cluster_id": "",
            "endpoint_type": request.endpoint_type,
        }
    asked = request.include_cluster_authorized_operations
    return {
        "cluster_id": context.identity.cluster_id,
        "controller_id": NODE_ID,
        "brokers": _brokers(context, "broker_id"),
        "cluster_authorized_operations": CLUSTER_OPERATIONS if asked else _NOT_ASKED,
    }


HANDLERS = {3: Handler(range(14), _metadata), 60: Handler(range(3), _describe_cluster)}
