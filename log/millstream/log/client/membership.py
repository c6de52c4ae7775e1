"""A consumer's membership in its group: joining, heartbeats, and what happens at a rebalance.

Joining runs in a task of its own, because it waits for the other members and may outlast a poll;
its result is taken over, and the listeners are called, inside a poll of the owner. The heartbeat
task keeps the session alive while the owner works on what it polled, for at most
`max.poll.interval.ms`. Both tasks belong to this object; `leave` ends them and waits for them.

Eager: every partition is given up before a rebalance. Cooperative (KIP-429): the member goes on
with what it has; what the new assignment lacks it gives up then, and joins once more, so that
another member gets it in the next generation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import NamedTuple

from millstream.log.broker.broker import Broker
from millstream.log.broker.consumer_protocol import NO_GENERATION, decode_assignment
from millstream.log.broker.group_values import CONSUMER, JoinRequest
from millstream.log.broker.to_the_end import stopped
from millstream.log.errors import (
    FencedInstanceIdError,
    IllegalGenerationError,
    LogError,
    RebalanceInProgressError,
    UnknownMemberError,
    UnknownTopicError,
)
from millstream.log.interface import RebalanceListener
from millstream.log.record import ConsumerGroupMetadata, TopicPartition

from .assigning import Assigning
from .settings import ConsumerConfig
from .topic_selection import TopicSelection

__all__ = ["Listeners", "Membership"]

logger = logging.getLogger("millstream.log")

_MOVED_ON = (UnknownMemberError, IllegalGenerationError)


class Listeners(NamedTuple):
    """What the owner wants called at a rebalance."""

    on_assigned: RebalanceListener | None = None
    on_revoked: RebalanceListener | None = None
    on_lost: RebalanceListener | None = None


class Membership:
    """One consumer in one group.

    Args:
        assign: called with the partitions the consumer has from now on; what it keeps it keeps
            with its position.
        before_revoke: awaited before partitions are given up; commits, if that is automatic.
        wake: called when a poll that waits should stop waiting.
    """

    def __init__(
        self,
        broker: Broker,
        group: str,
        selection: TopicSelection,
        config: ConsumerConfig,
        listeners: Listeners,
        *,
        assign: Callable[[Collection[TopicPartition]], None],
        before_revoke: Callable[[], Awaitable[None]],
        wake: Callable[[], None],
    ) -> None:
        self._broker = broker
        self._group = group
        self._selection = selection
        self._config = config
        self._instance_id = config.group_instance_id or None
        self._listeners = listeners
        self._assign = assign
        self._before_revoke = before_revoke
        self._wake = wake
        self._assigning = Assigning(config.partition_assignment_strategy)
        self._member_id = ""
        self._generation = NO_GENERATION
        self._topics: tuple[str, ...] = ()  # as last joined with
        self._assigned: list[TopicPartition] = []
        self._must_join = True
        self._is_lost = False
        self._has_left = False
        self._fenced: FencedInstanceIdError | None = None
        self._joining: asyncio.Task[list[TopicPartition]] | None = None
        self._heartbeats: asyncio.Task[None] | None = None
        self._last_poll_ms = broker.clock.monotonic_ms()
        self.rebalances = 0
        broker.partitions.on_topics_changed.add(self._topics_changed)

    def metadata(self) -> ConsumerGroupMetadata:
        """Who this member is now."""
        return ConsumerGroupMetadata(
            self._group, self._generation, self._member_id, self._instance_id
        )

    @property
    def is_joining(self) -> bool:
        """Whether a rebalance is on its way whose result the owner does not know yet."""
        return self._joining is not None

    def polled(self) -> None:
        """The owner is alive: max.poll.interval.ms starts anew."""
        self._last_poll_ms = self._broker.clock.monotonic_ms()

    def resubscribe(self, selection: TopicSelection, listeners: Listeners) -> None:
        """Other topics from the next rebalance on, which begins with the next poll."""
        self._selection, self._listeners = selection, listeners
        self._must_join = True
        self._wake()

    async def poll(self, timeout_s: float) -> None:
        """Take part in a rebalance if there is one; wait for it no longer than `timeout_s`, and not
        at all while there are partitions to read.

        Raises:
            FencedInstanceIdError: another member has the group.instance.id now. For good.
            UnknownTopicError: a subscribed topic does not exist.
            ConfigError: the settings do not fit the group's.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while not self._has_left:
            if self._must_join and self._joining is None:
                self._look_at_group()
            if self._is_lost or self._fenced is not None:
                await self._give_up_lost()
            if self._must_join and self._joining is None:
                await self._begin_to_join()
            if self._joining is None:
                return
            wait_s = 0 if self._assigned else max(end - loop.time(), 0)
            joining = self._joining
            done, _ = await asyncio.wait([joining], timeout=wait_s)
            if not done or joining is not self._joining:  # or the consumer was closed meanwhile
                return
            self._joining = None
            await self._take_over(joining)

    async def leave(self) -> None:
        """Give up the partitions and leave; the others rebalance at once. A static member keeps its
        place until its session is over: it may come back."""
        self._broker.partitions.on_topics_changed.discard(self._topics_changed)
        self._has_left = True
        tasks = self._joining, self._heartbeats
        self._joining = self._heartbeats = None
        try:
            await stopped(*tasks)
            if self._is_lost or self._fenced is not None:
                self._fenced = None
                await self._give_up_lost()
            else:
                await self._revoke(list(self._assigned))
        finally:
            if self._instance_id is None:
                self._broker.groups.leave_group(self._group, self._member_id)
            self._forget_member()
            self._assigned = []
            self._assign(())

    # A rebalance

    def _look_at_group(self) -> None:
        """Is this still a member? What it has is given up in another way if not."""
        if self._generation == NO_GENERATION or self._is_lost:
            return
        try:
            self._heartbeat()
        except RebalanceInProgressError:
            pass
        except FencedInstanceIdError as error:
            self._fenced = error
        except _MOVED_ON:
            self._is_lost = True

    async def _begin_to_join(self) -> None:
        await self._broker.groups.prepare()
        topics = self._selection.topics(self._broker.partitions)
        if self._assigning.is_cooperative:
            await self._revoke([each for each in self._assigned if each.topic not in topics])
        else:
            await self._revoke(list(self._assigned))
        if self._has_left:
            return  # the consumer was closed meanwhile
        self._topics = self._selection.topics(self._broker.partitions)  # others by now, perhaps
        self._must_join = False
        loop = asyncio.get_running_loop()
        self._joining = loop.create_task(self._join())
        self._joining.add_done_callback(lambda _: self._wake())
        if self._heartbeats is None:
            self._heartbeats = loop.create_task(self._keep_alive())

    async def _join(self) -> list[TopicPartition]:
        while True:
            with suppress(RebalanceInProgressError):  # another member came meanwhile
                return await self._join_once()

    async def _join_once(self) -> list[TopicPartition]:
        groups = self._broker.groups
        request = JoinRequest(
            self._member_id,
            self._config.client_id,
            self._config.session_timeout_ms,
            self._config.max_poll_interval_ms,
            CONSUMER,
            self._assigning.protocols(self._topics, self._assigned),
            self._instance_id,
        )
        joined = await groups.join_group(self._group, request, on_rebalance=self._rebalance_began)
        self._member_id, self._generation = joined.member_id, joined.generation
        assignments = {}
        if joined.members:
            assignments = self._assigning.share_out(joined, self._broker.partitions)
        synced = await groups.sync_group(
            self._group,
            self._member_id,
            joined.generation,
            assignments,
            group_instance_id=self._instance_id,
        )
        return decode_assignment(synced.assignment)

    async def _take_over(self, joining: asyncio.Task[list[TopicPartition]]) -> None:
        """The rebalance is over: what is assigned now?"""
        try:
            assigned = joining.result()
        except FencedInstanceIdError as error:
            self._fenced = error
            return
        except _MOVED_ON:
            self._is_lost = True
            return
        except LogError:
            self._must_join = True
            raise
        self.rebalances += 1
        before = set(self._assigned)
        revoked = sorted(before.difference(assigned))
        if revoked:
            self._must_join = True  # for another member to have them
            await self._revoke(revoked)
            if self._has_left:
                return  # the consumer was closed meanwhile
        self._assigned = assigned
        self._assigning.assigned(assigned, self._generation)
        self._assign(assigned)
        if self._listeners.on_assigned is not None:
            await self._listeners.on_assigned([each for each in assigned if each not in before])

    async def _revoke(self, revoked: list[TopicPartition]) -> None:
        """These go back; the rest stays."""
        if not revoked:
            return
        try:
            await self._before_revoke()
        except (*_MOVED_ON, FencedInstanceIdError, RebalanceInProgressError) as error:
            logger.warning("Positions not committed at the end of an assignment: %s", error)
        self._assigned = [each for each in self._assigned if each not in revoked]
        try:
            if self._listeners.on_revoked is not None:
                await self._listeners.on_revoked(revoked)
        finally:
            self._assign(self._assigned)

    async def _give_up_lost(self) -> None:
        """The group went on without this member: its partitions belong to others already, and so
        do those that a join was answered with which nobody has taken over yet."""
        joining, self._joining = self._joining, None
        await stopped(joining)
        self._is_lost = False
        self._forget_member()
        lost, self._assigned = self._assigned, []
        self._assign(())
        listener = self._listeners.on_lost or self._listeners.on_revoked
        if listener is not None and lost:
            await listener(lost)
        if self._fenced is not None:
            raise self._fenced

    def _forget_member(self) -> None:
        self._must_join = True
        self._member_id, self._generation = "", NO_GENERATION

    # What the group says between two polls

    def _rebalance_began(self) -> None:
        """The coordinator tells at once, without waiting for the next heartbeat. A join that is on
        its way hears of it by itself."""
        if self._joining is None or self._joining.done():
            self._must_join = True
            self._wake()

    def _topics_changed(self) -> None:
        """A topic was created or deleted. Who subscribed by pattern may read others now."""
        if self._selection.has_pattern:
            with suppress(UnknownTopicError):
                if self._selection.topics(self._broker.partitions) == self._topics:
                    return
            self._must_join = True
            self._wake()

    async def _keep_alive(self) -> None:
        """Heartbeats, until the owner stops polling or the group has gone on."""
        clock = self._broker.clock
        while True:
            await clock.sleep_ms(self._config.heartbeat_interval_ms)
            is_joining = self._joining is not None and not self._joining.done()
            if is_joining or self._is_lost or self._generation == NO_GENERATION:
                continue
            if clock.monotonic_ms() - self._last_poll_ms > self._config.max_poll_interval_ms:
                self._stop_for_lack_of_polls()
                continue
            try:
                self._heartbeat()
            except RebalanceInProgressError:
                self._rebalance_began()
            except FencedInstanceIdError as error:
                self._fenced = error
                self._wake()
            except _MOVED_ON:
                self._lose()

    def _heartbeat(self) -> None:
        self._broker.groups.heartbeat(
            self._group, self._member_id, self._generation, group_instance_id=self._instance_id
        )

    def _stop_for_lack_of_polls(self) -> None:
        logger.warning(
            "Group %s: no poll for max.poll.interval.ms=%d; member %s leaves. Poll more often, or "
            "raise it.",
            self._group,
            self._config.max_poll_interval_ms,
            self._member_id,
        )
        if self._instance_id is None:
            self._broker.groups.leave_group(self._group, self._member_id)
        self._lose()

    def _lose(self) -> None:
        self._is_lost = True
        self._wake()
