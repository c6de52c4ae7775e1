"""How a consumer of a group commits its position: when asked, every so often, and at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from millstream.log.broker.broker import Broker
from millstream.log.errors import (
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberError,
)
from millstream.log.record import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

from .offset_values import with_metadata
from .settings import ConsumerConfig

__all__ = ["PositionCommits"]

logger = logging.getLogger("millstream.log")


class PositionCommits:
    """The commits of one consumer.

    Args:
        config: None without a group: nothing is committed by itself.
        member: who commits.
        position: what there is to commit.
        is_joining: whether a rebalance is on its way.
    """

    def __init__(
        self,
        broker: Broker,
        config: ConsumerConfig | None,
        *,
        member: Callable[[], ConsumerGroupMetadata],
        position: Callable[[], dict[TopicPartition, int]],
        is_joining: Callable[[], bool],
    ) -> None:
        self._broker = broker
        self._is_automatic = config is not None and config.enable_auto_commit
        self._interval_ms = config.auto_commit_interval_ms if config is not None else 0
        self._member = member
        self._position = position
        self._is_joining = is_joining
        self._due_ms = broker.clock.monotonic_ms() + self._interval_ms

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Commit these.

        Raises:
            RebalanceInProgressError: poll, then commit again.
            IllegalGenerationError, UnknownMemberError, FencedInstanceIdError: the group moved on.
        """
        if not offsets:
            return
        member = self._member()
        try:
            await self._broker.offsets.commit(member, offsets)
        except IllegalGenerationError as error:
            if not self._is_joining():
                raise
            raise RebalanceInProgressError(
                f"Group {member.group} is rebalancing. Poll, then commit again."
            ) from error

    async def commit_if_due(self) -> None:
        """Commit every auto.commit.interval.ms. What fails is tried again by the next poll."""
        now_ms = self._broker.clock.monotonic_ms()
        if not self._is_automatic or now_ms < self._due_ms:
            return
        try:
            await self._commit_position()
        except (RebalanceInProgressError, UnknownMemberError, IllegalGenerationError) as error:
            logger.warning("Positions not committed: %s", error)
        else:
            self._due_ms = now_ms + self._interval_ms

    async def commit_at_end(self) -> None:
        """Before partitions are given up, and on closing."""
        if self._is_automatic:
            await self._commit_position()

    async def _commit_position(self) -> None:
        """On the consumer's own account, so without what was deleted meanwhile."""
        topics = set(self._broker.partitions.topics())
        position = {each: at for each, at in self._position().items() if each.topic in topics}
        await self.commit(with_metadata(position))
