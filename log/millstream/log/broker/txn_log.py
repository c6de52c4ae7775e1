"""The table of transactional ids and the topic that keeps it, `__transaction_state`, as one.

A step counts from the moment it is appended: the table and the topic never differ. What must be on
the disk before the next step is for the caller to wait for.
"""

from __future__ import annotations

from collections.abc import Sequence

from millstream.log.config import TRANSACTION_STATE, BrokerConfig
from millstream.log.record import TopicPartition

from .internal_topic import InternalTopic
from .partitions import Partitions
from .transactions import TransactionTable
from .txn_records import (
    TransactionMetadata,
    decode_key,
    decode_value,
    encode_key,
    encode_value,
)

__all__ = ["TransactionLog"]


class TransactionLog:
    """Every transactional id of a log, as it is written down."""

    def __init__(self, partitions: Partitions, config: BrokerConfig) -> None:
        self.table = TransactionTable(timeout_ms_max=config.transaction_max_timeout_ms)
        self._topic = InternalTopic(
            partitions,
            TRANSACTION_STATE,
            config.transaction_state_log_num_partitions,
            segment_bytes=config.transaction_state_log_segment_bytes,
        )

    async def create_if_missing(self) -> None:
        """Have the topic."""
        await self._topic.create_if_missing()

    def load(self) -> None:
        """Fill the table from what is on disk; nothing before the topic was made.

        Raises:
            CorruptRecordError: names the partition and the offset.
        """
        newest: dict[bytes | None, bytes | None] = {}
        for topic_partition in self._topic.load():
            for _, columns in self._topic.scan(topic_partition):
                newest.update(zip(columns.keys, columns.values, strict=True))
        for key, value in newest.items():
            transactional_id = decode_key(key or b"")
            if transactional_id is not None and value is not None:
                self.table.restore(decode_value(transactional_id, value))

    def partition_of(self, transactional_id: str) -> TopicPartition:
        """Where the steps of this id are written down."""
        return self._topic.partition_of(transactional_id)

    def write(self, metadata: TransactionMetadata) -> tuple[TopicPartition, int]:
        """Append a step; it counts from now on. Returns what must become durable.

        Raises:
            StorageError: nothing was written, the table is as it was.
        """
        where = self.partition_of(metadata.transactional_id)
        end = self._topic.append(
            where, [encode_key(metadata.transactional_id)], [encode_value(metadata)]
        )
        self.table.put(metadata)
        return where, end

    async def write_durably(self, metadata: TransactionMetadata) -> None:
        """`write`, and wait for the disk."""
        await self._topic.durable(*self.write(metadata))

    def forget(self, transactional_ids: Sequence[str]) -> None:
        """Append a tombstone for each; they are unknown from now on.

        Raises:
            StorageError: those whose tombstone was not written are kept.
        """
        by_partition: dict[TopicPartition, list[str]] = {}
        for each in transactional_ids:
            by_partition.setdefault(self.partition_of(each), []).append(each)
        for where, names in by_partition.items():
            self._topic.append(where, [encode_key(each) for each in names], [None] * len(names))
            for name in names:
                self.table.forget(name)
