"""The coordinator of groups of KIP-848 at work: heartbeats, what is written, what time does.

Every change is written to `__consumer_offsets` and durable before a member is told of it, so a
group goes on after a restart where it was: no member has to join again, and no partition gets a
second owner.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Protocol

from millstream.log.clock import Clock
from millstream.log.config import INTERNAL_TOPICS, BrokerConfig
from millstream.log.errors import (
    GroupNotEmptyError,
    IllegalGenerationError,
    LogError,
    UnknownTopicError,
)
from millstream.log.events import event
from millstream.log.record import ConsumerGroupMetadata, TopicPartition

from .group_fencing import no_instance
from .internal_topic import InternalTopic
from .modern_group import ModernGroup
from .modern_records import group_rows, restored
from .modern_values import (
    JOIN,
    Heartbeat,
    HeartbeatResult,
    StaleMemberEpochError,
    TopicFacts,
    no_modern_group,
)
from .primitives import check_string
from .topic_patterns import topics_matching
from .topics import Topic

__all__ = ["ModernCoordinator", "TopicsThereAre"]

_FEW = 1_000
"""Names that are looked up one by one."""


class TopicsThereAre(Protocol):
    """Where topics are looked up."""

    def topics(self) -> list[str]:
        """Names of all topics."""

    def topic(self, name: str) -> Topic:
        """Raises UnknownTopicError."""

    def topic_with_id(self, topic_id: str) -> Topic | None:
        """The topic of this id."""


class ModernCoordinator:
    """Groups of KIP-848. One event loop owns it.

    Args:
        topic: `__consumer_offsets`.
        make_way: called with the name of a group that a member wants to join; what it returns is
            the key of what an empty group of the classic protocol had written, if there was one.
        on_deadline: called with the monotonic time at which `let_time_pass` is next wanted.
    """

    def __init__(
        self,
        topic: InternalTopic,
        config: BrokerConfig,
        clock: Clock,
        *,
        make_way: Callable[[str], list[bytes]],
        on_deadline: Callable[[int], None],
    ) -> None:
        self._topic = topic
        self._config = config
        self._clock = clock
        self._make_way = make_way
        self._on_deadline = on_deadline
        self._groups: dict[str, ModernGroup] = {}
        self._written: dict[str, dict[bytes, bytes]] = {}
        self._ends: dict[str, tuple[TopicPartition, int]] = {}  # what must be durable
        self._unfinished: dict[str, list[bytes]] = {}  # keys of who made way
        self.rebalances = 0
        """Target assignments that were made."""

    def __iter__(self) -> Iterator[ModernGroup]:
        return iter(list(self._groups.values()))

    def get(self, name: str) -> ModernGroup | None:
        """The group, if it speaks this protocol."""
        return self._groups.get(name)

    def restore(self, name: str, rows: Mapping[bytes, bytes]) -> None:
        """A group as it was written. Raises CorruptRecordError."""
        group = restored(name, rows)
        group.start_sessions(self._clock.monotonic_ms(), self._session_timeout_ms)
        self._groups[name] = group
        self._written[name] = dict(rows)

    # Membership

    async def heartbeat(
        self,
        name: str,
        request: Heartbeat,
        topics: TopicsThereAre,
        *,
        may_see: Callable[[str], bool] | None = None,
    ) -> HeartbeatResult:
        """A member joins, or is alive; returns when what it is told is durable.

        Args:
            may_see: whether the member may have a topic that its pattern is about.

        Raises:
            InvalidRegularExpressionError: its pattern is none.
            UnknownGroupError: it is a group of the classic protocol, or there is none.
            InvalidRequestError: no record can hold the group's name, or the member's.
            StorageError: ask again.
            And as `ModernGroup.heartbeat`.
        """
        check_string("Group", name)
        check_string("Member", request.member_id)
        await self._topic.create_if_missing()
        group = self._groups.get(name)
        request = _with_matches(group, request, topics, may_see)
        if group is None:
            if request.epoch != JOIN:
                raise no_modern_group(name)
            self._unfinished[name] = self._make_way(name)
            group = ModernGroup(name)
        group.recall(lambda topic_id: getattr(topics.topic_with_id(topic_id), "name", None))
        assignments = group.assignment_epoch
        result = group.heartbeat(
            request,
            _facts(group, request, topics),
            self._clock.monotonic_ms(),
            session_timeout_ms=self._session_timeout_ms,
            size_max=self._config.group_consumer_max_size,
        )
        self._groups[name] = group
        if group.assignment_epoch != assignments:
            self.rebalances += 1
            event("group rebalancing", group=name, generation=group.assignment_epoch)
        self._set_deadline(group)
        await self._durable(group)
        return result

    async def leave(
        self, name: str, member_id: str, instance_id: str | None, *, for_a_while: bool = False
    ) -> None:
        """The member goes. Raises UnknownGroupError, and as `ModernGroup.leave`."""
        group = self._groups.get(name)
        if group is None:
            raise no_modern_group(name)
        group.leave(member_id, instance_id, for_a_while=for_a_while)
        self._look_whether_empty(group)
        await self._durable(group)

    def remove_members(self, name: str, instance_ids: Collection[str] | None) -> None:
        """Take static members out by their instance ids, or all members. Raises
        UnknownMemberError: nobody was taken out."""
        group = self._groups[name]
        gone = list(group.members)
        if instance_ids is not None:
            gone = []
            for instance_id in instance_ids:
                member = group.member_of_instance(instance_id)
                if member is None:
                    raise no_instance(name, instance_id)
                gone.append(member.member_id)
        for member_id in dict.fromkeys(gone):
            group.remove(member_id)
        self._look_whether_empty(group)
        self._write(group)

    def let_time_pass(self, now_ms: int) -> None:
        """End the sessions of silent members, of every group. Raises LogError when one of them
        cannot be written; it is tried again."""
        failed: LogError | None = None
        for group in list(self._groups.values()):
            for member_id in group.let_time_pass(now_ms):
                event(
                    "member timed out",
                    logging.WARNING,
                    group=group.name,
                    member=member_id,
                    session_timeout_ms=self._session_timeout_ms,
                )
                self._look_whether_empty(group)
            try:
                self._write(group)
            except LogError as error:
                failed = error
        if failed is not None:
            raise failed

    def next_deadline_ms(self) -> int | None:
        """Monotonic time at which `let_time_pass` has something to do."""
        deadlines = [group.next_deadline_ms() for group in self._groups.values()]
        return min((each for each in deadlines if each is not None), default=None)

    # For others

    def check_commit(self, member: ConsumerGroupMetadata, *, transactional: bool) -> bool:
        """Whether the group speaks this protocol; then its member may commit.

        Raises:
            UnknownMemberError, StaleMemberEpochError: it may not. IllegalGenerationError: nor in a
                transaction, where clients know no other word for it.
        """
        group = self._groups.get(member.group)
        if group is None:
            return False
        nobody = member.generation < 0 and not member.member_id and member.group_instance_id is None
        if nobody and transactional:
            return True  # as in `Group.check_commit`
        if member.generation >= 0 or group.members:
            try:
                group.check_epoch(member.member_id, member.generation)
            except StaleMemberEpochError as error:
                if transactional:
                    raise IllegalGenerationError(str(error)) from None
                raise
        return True

    def check_fetch(self, name: str, member_id: str | None, epoch: int) -> None:
        """Whether a member may read the group's offsets; anybody else may. Raises as
        `ModernGroup.check_epoch`."""
        group = self._groups.get(name)
        if group is not None and (member_id is not None or epoch >= 0):
            group.check_epoch(member_id or "", epoch)

    def check_empty(self, name: str) -> None:
        """Raises GroupNotEmptyError when the group has members."""
        group = self._groups.get(name)
        if group is not None and group.members:
            raise GroupNotEmptyError(
                f"Group {name} has {len(group.members)} members. Close its consumers first."
            )

    def keys_of(self, name: str) -> list[bytes]:
        """The keys of what a group has written, or of who made way for it."""
        return [*self._written.get(name, {}), *self._unfinished.get(name, [])]

    def forget(self, name: str) -> list[bytes]:
        """Drop a group without members; returns the keys of what it had written."""
        keys = self.keys_of(name)
        for of_groups in (self._groups, self._ends, self._written, self._unfinished):
            of_groups.pop(name, None)
        return keys

    # What is written

    async def _durable(self, group: ModernGroup) -> None:
        self._write(group)
        if group.name in self._ends:
            await asyncio.shield(self._topic.durable(*self._ends[group.name]))

    def _write(self, group: ModernGroup) -> None:
        """What changed, as one batch. What could not be written is, with the next change."""
        if not group.changed:
            return
        before, now = self._written.get(group.name, {}), group_rows(group)
        changes: dict[bytes, bytes | None] = dict.fromkeys(self._unfinished.get(group.name, []))
        changes |= dict.fromkeys(before.keys() - now.keys())
        changes |= {key: value for key, value in now.items() if before.get(key) != value}
        if changes:
            where = self._topic.partition_of(group.name)
            end = self._topic.append(where, list(changes), list(changes.values()))
            self._ends[group.name] = (where, end)
        self._written[group.name] = now
        self._unfinished.pop(group.name, None)
        group.changed = False

    def _look_whether_empty(self, group: ModernGroup) -> None:
        if not group.members:
            group.empty_since_ms = self._clock.wall_ms()
            event("group emptied", group=group.name, generation=group.epoch)

    def _set_deadline(self, group: ModernGroup) -> None:
        deadline_ms = group.next_deadline_ms()
        if deadline_ms is not None:
            self._on_deadline(deadline_ms)

    @property
    def _session_timeout_ms(self) -> int:
        return self._config.group_consumer_session_timeout_ms


def _with_matches(
    group: ModernGroup | None,
    request: Heartbeat,
    topics: TopicsThereAre,
    may_see: Callable[[str], bool] | None,
) -> Heartbeat:
    """With the topics that the member's pattern is about now."""
    pattern = request.regex
    if pattern is None and group is not None:
        known = group.members.get(request.member_id)
        if known is None and request.instance_id is not None:
            known = group.member_of_instance(request.instance_id)
        pattern = known.regex if known is not None else None
    if not pattern:
        return request
    names = [each for each in topics.topics() if each not in INTERNAL_TOPICS]
    found = topics_matching(pattern, names)
    if may_see is not None:
        found = frozenset(each for each in found if may_see(each))
    return request._replace(regex_topics=found)


def _facts(group: ModernGroup, request: Heartbeat, topics: TopicsThereAre) -> TopicFacts:
    """What there is of what anybody in the group wants."""
    wanted = group.subscribed_topics(), request.topics or frozenset(), request.regex_topics
    names: Iterable[str] = chain(*wanted)
    if sum(map(len, wanted)) > _FEW:  # they may be names of nothing, again with each heartbeat
        names = [name for name in topics.topics() if any(name in some for some in wanted)]
    found = {}
    for name in names:
        try:
            topic = topics.topic(name)
        except UnknownTopicError:
            continue
        found[name] = (topic.topic_id, topic.partitions)
    return found
