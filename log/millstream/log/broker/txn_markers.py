"""Markers: what tells the readers of a partition that a transaction ended, and how."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress

from millstream.log.errors import InvalidProducerEpochError, StorageError, UnknownTopicError
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
            except InvalidProducerEpochError:
                # Somebody wrote under this producer id with a higher epoch, which clients choose
                # themselves. That is refused while the transaction has records there, so it has
                # none; and it must not keep the other partitions from their markers.
                continue
            except StorageError as error:
                refused = error  # those who read the others need not wait for it
                continue
            written.append(topic_partition)
        await self.flush(written)
        if refused is not None:
            raise refused
        self._on_ended(producer_id, commit)

    async def flush(self, topic_partitions: Collection[TopicPartition]) -> None:
        """Wait until all that those which exist hold now is durable. Raises StorageError."""
        while True:
            try:
                return await self._partitions.flusher.flush(self.existing(topic_partitions))
            except UnknownTopicError:
                continue  # one was deleted meanwhile; the others may not be durable yet

    def existing(self, topic_partitions: Iterable[TopicPartition]) -> list[Partition]:
        """Those of them that were not deleted, in order."""
        found = []
        for topic_partition in sorted(topic_partitions):
            with suppress(UnknownTopicError):
                found.append(self._partitions.partition(topic_partition))
        return found
