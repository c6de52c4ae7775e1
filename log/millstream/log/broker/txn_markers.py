"""Markers: what tells the readers of a partition that a transaction ended, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from millstream.log.errors import UnknownTopicError
from millstream.log.record import TopicPartition
from millstream.log.storage.partition import Partition

from .partitions import Partitions

__all__ = ["TransactionEnded", "TransactionMarkers"]

COORDINATOR_EPOCH = 0
"""One node coordinates for ever; there is no second coordinator to fence."""

TransactionEnded = Callable[[int, bool], None]
"""Called with the producer id, and whether it committed, once the markers are durable."""


class TransactionMarkers:
    """Writes them to the partitions of one log."""

    def __init__(self, partitions: Partitions, on_ended: TransactionEnded) -> None:
        self._partitions = partitions
        self._on_ended = on_ended

    async def write(
        self, producer_id: int, epoch: int, partitions: Iterable[TopicPartition], *, commit: bool
    ) -> None:
        """End a producer's transaction in these partitions, durably.

        Raises:
            StorageError: the disk failed; some markers may be there.
        """
        written = []
        for topic_partition in sorted(partitions):
            try:
                self._partitions.append_marker(
                    topic_partition,
                    producer_id,
                    epoch,
                    commit=commit,
                    coordinator_epoch=COORDINATOR_EPOCH,
                )
            except UnknownTopicError:
                continue  # deleted while the transaction was open: its records are gone
            written.append(topic_partition)
        await self.flush(written)
        self._on_ended(producer_id, commit)

    async def flush(self, partitions: Iterable[TopicPartition]) -> None:
        """Have all that these partitions hold on the disk; those deleted meanwhile hold nothing.

        Raises:
            StorageError: the disk failed.
        """
        found: list[Partition] = []
        for topic_partition in sorted(partitions):
            with suppress(UnknownTopicError):
                found.append(self._partitions.partition(topic_partition))
        await self._partitions.flusher.flush(found)
