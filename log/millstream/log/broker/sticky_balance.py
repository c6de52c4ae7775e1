"""The sticky assignment of members who want different topics: as balanced as it can be, and of the
balanced ones one that moves little.

1. Who owns a partition and still wants it keeps it.
2. What is left goes, topics with the fewest takers first, to the taker who has the least.
3. Partitions move from members with two or more than a taker, until none can; a partition goes
   back to a former owner rather than to another, and of two moves in opposite directions between
   the same two members for one topic neither happens.
4. If that did not make the assignment more even than it was after step 2, nothing moves.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence

from millstream.log.record import TopicPartition

__all__ = ["Balance"]


class _Moves:
    """Which partitions moved from whom to whom so far, by topic."""

    def __init__(self) -> None:
        self._by_pair: dict[tuple[str, str, str], set[TopicPartition]] = {}
        self._of: dict[TopicPartition, tuple[str, str]] = {}

    def instead_of(self, each: TopicPartition, source: str, target: str) -> TopicPartition:
        """The partition to move from `source` to `target`: one that came the other way, if any."""
        if each in self._of:
            source = self._of[each][0]
        back = self._by_pair.get((each.topic, target, source))
        return min(back) if back else each

    def add(self, each: TopicPartition, source: str, target: str) -> None:
        """It moved. A second move of the same partition counts as one from where it was first."""
        earlier = self._of.pop(each, None)
        if earlier is not None:
            first, _ = earlier
            self._by_pair[each.topic, *earlier].discard(each)
            if first == target:
                return
            source = first
        self._of[each] = (source, target)
        self._by_pair.setdefault((each.topic, source, target), set()).add(each)


class Balance:
    """One assignment on its way to balance.

    Args:
        topics: member -> the existing topics it wants.
        partitions: topic -> partition count.
        owned: member -> what it owns, no partition twice.
        older: partition -> a member that owned it in an older generation.
    """

    def __init__(
        self,
        topics: Mapping[str, Sequence[str]],
        partitions: Mapping[str, int],
        owned: Mapping[str, Sequence[TopicPartition]],
        older: Mapping[TopicPartition, str],
    ) -> None:
        self._topics = {member: frozenset(wanted) for member, wanted in topics.items()}
        self._partitions = partitions
        self._older = older
        self._takers: dict[str, list[str]] = {topic: [] for topic in partitions}
        for member, wanted in topics.items():
            for topic in wanted:
                self._takers[topic].append(member)
        self._most = {
            member: sum(partitions[topic] for topic in wanted)
            for member, wanted in self._topics.items()
        }
        self._moves = _Moves()
        self._balanced: bool | None = None  # not known since the last move
        self._revoked = any(
            each.topic not in self._topics[member]
            for member, mine in owned.items()
            for each in mine
        )
        self._assigned = {
            member: [each for each in mine if each.topic in self._topics[member]]
            for member, mine in owned.items()
        }
        self._owner = {each: member for member, mine in self._assigned.items() for each in mine}
        self._by_size = sorted((len(mine), member) for member, mine in self._assigned.items())

    def reach(self) -> dict[str, list[TopicPartition]]:
        """The balanced assignment."""
        everything = [
            TopicPartition(topic, number)
            for topic in sorted(self._partitions, key=lambda each: (len(self._takers[each]), each))
            for number in range(self._partitions[topic])
        ]
        unassigned = [each for each in everything if each not in self._owner]
        initial = self._by_size[-1][0] == 0
        for each in unassigned:
            self._give_to_the_least(each)
        movable = [each for each in everything if len(self._takers[each.topic]) > 1]
        fixed = self._set_fixed_members_aside()
        before = {member: list(mine) for member, mine in self._assigned.items()}
        if not self._revoked:
            self._move([each for each in unassigned if len(self._takers[each.topic]) > 1])
        moved = self._move(movable)
        if not initial and moved and _unevenness(self._assigned) >= _unevenness(before):
            self._assigned = before
        self._assigned.update(fixed)
        return self._assigned

    def _give_to_the_least(self, each: TopicPartition) -> None:
        for size, member in self._by_size:
            if each.topic in self._topics[member]:
                self._by_size.remove((size, member))
                self._assigned[member].append(each)
                self._owner[each] = member
                insort(self._by_size, (size + 1, member))
                return

    def _set_fixed_members_aside(self) -> dict[str, list[TopicPartition]]:
        """Members with all they can get, of topics nobody else wants."""
        fixed = {}
        for member, wanted in self._topics.items():
            mine = self._assigned[member]
            if len(mine) >= self._most[member] and all(len(self._takers[t]) < 2 for t in wanted):
                self._by_size.remove((len(mine), member))
                fixed[member] = self._assigned.pop(member)
        return fixed

    def _move(self, movable: Sequence[TopicPartition]) -> bool:
        """Move partitions while that makes two members more even; whether any moved."""
        moved = False
        while True:
            again = False
            for each in movable:
                if self._balanced is None:
                    self._balanced = self._is_balanced()
                if self._balanced:
                    break
                target = self._better_member(each)
                if target is not None:
                    self._move_to(each, target)
                    again = moved = True
            if not again:
                return moved

    def _better_member(self, each: TopicPartition) -> str | None:
        """Its former owner if that one has two fewer; else the member with the least, if it has."""
        size = len(self._assigned[self._owner[each]])
        former = self._older.get(each)
        if (
            former is not None
            and each.topic in self._topics.get(former, ())
            and size > len(self._assigned[former]) + 1
        ):
            return former
        for least, member in self._by_size:
            if each.topic in self._topics[member]:
                return member if size > least + 1 else None
        return None

    def _move_to(self, each: TopicPartition, target: str) -> None:
        each = self._moves.instead_of(each, self._owner[each], target)
        source = self._owner[each]
        self._balanced = None
        self._moves.add(each, source, target)
        for member, change in ((source, -1), (target, 1)):
            size = len(self._assigned[member])
            del self._by_size[bisect_left(self._by_size, (size, member))]
            insort(self._by_size, (size + change, member))
        self._assigned[source].remove(each)
        self._assigned[target].append(each)
        self._owner[each] = target

    def _is_balanced(self) -> bool:
        """Whether no member could take a partition from one that has two or more than it."""
        if self._by_size[0][0] >= self._by_size[-1][0] - 1:
            return True
        largest: dict[str, int] = {}  # topic -> the most that an owner of one of its partitions has
        for mine in self._assigned.values():
            for topic in {each.topic for each in mine}:
                largest[topic] = max(largest.get(topic, 0), len(mine))
        return not any(
            size < self._most[member]
            and any(size + 1 < largest.get(topic, 0) for topic in self._topics[member])
            for size, member in self._by_size
        )


def _unevenness(assigned: Mapping[str, Sequence[TopicPartition]]) -> int:
    """The sum of the differences of size over all pairs of members; 0 is even."""
    sizes = sorted(len(mine) for mine in assigned.values())
    return sum(size * (2 * index - len(sizes) + 1) for index, size in enumerate(sizes))
