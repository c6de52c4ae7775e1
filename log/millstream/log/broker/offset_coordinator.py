"""Committed offsets at work: written to `__consumer_offsets`, within a transaction or not.

A committed offset counts when its record is durable; one committed in a transaction, when the
transaction's marker is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from millstream.log.config import BrokerConfig
from millstream.log.errors import ConfigError
from millstream.log.record import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

from .group_coordinator import GroupCoordinator
from .internal_topic import InternalTopic
from .offset_records import (
    OffsetKey,
    encode_group_key,
    encode_group_value,
    encode_offset_key,
    encode_offset_value,
)
from .offsets import OffsetLoader, OffsetTable
from .partitions import Partitions
from .txn_coordinator import TransactionCoordinator

if TYPE_CHECKING:
    from millstream.log.stats import OffsetsStats

__all__ = ["OffsetCoordinator"]

_SEQUENCES = 1 << 31


class OffsetCoordinator:
    """Committed offsets of all groups. One event loop owns it.

    Args:
        topic: `__consumer_offsets`.
    """

    def __init__(
        self,
        partitions: Partitions,
        topic: InternalTopic,
        groups: GroupCoordinator,
        transactions: TransactionCoordinator,
        config: BrokerConfig,
    ) -> None:
        self._partitions = partitions
        self._topic = topic
        self._groups = groups
        self._transactions = transactions
        self._config = config
        self._clock = partitions.clock
        self._offsets = OffsetTable()
        self._sequences: dict[tuple[int, TopicPartition], tuple[int, int]] = {}
        self._unstable: set[asyncio.Future[None]] = set()
        self._unapplied = 0  # records that are in the log and not yet in `_offsets`

    def load(self) -> None:
        """Read `__consumer_offsets`. Every transaction in it has ended.

        Raises:
            CorruptRecordError: names the partition and the offset.
        """
        for topic_partition in self._topic.load():
            loader = OffsetLoader()
            for header, columns in self._topic.scan(topic_partition):
                loader.add(header, columns)
            for name, record in loader.finish(self._offsets).items():
                self._groups.restore(name, record)

    async def commit(
        self, member: ConsumerGroupMetadata, offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        """Commit offsets; they count when they are durable, which is when this returns.

        Raises:
            UnknownMemberError, IllegalGenerationError, RebalanceInProgressError: the group moved
            on. UnknownTopicError, ConfigError: nothing was written.
        """
        self._check_commit(member, offsets, transactional=False)
        await self._topic.create_if_missing()
        await self._write_offsets(member.group, offsets)

    async def commit_in_transaction(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        member: ConsumerGroupMetadata,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
    ) -> None:
        """Commit offsets as part of a transaction: they count when it commits.

        Raises:
            ProducerFencedError, ConcurrentTransactionsError: as `TransactionCoordinator`.
            And as `commit`.
        """
        self._check_commit(member, offsets, transactional=True)
        await self._topic.create_if_missing()
        where = self._topic.partition_of(member.group)
        self._transactions.add_partitions(transactional_id, producer_id, epoch, (where,))
        known_epoch, sequence = self._sequences.get((producer_id, where), (epoch, 0))
        if known_epoch != epoch:
            sequence = 0
        keys, values = self._encode(member.group, offsets)
        end = self._topic.append(
            where, keys, values, producer_id=producer_id, epoch=epoch, sequence=sequence
        )
        self._sequences[producer_id, where] = (epoch, (sequence + len(keys)) % _SEQUENCES)
        self._offsets.add_pending(producer_id, member.group, offsets, end)

    def transaction_ended(self, producer_id: int, *, commit: bool) -> None:
        """The markers are durable: offsets of this transaction count, or are forgotten."""
        self._offsets.end_transaction(producer_id, commit=commit)
        for key in [each for each in self._sequences if each[0] == producer_id]:
            del self._sequences[key]
        waiting, self._unstable = self._unstable, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def fetch(
        self, group: str, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """What the group committed. Waits while a transaction that has not ended holds one of them:
        who took over the partition must not begin before what its former owner is committing."""
        while any(self._offsets.is_pending(group, each) for each in partitions):
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._unstable.add(ended)
            try:
                await ended
            finally:
                self._unstable.discard(ended)
        return {each: self._offsets.get(group, each) for each in partitions}

    def of_group(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """Everything the group committed."""
        return self._offsets.of_group(group)

    def rows(self) -> Iterator[tuple[OffsetKey, OffsetAndMetadata]]:
        """Every committed offset of every group."""
        return self._offsets.rows()

    def stats(self) -> OffsetsStats:
        """Where committed offsets stand."""
        from millstream.log.stats import OffsetsStats  # when it is used

        rows = list(self._offsets.rows())
        return OffsetsStats(len({key.group for key, _ in rows}), len(rows), self._offsets.pending)

    async def alter(self, group: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        """Set offsets of a group without members. Raises GroupNotEmptyError."""
        self._groups.check_empty(group)
        await self.commit(ConsumerGroupMetadata(group), offsets)

    async def delete_group(self, group: str) -> None:
        """Forget a group and its offsets. Raises GroupNotEmptyError."""
        self._groups.check_empty(group)
        with_group = self._groups.forget(group)
        keys = [OffsetKey(group, each) for each in self._offsets.of_group(group)]
        if with_group or keys:
            await self._forget(group, keys, with_group=with_group)

    async def forget_topic(self, topic: str) -> None:
        """The topic is gone, and with it what was committed for it: a topic of the same name made
        later has other records at those offsets."""
        by_group: dict[str, list[OffsetKey]] = {}
        for key in self._offsets.of_topic(topic):
            by_group.setdefault(key.group, []).append(key)
        for group, keys in by_group.items():
            await self._forget(group, keys, with_group=False)

    async def shrink(self) -> None:
        """Write the state anew where its records have grown, and drop them; not while an offset is
        on its way: its record would be older than the state, and count less."""
        for where in self._topic.grown(self._config.internal_topic_snapshot_bytes):
            if self._unapplied or self._offsets.has_pending:
                return
            now_ms = self._clock.wall_ms()
            rows = {
                encode_offset_key(*key): encode_offset_value(value, now_ms)
                for key, value in self._offsets.rows()
                if self._topic.partition_of(key.group) == where
            }
            for group in self._groups:
                if self._topic.partition_of(group.name) == where:
                    record = self._groups.record_of(group)
                    rows[encode_group_key(group.name)] = encode_group_value(record)
            await self._topic.replace_state(where, list(rows), list(rows.values()))

    def _check_commit(
        self,
        member: ConsumerGroupMetadata,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        *,
        transactional: bool,
    ) -> None:
        self._groups.check_commit(member, transactional=transactional)
        size_bytes_max = self._config.offset_metadata_max_bytes
        for topic_partition, offset in offsets.items():
            self._partitions.partition(topic_partition)
            if offset.offset < 0 or len(offset.metadata.encode()) > size_bytes_max:
                raise ConfigError(
                    f"Group {member.group}, partition {topic_partition}: offset {offset.offset} "
                    f"with a note of {len(offset.metadata)} characters. An offset is 0 or more, a "
                    f"note at most offset.metadata.max.bytes={size_bytes_max} bytes."
                )

    def _encode(
        self, group: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> tuple[list[bytes], list[bytes]]:
        now_ms = self._clock.wall_ms()
        keys = [encode_offset_key(group, each) for each in offsets]
        return keys, [encode_offset_value(offset, now_ms) for offset in offsets.values()]

    async def _write_offsets(
        self, group: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        if not offsets:
            return
        where = self._topic.partition_of(group)
        end = self._topic.append(where, *self._encode(group, offsets))
        await self._then(where, end, lambda: self._offsets.commit(group, offsets, end))

    async def _forget(self, group: str, keys: list[OffsetKey], *, with_group: bool) -> None:
        await self._topic.create_if_missing()
        where = self._topic.partition_of(group)
        raw = [encode_offset_key(*key) for key in keys]
        if with_group:
            raw.append(encode_group_key(group))
        end = self._topic.append(where, raw, [None] * len(raw))
        await self._then(where, end, lambda: self._offsets.remove(keys))

    async def _then(self, where: TopicPartition, end: int, apply: Callable[[], None]) -> None:
        """When the records are durable they count, whether or not the caller still waits."""
        durable = self._topic.durable(where, end)
        self._unapplied += 1

        def written(future: asyncio.Future[None]) -> None:
            self._unapplied -= 1
            if not future.cancelled() and future.exception() is None:
                apply()

        durable.add_done_callback(written)
        await asyncio.shield(durable)
