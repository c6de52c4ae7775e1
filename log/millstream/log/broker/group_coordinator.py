"""The group coordinator at work: tells members to rebalance, and answers when their group is ready.

Groups live as long as the process: their members do. The generation a group reached is written to
`__consumer_offsets`, so that no generation comes twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from millstream.log.clock import Clock
from millstream.log.config import BrokerConfig
from millstream.log.errors import ConfigError, GroupNotEmptyError, LogError, UnknownMemberError
from millstream.log.events import event
from millstream.log.record import ConsumerGroupMetadata

from .consumer_protocol import decode_subscription
from .groups import Group, JoinRequest, JoinResult, SyncResult
from .internal_topic import InternalTopic
from .offset_records import GroupRecord, MemberRecord, encode_group_key, encode_group_value

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
        self._waiting: dict[str, asyncio.Future[JoinResult | SyncResult]] = {}  # by member id
        self._on_rebalance: dict[str, Callable[[], None]] = {}  # by member id
        self._rebalances = 0

    def __iter__(self) -> Iterator[Group]:
        return iter(list(self._groups.values()))

    def stats(self) -> GroupsStats:
        """Where the groups stand."""
        from millstream.log.stats import GroupsStats  # when it is used

        return GroupsStats(
            len(self._groups),
            sum(len(each.members) for each in self._groups.values()),
            Counter(each.state.value for each in self._groups.values()),
            self._rebalances,
        )

    def restore(self, name: str, record: GroupRecord) -> None:
        """A group as it was written. Its members went with their process."""
        self._groups[name] = self._new_group(name, record.generation)

    # Membership

    async def join_group(
        self, name: str, request: JoinRequest, *, on_rebalance: Callable[[], None] | None = None
    ) -> JoinResult:
        """Join, and wait for the new generation.

        `on_rebalance` is called when the member should join again; one on the network learns it
        from its next heartbeat.

        Raises:
            UnknownMemberError: the session ended while waiting.
            ConfigError: session.timeout.ms or the assignors do not suit.
        """
        low, high = (
            self._config.group_min_session_timeout_ms,
            self._config.group_max_session_timeout_ms,
        )
        if not low <= request.session_timeout_ms <= high:
            raise ConfigError(
                f"session.timeout.ms is {request.session_timeout_ms}; it can be "
                f"group.min.session.timeout.ms={low} to group.max.session.timeout.ms={high}."
            )
        await self._topic.create_if_missing()
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = self._new_group(name, 0)
        if len(group.members) >= self._config.group_max_size and (
            request.member_id not in group.members
        ):
            raise ConfigError(
                f"Group {name} has group.max.size={self._config.group_max_size} members already."
            )
        if on_rebalance is not None:
            self._on_rebalance[request.member_id] = on_rebalance
        group.join(request, self._clock.monotonic_ms())
        result = await self._reply(group, request.member_id)
        assert isinstance(result, JoinResult)
        return result

    async def sync_group(
        self, name: str, member_id: str, generation: int, assignments: Mapping[str, bytes]
    ) -> SyncResult:
        """Wait for the assignment; the leader brings everybody's.

        Raises:
            UnknownMemberError, IllegalGenerationError, RebalanceInProgressError: join again.
        """
        group = self._group_of(name, member_id)
        if group.sync(member_id, generation, assignments, self._clock.monotonic_ms()):
            try:
                self._write_group(group)
            except BaseException:
                self._deliver(group)  # the others have their answers; this member joins again
                raise
            self._rebalances += 1
            event(
                "group rebalanced",
                group=name,
                generation=group.generation,
                members=len(group.members),
                protocol=group.protocol,
            )
        result = await self._reply(group, member_id)
        assert isinstance(result, SyncResult)
        return result

    def heartbeat(self, name: str, member_id: str, generation: int) -> None:
        """The member is alive. Raises as `sync_group`."""
        group = self._group_of(name, member_id)
        group.heartbeat(member_id, generation, self._clock.monotonic_ms())

    def leave_group(self, name: str, member_id: str) -> None:
        """The member goes; the others rebalance at once."""
        self._on_rebalance.pop(member_id, None)
        group = self._groups.get(name)
        if group is not None:
            group.leave(member_id, self._clock.monotonic_ms())
            self._deliver(group)

    def on_partitions_added(self, topic: str) -> None:
        """The topic has more partitions: where a group reads it, its leader joins again, and so
        shares them out. Kafka's leader learns it from metadata within metadata.max.age.ms."""
        for group in self._groups.values():
            if group.leader in self._on_rebalance and any(
                topic in decode_subscription(each.request.protocols[0][1]).topics
                for each in group.members.values()
            ):
                self._on_rebalance[group.leader]()

    def let_time_pass(self, now_ms: int) -> None:
        """End the sessions of silent members, and rebalances that waited long enough."""
        for group in self._groups.values():
            group.let_time_pass(now_ms)
            self._deliver(group)

    def next_deadline_ms(self) -> int | None:
        """Monotonic time at which `let_time_pass` has something to do."""
        deadlines = [group.next_deadline_ms() for group in self._groups.values()]
        return min((each for each in deadlines if each is not None), default=None)

    def check_commit(self, member: ConsumerGroupMetadata, *, transactional: bool) -> None:
        """Whether this member may commit offsets for its group.

        Raises:
            UnknownMemberError, IllegalGenerationError, RebalanceInProgressError: it may not.
        """
        group = self._groups.get(member.group)
        if group is not None:
            now_ms = self._clock.monotonic_ms()
            group.check_commit(
                member.member_id, member.generation, now_ms, transactional=transactional
            )
        elif member.member_id or member.generation >= 0:
            raise UnknownMemberError(
                f"Group {member.group} has no member {member.member_id!r}; join again."
            )

    def check_empty(self, name: str) -> None:
        """Raises GroupNotEmptyError when the group has members."""
        group = self._groups.get(name)
        if group is not None and group.members:
            raise GroupNotEmptyError(
                f"Group {name} has {len(group.members)} members. Close its consumers first."
            )

    def forget(self, name: str) -> bool:
        """Drop a group without members; False when it was not known."""
        group = self._groups.pop(name, None)
        if group is not None:
            group.delete()
        return group is not None

    def record_of(self, group: Group) -> GroupRecord:
        """The group as it is written down."""
        members = [
            MemberRecord(
                each.member_id,
                None,
                each.request.client_id,
                "",
                each.request.rebalance_timeout_ms,
                each.request.session_timeout_ms,
                dict(each.request.protocols).get(group.protocol or "", b""),
                each.assignment,
            )
            for each in group.members.values()
        ]
        return GroupRecord(
            group.protocol_type,
            group.generation,
            group.protocol,
            group.leader,
            self._clock.wall_ms(),
            members,
        )

    def _new_group(self, name: str, generation: int) -> Group:
        delay_ms = self._config.group_initial_rebalance_delay_ms
        return Group(name, initial_delay_ms=delay_ms, generation=generation)

    def _group_of(self, name: str, member_id: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            raise UnknownMemberError(
                f"Group {name} has no member {member_id!r}: the group was deleted. Join again."
            )
        return group

    def _write_group(self, group: Group) -> None:
        """Its fsync rides along with the next commit: it only keeps generations from repeating."""
        where = self._topic.partition_of(group.name)
        value = encode_group_value(self.record_of(group))
        self._topic.append(where, [encode_group_key(group.name)], [value])

    async def _reply(self, group: Group, member_id: str) -> JoinResult | SyncResult:
        """Wait for the answer to this member. One that stops waiting leaves the group alone: its
        session ends in time, unless it comes back."""
        future: asyncio.Future[JoinResult | SyncResult]
        future = asyncio.get_running_loop().create_future()
        older = self._waiting.get(member_id)
        if older is not None and not older.done():
            older.cancel()
        self._waiting[member_id] = future
        self._deliver(group)
        try:
            return await future
        finally:
            if self._waiting.get(member_id) is future:
                del self._waiting[member_id]

    def _deliver(self, group: Group) -> None:
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
        deadline_ms = group.next_deadline_ms()
        if deadline_ms is not None:
            self._on_deadline(deadline_ms)
