"""Deletes consumed records of repartition topics; nobody else reads them, and they would grow for
ever."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from millstream.log.interface import Log
from millstream.log.record import OffsetAndMetadata, TopicPartition

__all__ = ["RepartitionPurge"]

PURGE_INTERVAL_MS: Final = 30_000
"""As Kafka Streams' repartition.purge.interval.ms: deleting writes a checkpoint and removes
files."""


class RepartitionPurge:
    """Remembers how far repartition topics are consumed, and deletes that far now and then."""

    def __init__(self, log: Log, topics: Collection[str], now_ms: int) -> None:
        self._log = log
        self._topics = frozenset(topics)
        self._consumed: dict[TopicPartition, int] = {}
        self._purged_ms = now_ms

    def committed(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Note what a commit consumed. Never call it before the commit has succeeded."""
        if self._topics:
            for partition, offset in offsets.items():
                if partition.topic in self._topics:
                    self._consumed[partition] = offset.offset

    async def run_if_due(self, now_ms: int) -> None:
        """Delete when the interval is over."""
        if now_ms - self._purged_ms >= PURGE_INTERVAL_MS:
            await self.run(now_ms)

    async def run(self, now_ms: int) -> None:
        """Delete what was consumed since the last time."""
        self._purged_ms = now_ms
        if self._consumed:
            consumed, self._consumed = self._consumed, {}
            await self._log.delete_records(consumed)
