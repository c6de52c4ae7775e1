"""What opening a log does with transactions: finish what was prepared, abort what was open.

No producer of this process outlives it, so nothing it left open can still end well. What is open is
looked for in the partitions themselves, because data may reach the disk before any record about it
does. A producer on the network is still there: what was logged of its transaction goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from millstream.log.clock import Clock
from millstream.log.record import TopicPartition

from .partitions import Partitions
from .transactions import EPOCH_MAX
from .txn_log import TransactionLog
from .txn_markers import TransactionMarkers
from .txn_records import TransactionMetadata, TransactionState

__all__ = ["TransactionRecovery"]


class Ends(Protocol):
    """What becomes of an open transaction; the coordinator's own steps."""

    async def abort(self, metadata: TransactionMetadata) -> tuple[int, int]: ...
    def resume(self, metadata: TransactionMetadata) -> None: ...


class TransactionRecovery:
    """Runs once, before the first producer comes."""

    def __init__(
        self,
        log: TransactionLog,
        partitions: Partitions,
        ends: Ends,
        markers: TransactionMarkers,
        clock: Clock,
    ) -> None:
        self._log = log
        self._partitions = partitions
        self._ends = ends
        self._markers = markers
        self._clock = clock

    async def run(self) -> None:
        """Read the state and end every transaction, but those that may go on.

        Raises:
            CorruptRecordError: names the partition and the offset.
            StorageError: the disk failed; opening again goes on.
        """
        self._log.load()
        open_now = self._open_transactions()
        for metadata in self._log.table:
            if metadata.is_prepared:
                await self._complete_prepared(metadata, open_now.get(metadata.producer_id, {}))
        open_now = self._open_transactions()
        seen = self._seen_epochs()
        for metadata in self._log.table:
            found = open_now.pop(metadata.producer_id, {})
            epoch = seen.get(metadata.producer_id, -1)
            if _may_go_on(metadata, found, epoch):
                self._ends.resume(metadata)
            elif found or metadata.state is TransactionState.ONGOING or epoch > metadata.epoch:
                await self._abort_found(metadata, found, epoch)
        for producer_id, found in open_now.items():
            epoch = min(max(found.values()) + 1, EPOCH_MAX)
            await self._markers.write(producer_id, epoch, set(found), commit=False)

    def _open_transactions(self) -> dict[int, dict[TopicPartition, int]]:
        """Producer id -> partition -> epoch, of every transaction open in a partition."""
        found: dict[int, dict[TopicPartition, int]] = {}
        for partition in self._partitions:
            for producer_id, epoch in partition.open_transactions().items():
                found.setdefault(producer_id, {})[partition.topic_partition] = epoch
        return found

    def _seen_epochs(self) -> dict[int, int]:
        """Producer id -> the highest epoch a partition has seen. It may be higher than the logged
        one: with durability="os" a power loss takes the newest records of each topic, not the same
        of all. A producer that came with the logged epoch would be refused for ever. Where it never
        was in a transaction, anybody may have written under its id with an epoch of his choice."""
        seen: dict[int, int] = {}
        for partition in self._partitions:
            for each in partition.describe_producers():
                is_open = each.current_transaction_start_offset is not None
                if not is_open and each.coordinator_epoch is None:
                    continue
                seen[each.producer_id] = max(each.producer_epoch, seen.get(each.producer_id, -1))
        return seen

    async def _complete_prepared(
        self, metadata: TransactionMetadata, found: dict[TopicPartition, int]
    ) -> None:
        """Roll forward. The markers carry `metadata.epoch`, the transaction's own plus one: what is
        open with that epoch already is the next transaction, before which the COMPLETE record was
        lost with the page cache. It must not get the last one's marker; a producer that keeps its
        epoch has announced its next transaction after that record, so none can be open. Nor must
        one that is older: with durability="os" a power loss may have taken the marker that aborted
        it."""
        producer_id, epoch = metadata.producer_id, metadata.epoch
        own_epoch = epoch if metadata.keeps_epoch else epoch - 1
        older = {each for each, open_epoch in found.items() if open_epoch < own_epoch}
        if older:
            await self._markers.write(producer_id, epoch, older, commit=False)
        missing = {each for each, open_epoch in found.items() if open_epoch == own_epoch}
        commit = metadata.state is TransactionState.PREPARE_COMMIT
        await self._markers.write(producer_id, epoch, missing, commit=commit)
        self._log.write(self._log.table.complete(metadata, self._clock.wall_ms()))

    async def _abort_found(
        self, metadata: TransactionMetadata, found: dict[TopicPartition, int], seen_epoch: int
    ) -> None:
        await self._ends.abort(
            metadata._replace(
                state=TransactionState.PREPARE_ABORT,
                epoch=min(max(metadata.epoch, seen_epoch, 0) + 1, EPOCH_MAX),
                partitions=metadata.partitions.union(found),
            )
        )


def _may_go_on(
    metadata: TransactionMetadata, found: Mapping[TopicPartition, int], seen_epoch: int
) -> bool:
    """Whether all that is open was logged, which it is of producers on the network only. What was
    acknowledged of it is on disk, and the rest its producer sends again. What is open with an older
    epoch lost its marker, see `_complete_prepared`: it must not end as this one does."""
    return (
        metadata.state is TransactionState.ONGOING
        and metadata.partitions.issuperset(found)
        and all(epoch == metadata.epoch for epoch in found.values())
        and seen_epoch <= metadata.epoch
    )
