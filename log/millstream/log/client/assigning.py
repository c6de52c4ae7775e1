"""A member's part in sharing partitions out: what it says when it joins, and the leader's work."""

from __future__ import annotations

from collections.abc import Collection

from millstream.log.broker.assignors import ASSIGNORS, GroupMember
from millstream.log.broker.consumer_protocol import (
    NO_GENERATION,
    Subscription,
    decode_subscription,
    encode_assignment,
    encode_generation,
    encode_subscription,
    encode_topic_partitions,
)
from millstream.log.broker.group_values import JoinResult
from millstream.log.broker.partitions import Partitions
from millstream.log.record import TopicPartition

__all__ = ["Assigning"]

_STICKY, _COOPERATIVE = "sticky", "cooperative-sticky"


class Assigning:
    """The assignors one member offers, and what they remember of its last assignment.

    Args:
        strategy: `partition.assignment.strategy`.
    """

    def __init__(self, strategy: Collection[str]) -> None:
        self._strategy = tuple(strategy)
        self._last: tuple[TopicPartition, ...] | None = None
        self._generation = NO_GENERATION

    @property
    def is_cooperative(self) -> bool:
        """Whether partitions that stay are kept through a rebalance. As in Kafka's client, only
        when every assignor that is offered can do so: the group may choose any of them."""
        return all(name == _COOPERATIVE for name in self._strategy)

    def assigned(self, partitions: Collection[TopicPartition], generation: int) -> None:
        """The member was given these."""
        self._last, self._generation = tuple(partitions), generation

    def protocols(
        self, topics: Collection[str], owned: Collection[TopicPartition]
    ) -> tuple[tuple[str, bytes], ...]:
        """What the member says for each assignor. The generation is that in which it was given what
        it owns, so that a claim never looks newer than it is."""
        said = Subscription(tuple(topics), tuple(owned), self._generation)
        return tuple(
            (name, encode_subscription(said._replace(user_data=self._user_data(name))))
            for name in self._strategy
        )

    def _user_data(self, name: str) -> bytes | None:
        if name == _STICKY and self._last is not None:
            return encode_topic_partitions(self._last, self._generation)
        return encode_generation(self._generation) if name == _COOPERATIVE else None

    @staticmethod
    def share_out(joined: JoinResult, partitions: Partitions) -> dict[str, bytes]:
        """The leader's work: everybody's assignment."""
        members = [
            GroupMember(member_id, decode_subscription(subscription), group_instance_id)
            for member_id, group_instance_id, subscription in joined.members
        ]
        wanted = {topic for each in members for topic in each.subscription.topics}
        counts = {
            topic: partitions.topic(topic).partitions
            for topic in wanted.intersection(partitions.topics())
        }
        assigned = ASSIGNORS[joined.protocol](members, counts)
        return {member_id: encode_assignment(mine) for member_id, mine in assigned.items()}
