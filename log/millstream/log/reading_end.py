"""The end of what there is at one moment, for who reads up to there and then stops.

It is the high watermark, for readers of committed records, too: what a transaction holds back is
part of what there is, until it is decided. The last stable offset would leave out a transaction
that was committed just before, because Apache Kafka answers the commit first and writes its markers
then, and everything that others committed behind one that is open. The price is that an open
transaction is waited for. Its coordinator ends it, at the latest after the `transaction.timeout.ms`
of its producer (KIP-98). Kafka Connect reads its own topics in the same way (KIP-618).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Final, Self

from .interface import Log
from .record import TopicPartition

__all__ = ["ReadingEnd"]

_TELLS_AFTER_S: Final = 5.0
"""So long nothing may come before it is looked for a reason, and told."""

logger = logging.getLogger("millstream.log")


class ReadingEnd:
    """Where partitions are to be read to; `offsets` are exclusive."""

    def __init__(self, log: Log, offsets: Mapping[TopicPartition, int]) -> None:
        self._log = log
        self.offsets = offsets
        self._left: dict[TopicPartition, int] = {}
        self._moved_at: float | None = asyncio.get_running_loop().time()

    @classmethod
    async def now(cls, log: Log, partitions: Collection[TopicPartition]) -> Self:
        """The end that these partitions have at this moment, whoever wrote it."""
        return cls(log, await log.end_offsets(partitions, "read_uncommitted"))

    async def is_reached(self, positions: Mapping[TopicPartition, int]) -> bool:
        """Whether reading that stands at these positions is done; notices when it is not."""
        if all(positions.get(tp, 0) >= end for tp, end in self.offsets.items()):
            return True
        await self.notice(positions)
        return False

    async def notice(self, positions: Mapping[TopicPartition, int]) -> None:
        """Note how far reading is. Where it stands still because a transaction is open there, a
        log line says so."""
        left = {tp: at for tp, at in positions.items() if at < self.offsets.get(tp, at)}
        now = asyncio.get_running_loop().time()
        if left != self._left:
            self._left, self._moved_at = left, now
        elif left and self._moved_at is not None and now - self._moved_at >= _TELLS_AFTER_S:
            self._moved_at = None
            await self._tell(left)

    async def _tell(self, left: Mapping[TopicPartition, int]) -> None:
        stable = await self._log.end_offsets(left, "read_committed")
        for tp, at in left.items():
            if stable[tp] <= at:
                logger.warning(
                    "Partition %s: reading to its end, offset %d, waits at offset %d for a "
                    "transaction that is open there. It goes on when that is committed or "
                    "aborted, at the latest after the transaction.timeout.ms of its producer.",
                    tp,
                    self.offsets[tp],
                    at,
                )
