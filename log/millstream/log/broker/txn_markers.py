"""Markers: what tells the readers of a partition that a transaction ended, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from millstream.log.errors import StorageError, UnknownTopicError
from millstream.log.record import TopicPartition

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
            StorageError: the disk failed; the markers it did not refuse are there.
        """
        written: list[TopicPartition] = []
        refused: StorageError | None = None
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
            except StorageError as error:
                refused = error  # those who read the others need not wait for it
                continue
            written.append(topic_partition)
        await self._partitions.flush_existing(written)
        if refused is not None:
            raise refused
        self._on_ended(producer_id, commit)
