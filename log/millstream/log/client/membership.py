"""A consumer's membership in its group: joining, heartbeats, and what happens at a rebalance.

Joining runs in a task of its own, because it waits for the other members and may outlast a poll;
its result is taken over, and the listeners are called, inside a poll of the owner. The heartbeat
task keeps the session alive while the owner works on what it polled, for at most
`max.poll.interval.ms`. Both tasks belong to this object; `leave` ends them and waits for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import NamedTuple

from millstream.log.broker.assignors import ASSIGNORS, GroupMember
from millstream.log.broker.broker import Broker
from millstream.log.broker.consumer_protocol import (
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from millstream.log.broker.groups import JoinRequest, JoinResult
from millstream.log.broker.to_the_end import stopped
from millstream.log.errors import (
    IllegalGenerationError,
    LogError,
    RebalanceInProgressError,
    UnknownMemberError,
)
from millstream.log.ids import random_id
from millstream.log.interface import RebalanceListener
from millstream.log.record import ConsumerGroupMetadata, TopicPartition

from .settings import ConsumerConfig

__all__ = ["Listeners", "Membership"]

logger = logging.getLogger("millstream.log")

_PROTOCOL_TYPE = "consumer"
_NO_GENERATION = -1
_MOVED_ON = (UnknownMemberError, IllegalGenerationError)


class Listeners(NamedTuple):
    """What the owner wants called at a rebalance."""

    on_assigned: RebalanceListener | None = None
    on_revoked: RebalanceListener | None = None
    on_lost: RebalanceListener | None = None


class Membership:
    """One consumer in one group.

    Args:
        assign: called with the partitions the consumer has from now on.
        before_revoke: awaited before partitions are given up; commits, if that is automatic.
        wake: called when a poll that waits should stop waiting.
    """

    def __init__(
        self,
        broker: Broker,
        group: str,
        topics: Collection[str],
        config: ConsumerConfig,
        listeners: Listeners,
        *,
        assign: Callable[[Collection[TopicPartition]], None],
        before_revoke: Callable[[], Awaitable[None]],
        wake: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._group = group
        self._topics = tuple(sorted(set(topics)))
        self._config = config
        self._listeners = listeners
        self._assign = assign
        self._before_revoke = before_revoke
        self._wake = wake
        self._member_id = f"{config.client_id}-{random_id()}"
        self._generation = _NO_GENERATION
        self._assigned: list[TopicPartition] = []
        self._must_join = True
        self._is_lost = False
        self._has_left = False
        self._joining: asyncio.Task[list[TopicPartition]] | None = None
        self._heartbeats: asyncio.Task[None] | None = None
        self._last_poll_ms = broker.clock.monotonic_ms()
        self.rebalances = 0

    def metadata(self) -> ConsumerGroupMetadata:
        """Who this member is now."""
        return ConsumerGroupMetadata(self._group, self._generation, self._member_id)

    def polled(self) -> None:
        """The owner is alive: max.poll.interval.ms starts anew."""
        self._last_poll_ms = self._broker.clock.monotonic_ms()

    async def poll(self, timeout_s: float) -> None:
        """Take part in a rebalance if there is one; wait for it no longer than `timeout_s`.

        Raises:
            UnknownTopicError: a subscribed topic does not exist.
            ConfigError: the settings do not fit the group's.
        """
        if self._is_lost:
            await self._give_up_lost()
        if self._must_join and self._joining is None and not self._has_left:
            for topic in self._topics:
                self._broker.partitions.topic(topic)
            await self._revoke()
            if self._has_left:
                return  # the consumer was closed meanwhile
            self._must_join = False
            self._joining = asyncio.get_running_loop().create_task(self._join())
        joining = self._joining
        if joining is not None:
            done, _ = await asyncio.wait([joining], timeout=max(timeout_s, 0))
            if done and joining is self._joining:  # or the consumer was closed meanwhile
                self._joining = None
                await self._take_over(joining)

    async def leave(self) -> None:
        """Give up the partitions and leave; the others rebalance at once."""
        self._has_left = True
        tasks = self._joining, self._heartbeats
        self._joining = self._heartbeats = None
        try:
            await stopped(*tasks)
            await self._revoke()
        finally:
            self._broker.groups.leave_group(self._group, self._member_id)
            self._generation = _NO_GENERATION
            self._must_join = True

    async def _take_over(self, joining: asyncio.Task[list[TopicPartition]]) -> None:
        """The rebalance is over: what is assigned now?"""
        try:
            self._assigned = joining.result()
        except LogError:
            self._must_join = True
            raise
        self.rebalances += 1
        self._assign(self._assigned)
        if self._heartbeats is None:
            self._heartbeats = asyncio.get_running_loop().create_task(self._keep_alive())
        if self._listeners.on_assigned is not None:
            await self._listeners.on_assigned(list(self._assigned))

    async def _revoke(self) -> None:
        """All partitions go back before a rebalance (the eager protocol)."""
        if not self._assigned:
            return
        try:
            await self._before_revoke()
        except (*_MOVED_ON, RebalanceInProgressError) as error:
            logger.warning("Positions not committed at the end of an assignment: %s", error)
        revoked, self._assigned = self._assigned, []
        if self._listeners.on_revoked is not None:
            await self._listeners.on_revoked(revoked)
        self._assign(())

    async def _give_up_lost(self) -> None:
        """The group went on without this member: its partitions belong to others already."""
        self._is_lost = False
        self._must_join = True
        self._generation = _NO_GENERATION
        lost, self._assigned = self._assigned, []
        self._assign(())
        listener = self._listeners.on_lost or self._listeners.on_revoked
        if listener is not None and lost:
            await listener(lost)

    async def _join(self) -> list[TopicPartition]:
        while True:
            try:
                return await self._join_once()
            except RebalanceInProgressError:
                continue  # another member came meanwhile
            except _MOVED_ON:
                self._broker.groups.leave_group(self._group, self._member_id)
                self._member_id = f"{self._config.client_id}-{random_id()}"

    async def _join_once(self) -> list[TopicPartition]:
        groups = self._broker.groups
        subscription = encode_subscription(Subscription(self._topics))
        joined = await groups.join_group(
            self._group,
            JoinRequest(
                self._member_id,
                self._config.client_id,
                self._config.session_timeout_ms,
                self._config.max_poll_interval_ms,
                _PROTOCOL_TYPE,
                tuple((name, subscription) for name in self._config.partition_assignment_strategy),
            ),
            on_rebalance=self._rebalance_began,
        )
        assignments = self._assignments(joined) if joined.members else {}
        synced = await groups.sync_group(
            self._group, self._member_id, joined.generation, assignments
        )
        self._generation = joined.generation
        return decode_assignment(synced.assignment)

    def _assignments(self, joined: JoinResult) -> dict[str, bytes]:
        """The leader's work: share the partitions out."""
        members = [
            GroupMember(member, decode_subscription(subscription))
            for member, subscription in joined.members
        ]
        existing = set(self._broker.partitions.topics())
        wanted = {topic for each in members for topic in each.subscription.topics} & existing
        counts = {topic: self._broker.partitions.topic(topic).partitions for topic in wanted}
        assigned = ASSIGNORS[joined.protocol](members, counts)
        return {member: encode_assignment(partitions) for member, partitions in assigned.items()}

    def _rebalance_began(self) -> None:
        """The coordinator tells at once, without waiting for the next heartbeat."""
        self._must_join = True
        self._wake()

    async def _keep_alive(self) -> None:
        """Heartbeats, until the owner stops polling or the group has gone on."""
        clock = self._broker.clock
        while True:
            await clock.sleep_ms(self._config.heartbeat_interval_ms)
            if self._joining is not None or self._is_lost or self._generation < 0:
                continue
            if clock.monotonic_ms() - self._last_poll_ms > self._config.max_poll_interval_ms:
                logger.warning(
                    "Group %s: no poll for max.poll.interval.ms=%d; member %s leaves. Poll more "
                    "often, or raise it.",
                    self._group,
                    self._config.max_poll_interval_ms,
                    self._member_id,
                )
                self._broker.groups.leave_group(self._group, self._member_id)
                self._lose()
                continue
            try:
                self._broker.groups.heartbeat(self._group, self._member_id, self._generation)
            except RebalanceInProgressError:
                self._rebalance_began()
            except _MOVED_ON:
                self._lose()

    def _lose(self) -> None:
        self._is_lost = True
        self._wake()
