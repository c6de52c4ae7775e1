"""How the coordinator shares partitions out among the members of a group of KIP-848.

uniform    evenly, and who should have a partition goes on having it; the default
range      topic by topic neighbouring partitions, so that topics line up
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from millstream.log.record import TopicPartition

from .assignors import Assignor, GroupMember, assign_range
from .consumer_protocol import Subscription
from .modern_values import ModernMember, Place, TopicFacts

__all__ = ["MODERN_ASSIGNORS", "chosen_assignor", "shared_out"]

_GENERATION = 1  # of every claim: no two members should have the same partition


def _assign_uniform(
    members: Collection[GroupMember], partitions: Mapping[str, int]
) -> dict[str, list[TopicPartition]]:
    from .sticky_assignor import assign_balanced  # when it is used

    return assign_balanced(list(members), partitions)


MODERN_ASSIGNORS: dict[str, Assignor] = {"uniform": _assign_uniform, "range": assign_range}
"""The first is the default."""


def chosen_assignor(members: Collection[ModernMember]) -> str:
    """The one most members ask for; of equals the first here; the default when nobody asks."""
    votes = Counter(each.assignor for each in members if each.assignor is not None)
    return max(MODERN_ASSIGNORS, key=lambda name: votes[name])


def shared_out(
    members: Collection[ModernMember],
    before: Mapping[str, frozenset[Place]],
    topics: TopicFacts,
) -> dict[str, frozenset[Place]]:
    """Member id -> what it should have, given what each should have had `before`."""
    names = {topic_id: name for name, (topic_id, _) in topics.items()}
    known = []
    for each in members:
        wanted = each.topics, each.regex_topics
        found = {name for name in topics if any(name in some for some in wanted)}
        had = tuple(
            TopicPartition(names[topic_id], number)
            for topic_id, number in sorted(before.get(each.member_id, ()))
            if names.get(topic_id) in found
        )
        subscription = Subscription(tuple(sorted(found)), had, _GENERATION)
        known.append(GroupMember(each.member_id, subscription, each.instance_id))
    counts = {name: count for name, (_, count) in topics.items()}
    assigned = MODERN_ASSIGNORS[chosen_assignor(members)](known, counts)
    return {
        member: frozenset((topics[each.topic][0], each.partition) for each in given)
        for member, given in assigned.items()
    }
