"""Groups of a cluster and what they committed."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient

from millstream.log.errors import GroupNotEmptyError, UnknownGroupError, UnknownMemberError
from millstream.log.record import (
    GroupDescription,
    GroupListing,
    MemberDescription,
    OffsetAndMetadata,
    TopicPartition,
)

from .errors import error_of
from .kafka_admin import answered
from .retrying import asked_again

__all__ = [
    "alter_group_offsets",
    "delete_group",
    "describe_group",
    "group_offsets",
    "list_groups",
]

_NOT_TOLD = -1
"""librdkafka does not tell the generation of a group."""


@asked_again
async def list_groups(client: AdminClient) -> list[GroupListing]:
    """Every group, by name."""
    found = await answered(client.list_consumer_groups(), "Groups")
    for error in found.errors or ():
        raise error
    return sorted(
        GroupListing(
            each.group_id, _state(each.state), "" if each.is_simple_consumer_group else _KIND
        )
        for each in found.valid
    )


@asked_again
async def describe_group(client: AdminClient, group: str) -> GroupDescription:
    """Raises UnknownGroupError."""
    found = await answered(client.describe_consumer_groups([group])[group], f"Group {group}")
    state = _state(found.state)
    if state == "Dead":
        raise UnknownGroupError(f"There is no group {group}. See log.groups() for those there are.")
    members = tuple(
        MemberDescription(
            each.member_id,
            each.group_instance_id,
            each.client_id,
            tuple(
                TopicPartition(at.topic, at.partition)
                for at in (each.assignment.topic_partitions if each.assignment else ())
            ),
        )
        for each in found.members
    )
    return GroupDescription(
        group, state, _KIND, found.partition_assignor or "", _NOT_TOLD, "", members
    )


@asked_again
async def group_offsets(client: AdminClient, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """What the group committed."""
    asked = client.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])
    found = await answered(asked[group], f"Group {group}")
    return {
        TopicPartition(at.topic, at.partition): OffsetAndMetadata(at.offset, at.metadata or "")
        for at in found.topic_partitions or ()
        if at.offset >= 0
    }


@asked_again
async def alter_group_offsets(
    client: AdminClient, group: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]
) -> None:
    """Raises GroupNotEmptyError."""
    if not offsets:
        return
    places = [
        Place(tp.topic, tp.partition, each.offset, each.metadata) for tp, each in offsets.items()
    ]
    wanted = ConsumerGroupTopicPartitions(group, places)
    try:
        asked = client.alter_consumer_group_offsets([wanted])
        answer = await answered(asked[group], f"Group {group}")
        for at in answer.topic_partitions or ():
            if at.error is not None:
                raise error_of(at.error, f"Group {group}: partition {at.topic}-{at.partition}")
    except UnknownMemberError as error:
        raise GroupNotEmptyError(
            f"Group {group} has members, who commit its offsets. Stop them first."
        ) from error


@asked_again
async def delete_group(client: AdminClient, group: str) -> None:
    """Forget a group; an unknown one is no error. Raises GroupNotEmptyError."""
    try:
        await answered(client.delete_consumer_groups([group])[group], f"Group {group}")
    except UnknownGroupError:
        return


_KIND = "consumer"


def _state(state: object) -> str:
    """STABLE, PREPARING_REBALANCING, ... as Kafka writes them."""
    name = getattr(state, "name", "UNKNOWN")
    return _STATES.get(name, name.title().replace("_", ""))


_STATES = {
    "PREPARING_REBALANCING": "PreparingRebalance",
    "COMPLETING_REBALANCING": "CompletingRebalance",
}
