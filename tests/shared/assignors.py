"""Groups for the tests of assignors, written short: partitions as "t1-0 t1-2"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millstream.log.broker.assignors import ASSIGNORS, Assignments, GroupMember
from millstream.log.broker.consumer_protocol import (
    NO_GENERATION,
    Subscription,
    encode_topic_partitions,
)
from millstream.log.record import TopicPartition


def tps(text: str) -> list[TopicPartition]:
    """ "t1-0 t1-2" as partitions."""
    pairs = (each.rsplit("-", 1) for each in text.split())
    return [TopicPartition(topic, int(number)) for topic, number in pairs]


def member(
    member_id: str,
    topics: str,
    owned: str | Sequence[TopicPartition] = "",
    generation: int = NO_GENERATION,
    *,
    instance: str | None = None,
) -> GroupMember:
    """A member as both sticky assignors see it: claims in the fields and in the userData."""
    claimed = tuple(tps(owned) if isinstance(owned, str) else owned)
    data = encode_topic_partitions(claimed, generation)
    subscription = Subscription(tuple(topics.split()), claimed, generation, None, data)
    return GroupMember(member_id, subscription, instance)


def wanted(members: Sequence[GroupMember], partitions: Mapping[str, int]) -> list[TopicPartition]:
    """Every partition that somebody subscribed to."""
    topics = {topic for each in members for topic in each.subscription.topics}
    return sorted(
        TopicPartition(topic, number)
        for topic in topics & partitions.keys()
        for number in range(partitions[topic])
    )


def assign(name: str, members: Sequence[GroupMember], partitions: Mapping[str, int]) -> Assignments:
    """What the assignor of this name makes of the group; topics nobody wants are left out, as the
    leader leaves them out."""
    topics = {topic for each in members for topic in each.subscription.topics}
    return ASSIGNORS[name](members, {t: n for t, n in partitions.items() if t in topics})


def settle(
    name: str, members: Sequence[GroupMember], partitions: Mapping[str, int], generation: int = 1
) -> tuple[Assignments, int]:
    """Assign until nobody has anything to give up; the assignment and how many rebalances."""
    rebalances = 1
    assigned = assign(name, members, partitions)
    while name == "cooperative-sticky":
        revoked = [
            each
            for who in members
            for each in set(who.subscription.owned) - set(assigned[who.member_id])
        ]
        gained = [
            each
            for who in members
            for each in set(assigned[who.member_id]) - set(who.subscription.owned)
        ]
        assert not set(revoked) & set(gained), "given away while its owner has it"
        if not revoked:
            break
        members = [
            member(
                who.member_id,
                " ".join(who.subscription.topics),
                assigned[who.member_id],
                generation,
                instance=who.group_instance_id,
            )
            for who in members
        ]
        assigned = assign(name, members, partitions)
        rebalances += 1
        assert rebalances < 6
    return assigned, rebalances


def check(
    members: Sequence[GroupMember], partitions: Mapping[str, int], assigned: Assignments
) -> None:
    """Every wanted partition has one owner, who wants it; and no two members could be more even."""
    assert assigned.keys() == {each.member_id for each in members}
    owned = [each for mine in assigned.values() for each in mine]
    assert sorted(owned) == wanted(members, partitions)
    topics = {each.member_id: set(each.subscription.topics) for each in members}
    for who, mine in assigned.items():
        assert {topic for topic, _ in mine} <= topics[who]
    for low in assigned:
        for high, mine in assigned.items():
            if len(mine) > len(assigned[low]) + 1:
                assert not {topic for topic, _ in mine} & topics[low], (low, high, assigned)
