"""Fetches that found nothing to read wait here, and are woken at once when there is something."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from millstream.log.record import TopicPartition

__all__ = ["WaitingFetches"]


class WaitingFetches:
    """Who waits for which partition, in the order they came. One future may wait for many."""

    def __init__(self) -> None:
        self._by_partition: dict[TopicPartition, dict[asyncio.Future[None], None]] = {}

    def __len__(self) -> int:
        return len({future for futures in self._by_partition.values() for future in futures})

    def wake(self, topic_partition: TopicPartition) -> None:
        """The readable end of this partition moved, or the partition is gone."""
        for future in self._by_partition.pop(topic_partition, ()):
            if not future.done():
                future.set_result(None)

    def wake_all(self) -> None:
        """The log closes."""
        for topic_partition in list(self._by_partition):
            self.wake(topic_partition)

    async def wait(self, partitions: Collection[TopicPartition], timeout_s: float) -> bool:
        """Wait until one of the partitions is woken; False when the time ended first."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(timeout_s, _expire, future)
        for topic_partition in partitions:
            self._by_partition.setdefault(topic_partition, {})[future] = None
        try:
            await future
        except TimeoutError:
            return False
        finally:
            timer.cancel()
            self._forget(future, partitions)
        return True

    def _forget(self, future: asyncio.Future[None], partitions: Collection[TopicPartition]) -> None:
        for topic_partition in partitions:
            waiting = self._by_partition.get(topic_partition)
            if waiting is not None:
                waiting.pop(future, None)
                if not waiting:
                    del self._by_partition[topic_partition]


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
