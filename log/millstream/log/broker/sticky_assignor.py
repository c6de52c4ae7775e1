"""The sticky assignors: balance first, then who has a partition keeps it. Results as Kafka's.

Members say what they own and since which generation; a claim of an older generation loses, and two
claims of the same generation cancel each other. When all members want the same topics, quotas
decide (here); otherwise `sticky_balance` moves single partitions until nothing can be better.

`sticky` takes claims from its userData, because its members give everything up before they join.
`cooperative-sticky` members keep consuming meanwhile, so a partition that moves is given to nobody
in this generation: its owner gives it up, joins again, and the next generation has it (KIP-429).

Kafka's outcome depends in places on the order of a Java HashMap; here members come in the order of
their ids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from millstream.log.record import TopicPartition

from .assignors import Assignments, GroupMember
from .consumer_protocol import (
    NO_GENERATION,
    Subscription,
    decode_generation,
    decode_topic_partitions,
)
from .sticky_balance import Balance

__all__ = ["assign_balanced", "assign_cooperative_sticky", "assign_sticky"]

_Claim = tuple[tuple[TopicPartition, ...], int]


class _Claims(NamedTuple):
    """What members say they own. `owned` is what is left of it when claims of the same partition
    were compared; `contested` were claimed twice in one generation; `older` claims lost."""

    owned: dict[str, list[TopicPartition]]
    contested: set[TopicPartition]
    older: dict[TopicPartition, str]


def assign_sticky(members: Sequence[GroupMember], partitions: Mapping[str, int]) -> Assignments:
    """The eager sticky assignor."""
    return _assign(members, partitions, _claim_of_sticky)[0]


def assign_cooperative_sticky(
    members: Sequence[GroupMember], partitions: Mapping[str, int]
) -> Assignments:
    """As `assign_sticky`, without the partitions that their owners have to give up first."""
    assigned, moving = _assign(members, partitions, _claim_of_cooperative)
    if moving is None:
        moving = _moving(members, assigned)
    for topic_partition, member in moving.items():
        assigned[member].remove(topic_partition)
    return assigned


def assign_balanced(members: Sequence[GroupMember], partitions: Mapping[str, int]) -> Assignments:
    """Balance first, then who owns a partition keeps it; those that move are given out at once."""
    return _assign(members, partitions, _claim_of_cooperative)[0]


def _claim_of_sticky(subscription: Subscription) -> _Claim:
    return decode_topic_partitions(subscription.user_data)


def _claim_of_cooperative(subscription: Subscription) -> _Claim:
    generation = subscription.generation
    if generation == NO_GENERATION:
        generation = decode_generation(subscription.user_data)
    return subscription.owned, generation


def _moving(members: Sequence[GroupMember], assigned: Assignments) -> dict[TopicPartition, str]:
    """Partitions that one member loses and another gets, with the one that gets them."""
    lost: set[TopicPartition] = set()
    gained: dict[TopicPartition, str] = {}
    for each in members:
        owned, given = set(each.subscription.owned), set(assigned[each.member_id])
        lost |= owned - given
        gained.update(dict.fromkeys(given - owned, each.member_id))
    return {each: member for each, member in gained.items() if each in lost}


def _assign(
    members: Sequence[GroupMember],
    partitions: Mapping[str, int],
    claim_of: Callable[[Subscription], _Claim],
) -> tuple[Assignments, dict[TopicPartition, str] | None]:
    """The assignment, and which partitions move; None where that is still to be found out."""
    subscribed = {
        each.member_id: frozenset(each.subscription.topics)
        for each in sorted(members, key=lambda each: each.member_id)
    }
    by_id = {each.member_id: each for each in members}
    claims = _compare(
        {member: claim_of(by_id[member].subscription) for member in subscribed}, partitions
    )
    if len(set(subscribed.values())) <= 1:
        quotas = _Quotas(claims, partitions)
        return quotas.fill(), quotas.moving
    topics = {
        member: [topic for topic in by_id[member].subscription.topics if topic in partitions]
        for member in subscribed
    }
    return Balance(topics, partitions, claims.owned, claims.older).reach(), None


def _compare(claims: Mapping[str, _Claim], partitions: Mapping[str, int]) -> _Claims:
    owned: dict[str, list[TopicPartition]] = {member: [] for member in claims}
    owner: dict[TopicPartition, str] = {}
    contested: set[TopicPartition] = set()
    for member, (claimed, generation) in claims.items():
        for each in dict.fromkeys(claimed):
            if each.topic not in partitions or each.partition >= partitions[each.topic]:
                continue
            other = owner.get(each)
            if other is None or generation > claims[other][1]:
                owned[member].append(each)
                owner[each] = member
            elif generation == claims[other][1]:
                contested.add(each)
                owner[each] = member
            if other is not None and owner[each] == member and each in owned[other]:
                owned[other].remove(each)
    return _Claims(owned, contested, _older_claims(claims))


def _older_claims(claims: Mapping[str, _Claim]) -> dict[TopicPartition, str]:
    """Of every partition, the member with the newest claim that is not of the newest generation."""
    newest = max((generation for _, generation in claims.values()), default=NO_GENERATION)
    found: dict[TopicPartition, tuple[int, str]] = {}
    for member, (claimed, generation) in claims.items():
        if generation >= newest:
            continue
        for each in claimed:
            if each not in found or generation > found[each][0]:
                found[each] = (generation, member)
    return {each: member for each, (_, member) in found.items()}


class _Quotas:
    """All members want the same topics: each gets the quota, or one more."""

    def __init__(self, claims: _Claims, partitions: Mapping[str, int]) -> None:
        self._contested = claims.contested
        self._owned = claims.owned
        self._all = [
            TopicPartition(topic, number)
            for topic in sorted(partitions)
            for number in range(partitions[topic])
        ]
        self._quota, self._with_one_more = divmod(len(self._all), len(claims.owned))
        self._assigned: Assignments = {member: [] for member in claims.owned}
        self._below: list[str] = []  # members with fewer than the quota
        self._at: list[str] = []  # members with the quota, who may get one more
        self._given_up: dict[TopicPartition, str] = {}
        self.moving: dict[TopicPartition, str] = {}

    def fill(self) -> Assignments:
        for member in self._owned:
            self._keep_owned(member)
        kept = {each for mine in self._assigned.values() for each in mine}
        self._deal_out([each for each in self._all if each not in kept])
        return self._assigned

    def _keep_owned(self, member: str) -> None:
        owned = [each for each in self._owned[member] if each not in self._contested]
        owned.sort(key=lambda each: (each.partition, each.topic))
        most = self._quota + (1 if len(self._all) % len(self._owned) else 0)
        keep = self._quota
        if len(owned) < self._quota:
            keep = len(owned)
            self._below.append(member)
        elif len(owned) >= most and self._with_one_more:
            keep = most
            self._with_one_more -= 1
        else:
            self._at.append(member)
        self._assigned[member] += owned[:keep]
        self._given_up.update(dict.fromkeys(owned[keep:], member))

    def _deal_out(self, unassigned: list[TopicPartition]) -> None:
        """In a circle over those below the quota; then one more each, as long as there are some."""
        below, at = deque(sorted(self._below)), deque(sorted(self._at))
        for each in unassigned:
            if below:
                member = below.popleft()
                self._give(each, member)
                if len(self._assigned[member]) < self._quota:
                    below.append(member)
                else:
                    at.append(member)
            else:
                self._give(each, at.popleft())

    def _give(self, each: TopicPartition, member: str) -> None:
        self._assigned[member].append(each)
        if self._given_up.get(each, member) != member or each in self._contested:
            self.moving[each] = member
