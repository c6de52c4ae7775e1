"""How a consumer of a group commits its position by itself: every so often, and at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from millstream.log.client.offset_values import with_metadata
from millstream.log.errors import (
    FencedInstanceIdError,
    IllegalGenerationError,
    LogError,
    RebalanceInProgressError,
    UnknownMemberError,
)
from millstream.log.record import OffsetAndMetadata, TopicPartition

from .settings import KafkaConsumerConfig

__all__ = ["AutoCommit"]

logger = logging.getLogger("millstream.log")

_MOVED_ON = (
    IllegalGenerationError,
    UnknownMemberError,
    RebalanceInProgressError,
    FencedInstanceIdError,
)

Commit = Callable[[Mapping[TopicPartition, OffsetAndMetadata]], Awaitable[None]]
Position = Callable[[], dict[TopicPartition, int]]


class AutoCommit:
    """Commits of one consumer; none without a group, or when they are switched off."""

    def __init__(self, config: KafkaConsumerConfig, commit: Commit, group: str | None) -> None:
        self._is_automatic = group is not None and config.enable_auto_commit
        self._interval_s = config.auto_commit_interval_ms / 1000
        self._commit = commit
        self._group = group
        self._due_s = time.monotonic() + self._interval_s
        self._committed: dict[TopicPartition, int] = {}

    async def if_due(self, position: Position) -> None:
        """Every auto.commit.interval.ms. What fails is tried again by the next poll."""
        if not self._is_automatic or time.monotonic() < self._due_s:
            return
        try:
            await self._now(position())
        except LogError as error:
            if not (error.retriable or isinstance(error, _MOVED_ON)):
                raise
            logger.warning("Group %s: positions not committed: %s", self._group, error)
        else:
            self._due_s = time.monotonic() + self._interval_s

    async def at_end(self, position: Position) -> None:
        """Before partitions are given up, and on closing."""
        if not self._is_automatic:
            return
        try:
            await self._now(position())
        except _MOVED_ON as error:
            logger.warning("Group %s: positions not committed: %s", self._group, error)

    async def _now(self, position: dict[TopicPartition, int]) -> None:
        changed = {tp: at for tp, at in position.items() if self._committed.get(tp) != at}
        if changed:
            await self._commit(with_metadata(changed))
        self._committed = position
