"""Which committed offsets are too old to keep (`offsets.retention.minutes`), as Kafka decides it.

    a group nobody ever joined     from the commit
    an empty group                 from when it became empty, or the commit if that was later
    a stable group of consumers    offsets of topics it does not read: from the commit
    a group of KIP-848             offsets of topics it does not read: from the commit, or from
                                   when it became empty, if that was later
    any other                      never

Kafka does not look at the commit in an empty group: offsets that were reset after it had been empty
for a week would go within minutes. Source: KIP-211, KIP-496.
"""

from __future__ import annotations

from collections.abc import Mapping

from millstream.log.record import TopicPartition

from .group_values import CONSUMER, GroupState, topics_of
from .groups import Group
from .modern_group import ModernGroup

__all__ = ["expired_of_modern", "expired_offsets", "subscribed_topics"]


def expired_offsets(
    group: Group | None, committed_ms: Mapping[TopicPartition, int], now_ms: int, retention_ms: int
) -> list[TopicPartition]:
    """Partitions whose offset goes. `committed_ms`: when each was committed (Unix milliseconds)."""
    oldest_ms = now_ms - retention_ms
    old = [each for each, time_ms in committed_ms.items() if time_ms <= oldest_ms]
    if group is None or (not group.protocol_type and not group.members):
        return old
    if group.state is GroupState.EMPTY:
        return old if group.state_since_ms <= oldest_ms else []
    if group.state is not GroupState.STABLE or group.protocol_type != CONSUMER:
        return []
    topics = subscribed_topics(group)
    return [] if topics is None else [each for each in old if each.topic not in topics]


def expired_of_modern(
    group: ModernGroup,
    committed_ms: Mapping[TopicPartition, int],
    now_ms: int,
    retention_ms: int,
) -> list[TopicPartition]:
    """As `expired_offsets`. Since when a group is empty is not known after a restart, as in Kafka;
    then the commit decides."""
    oldest_ms = now_ms - retention_ms
    if not group.knows_topics or (not group.members and group.empty_since_ms > oldest_ms):
        return []
    topics = group.subscribed_topics()
    return [
        each
        for each, time_ms in committed_ms.items()
        if time_ms <= oldest_ms and each.topic not in topics
    ]


def subscribed_topics(group: Group) -> frozenset[str] | None:
    """What the members read; None when one of them cannot be understood."""
    found: frozenset[str] = frozenset()
    for member in group.members.values():
        topics = topics_of(member.request)
        if topics is None:
            return None
        found |= topics
    return found
