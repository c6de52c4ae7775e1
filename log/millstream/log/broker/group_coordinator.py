"""The group coordinator at work: tells members to rebalance, and answers when their group is ready.

A group is written to `__consumer_offsets` when it becomes stable and when it becomes empty. So no
generation comes twice, members that are static or on the network have their place back after a
restart, and it is known since when a group is empty. Others go with their process: they join anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from millstream.log.clock import Clock
from millstream.log.config import BrokerConfig
from millstream.log.errors import GroupNotEmptyError, LogError, MemberIdRequiredError
from millstream.log.events import event
from millstream.log.record import ConsumerGroupMetadata

from .group_admission import admitted, check_assigned, check_empty_for_classic, check_size
from .group_fencing import fenced, rebalancing, unknown
from .group_records import group_record, restored_group
from .group_values import GroupState, JoinRequest, JoinResult, SyncResult, topics_of
from .groups import Group
from .internal_topic import InternalTopic
from .modern_coordinator import ModernCoordinator
from .modern_values import no_modern_group
from .offset_records import GroupRecord, encode_group_key, encode_group_value

if TYPE_CHECKING:
    from millstream.log.stats import GroupsStats

__all__ = ["GroupCoordinator"]


class GroupCoordinator:
    """Groups and their members. One event loop owns it.

    Args:
        topic: `__consumer_offsets`.
        on_deadline: called with the monotonic time at which `let_time_pass` is next wanted.
    """

    def __init__(
        self,
        topic: InternalTopic,
        config: BrokerConfig,
        clock: Clock,
        *,
        on_deadline: Callable[[int], None],
    ) -> None:
        self._topic = topic
        self._config = config
        self._clock = clock
        self._on_deadline = on_deadline
        self._groups: dict[str, Group] = {}
        self._states: dict[str, GroupState] = {}  # as last seen
        self._waiting: dict[str, asyncio.Future[JoinResult | SyncResult]] = {}  # by member id
        self._on_rebalance: dict[str, Callable[[], None]] = {}  # by member id
        self._rebalances = 0
        self._displaced: dict[str, list[bytes]] = {}  # keys of what groups of KIP-848 had written
        self.modern = ModernCoordinator(
            topic, config, clock, make_way=self._make_way, on_deadline=on_deadline
        )

    def __iter__(self) -> Iterator[Group]:
        return iter(list(self._groups.values()))

    def get(self, name: str) -> Group | None:
        """The group, if anybody ever joined it."""
        return self._groups.get(name)

    def restore(self, name: str, record: GroupRecord) -> None:
        """A group as it was written: members that may still be there have their session time to
        come back. Where there are none it is empty, and since when is written down: the next
        opening must not take itself for that time."""
        group = self._new_group(name, record.generation)
        restored_group(group, record, self._clock.monotonic_ms(), self._clock.wall_ms())
        self._states[name] = group.state
        if record.members and group.state is GroupState.EMPTY:
            self._emptied(group)

    # Membership

    async def prepare(self) -> None:
        """Have the topic that groups are written to."""
        await self._topic.create_if_missing()

    async def join_group(
        self,
        name: str,
        request: JoinRequest,
        *,
        on_rebalance: Callable[[], None] | None = None,
        require_known_member_id: bool = False,
    ) -> JoinResult:
        """Join, and wait for the new generation. A new member has no id and is given one.

        Args:
            on_rebalance: called when the member should join again; one on the network learns it
                from its next heartbeat.
            require_known_member_id: a new member is told its id first, and joins with it
                (JoinGroup version 4 and later; KIP-394).

        Raises:
            InvalidRequestError: a name or the subscription is too long.
            UnknownMemberError: the session ended while waiting, or the id is none of this group.
            FencedInstanceIdError: another member has its group.instance.id now.
            MemberIdRequiredError: join again with the id it carries.
            InvalidSessionTimeoutError, GroupMaxSizeReachedError, InconsistentGroupProtocolError:
                session.timeout.ms, the size of the group or the assignors do not suit.
        """
        is_new, request = not request.member_id, admitted(self._config, name, request)
        await self.prepare()
        group = self._groups.get(name) or self._first_group(name, request, is_new=is_new)
        former = group.member_of_instance(request.group_instance_id)
        check_size(self._config, group, former if is_new else request.member_id)
        if is_new:
            if require_known_member_id and request.group_instance_id is None:
                raise self._expect(group, request)
        elif request.member_id not in group.members and not group.is_expected(request.member_id):
            if former is not None:
                raise fenced(name, request.member_id, request.group_instance_id)
            raise unknown(name, request.member_id)
        if on_rebalance is not None:
            self._on_rebalance[request.member_id] = on_rebalance
        try:
            group.join(request, self._clock.monotonic_ms(), takes_over=is_new)
            if is_new and former is not None:
                self._was_taken_over(group, former, request)
            result = await self._reply(group, request.member_id)
        except BaseException as error:
            if is_new and former is None and not isinstance(error, LogError):
                self.leave_group(name, request.member_id)  # nobody was told this id
            if request.member_id not in group.members:
                self._on_rebalance.pop(request.member_id, None)
            raise
        assert isinstance(result, JoinResult)
        return result

    def _was_taken_over(self, group: Group, former: str, request: JoinRequest) -> None:
        event(
            "static member taken over",
            group=group.name,
            instance=request.group_instance_id,
            former=former,
            member=request.member_id,
        )
        tell = self._on_rebalance.pop(former, None)
        if tell is not None:
            tell()
        if group.state is GroupState.STABLE:
            self._write_group(group)

    def _expect(self, group: Group, request: JoinRequest) -> MemberIdRequiredError:
        deadline_ms = self._clock.monotonic_ms() + request.session_timeout_ms
        group.expect(request.member_id, deadline_ms)
        self._on_deadline(deadline_ms)
        return MemberIdRequiredError(
            f"Group {group.name}: the new member is {request.member_id}. Join again with this id.",
            request.member_id,
        )

    async def sync_group(
        self,
        name: str,
        member_id: str,
        generation: int,
        assignments: Mapping[str, bytes],
        *,
        group_instance_id: str | None = None,
    ) -> SyncResult:
        """Wait for the assignment; the leader brings everybody's.

        Raises:
            UnknownMemberError, IllegalGenerationError, RebalanceInProgressError: join again.
            FencedInstanceIdError: another member has its group.instance.id now.
            InvalidRequestError: an assignment is too long.
        """
        check_assigned(name, assignments)
        group = self._group_of(name, member_id)
        group.sync(
            member_id,
            generation,
            assignments,
            self._clock.monotonic_ms(),
            group_instance_id=group_instance_id,
        )
        result = await self._reply(group, member_id)
        assert isinstance(result, SyncResult)
        return result

    def heartbeat(
        self, name: str, member_id: str, generation: int, *, group_instance_id: str | None = None
    ) -> None:
        """The member is alive. Raises as `sync_group`."""
        now_ms = self._clock.monotonic_ms()
        self._group_of(name, member_id).heartbeat(
            member_id, generation, now_ms, group_instance_id=group_instance_id
        )

    def leave_group(self, name: str, member_id: str) -> None:
        """The member goes; the others rebalance at once."""
        self._on_rebalance.pop(member_id, None)
        group = self._groups.get(name)
        if group is not None:
            group.leave(member_id, self._clock.monotonic_ms())
            self._deliver(group)

    def on_partitions_added(self, topic: str) -> None:
        """The topic has more partitions: groups that read it share them out. Kafka's leader learns
        it from metadata within metadata.max.age.ms; here all members are told at once."""
        for group in list(self._groups.values()):
            if any(topic in (topics_of(each.request) or ()) for each in group.members.values()):
                group.rebalance(self._clock.monotonic_ms())
                self._deliver(group)

    def let_time_pass(self, now_ms: int) -> None:
        """End the sessions of silent members, and rebalances that waited long enough."""
        for group in list(self._groups.values()):
            before = dict(group.members)
            group.let_time_pass(now_ms)
            for member_id in before.keys() - group.members.keys():
                self._on_rebalance.pop(member_id, None)
                event(
                    "member timed out",
                    logging.WARNING,
                    group=group.name,
                    member=member_id,
                    session_timeout_ms=before[member_id].request.session_timeout_ms,
                )
            self._deliver(group)
        self.modern.let_time_pass(now_ms)  # the last, because it may raise

    def next_deadline_ms(self) -> int | None:
        """Monotonic time at which `let_time_pass` has something to do."""
        deadlines = [group.next_deadline_ms() for group in self._groups.values()]
        deadlines.append(self.modern.next_deadline_ms())
        return min((each for each in deadlines if each is not None), default=None)

    def check_commit(self, member: ConsumerGroupMetadata, *, transactional: bool) -> None:
        """Whether this member may commit offsets for its group.

        Raises:
            UnknownMemberError, IllegalGenerationError, FencedInstanceIdError,
            RebalanceInProgressError: it may not.
        """
        if self.modern.check_commit(member, transactional=transactional):
            return
        group = self._groups.get(member.group)
        if group is not None:
            group.check_commit(
                member.member_id,
                member.generation,
                self._clock.monotonic_ms(),
                transactional=transactional,
                group_instance_id=member.group_instance_id,
            )
        elif member.generation >= 0:
            raise unknown(member.group, member.member_id)

    def check_empty(self, name: str) -> None:
        """Raises GroupNotEmptyError when the group has members."""
        self.modern.check_empty(name)
        group = self._groups.get(name)
        if group is not None and group.members:
            raise GroupNotEmptyError(
                f"Group {name} has {len(group.members)} members. Close its consumers first."
            )

    def keys_of(self, name: str) -> list[bytes]:
        """The keys of what a group has written."""
        if name not in self._groups:
            return self.modern.keys_of(name)
        return [encode_group_key(name), *self._displaced.get(name, [])]

    def forget(self, name: str) -> list[bytes]:
        """Drop a group without members; returns the keys of what it had written."""
        keys, group = self.keys_of(name), self._groups.pop(name, None)
        if group is None:
            return self.modern.forget(name)
        group.delete()
        self._states.pop(name, None)
        self._displaced.pop(name, None)
        return keys

    def _make_way(self, name: str) -> list[bytes]:
        group = self._groups.get(name)
        if group is None:
            return []
        if group.size():
            raise no_modern_group(name)
        return self.forget(name)

    def _first_group(self, name: str, request: JoinRequest, *, is_new: bool) -> Group:
        """A group that nobody joined before, or only members of the other protocol."""
        modern = self.modern.get(name)
        check_empty_for_classic(modern)
        if not is_new:
            raise unknown(name, request.member_id)
        if modern is not None:
            self._displaced[name] = self.modern.forget(name)
        return self._new_group(name, 0 if modern is None else modern.epoch)

    def stats(self) -> GroupsStats:
        """Where the groups stand."""
        from millstream.log.stats import GroupsStats  # when it is used

        groups, modern = self._groups.values(), list(self.modern)
        return GroupsStats(
            len(groups) + len(modern),
            sum(len(each.members) for each in groups) + sum(len(each.members) for each in modern),
            Counter([each.state.value for each in groups] + [each.state for each in modern]),
            self._rebalances + self.modern.rebalances,
        )

    def _new_group(self, name: str, generation: int) -> Group:
        delay_ms = self._config.group_initial_rebalance_delay_ms
        group = Group(name, initial_delay_ms=delay_ms, generation=generation)
        group.state_since_ms = self._clock.wall_ms()
        self._groups[name] = group
        self._states[name] = group.state
        return group

    def _group_of(self, name: str, member_id: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            raise unknown(name, member_id)
        return group

    def _write_group(self, group: Group) -> None:
        """Its fsync rides along with the next commit: it only keeps generations from repeating."""
        where = self._topic.partition_of(group.name)
        gone = self._displaced.get(group.name, [])
        values = [encode_group_value(group_record(group)), *([None] * len(gone))]
        self._topic.append(where, [encode_group_key(group.name), *gone], values)
        self._displaced.pop(group.name, None)

    async def _reply(self, group: Group, member_id: str) -> JoinResult | SyncResult:
        """Wait for the answer to this member. One that stops waiting leaves the group alone: its
        session ends in time, unless it comes back."""
        future: asyncio.Future[JoinResult | SyncResult]
        future = asyncio.get_running_loop().create_future()
        older = self._waiting.get(member_id)
        if older is not None and not older.done():
            older.set_exception(rebalancing(group.name))  # it asked again, on another connection
        self._waiting[member_id] = future
        self._deliver(group)
        try:
            return await future
        finally:
            if self._waiting.get(member_id) is future:
                del self._waiting[member_id]

    def _deliver(self, group: Group) -> None:
        """After every call: answers to those who wait, and what follows from a new state."""
        for reply in group.take_replies():
            future = self._waiting.get(reply.member_id)
            if future is None or future.done():
                continue
            if isinstance(reply.result, LogError):
                future.set_exception(reply.result)
            else:
                future.set_result(reply.result)
        for member_id in group.members_to_call():
            if member_id in self._on_rebalance:
                self._on_rebalance[member_id]()
        if (deadline_ms := group.next_deadline_ms()) is not None:
            self._on_deadline(deadline_ms)
        if self._states.get(group.name) is not group.state:
            self._state_changed(group)

    def _state_changed(self, group: Group) -> None:
        self._states[group.name] = group.state
        group.state_since_ms = self._clock.wall_ms()
        self._rebalances += group.state is GroupState.STABLE
        name, generation = group.name, group.generation
        if group.state is GroupState.PREPARING_REBALANCE:
            event("group rebalancing", group=name, generation=generation)
        elif group.state is GroupState.STABLE:
            event(
                "group rebalanced",
                group=name,
                generation=generation,
                members=len(group.members),
                protocol=group.protocol,
            )
            self._write_group(group)  # the leader is told if it cannot be, and joins again
        elif group.state is GroupState.EMPTY:
            self._emptied(group)

    def _emptied(self, group: Group) -> None:
        event("group emptied", group=group.name, generation=group.generation)
        try:
            self._write_group(group)
        except LogError as error:  # nobody is left to be told
            event("group not written", logging.ERROR, group=group.name, error=error)
