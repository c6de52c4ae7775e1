"""Committed offsets at work: written to `__consumer_offsets`, within a transaction or not.

A committed offset counts when its record is durable; one committed in a transaction, when the
transaction's marker is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from millstream.log.config import BrokerConfig
from millstream.log.errors import (
    ConfigError,
    GroupNotEmptyError,
    GroupSubscribedToTopicError,
    LogError,
    UnstableOffsetCommitError,
)
from millstream.log.events import event
from millstream.log.record import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition
from millstream.log.settings import LONG_MAX

from .group_coordinator import GroupCoordinator
from .group_fencing import no_group
from .group_values import CONSUMER, GroupState
from .internal_topic import InternalTopic
from .offset_expiry import expired_of_modern, expired_offsets, subscribed_topics
from .offset_records import (
    OffsetKey,
    encode_offset_key,
    encode_offset_value,
)
from .offsets import OffsetLoader, OffsetTable
from .partitions import Partitions
from .primitives import check_string
from .txn_coordinator import TransactionCoordinator

if TYPE_CHECKING:
    from millstream.log.stats import OffsetsStats

__all__ = ["OffsetCoordinator"]


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
        self._unstable: set[asyncio.Future[None]] = set()
        self._expiry_due_ms = (
            self._clock.monotonic_ms() + config.offsets_retention_check_interval_ms
        )

    def load(self) -> None:
        """Read `__consumer_offsets`. Every transaction in it that may not go on has ended.

        Raises:
            CorruptRecordError: names the partition and the offset.
        """
        for topic_partition in self._topic.load():
            loader = OffsetLoader()
            for header, columns in self._topic.scan(topic_partition):
                loader.add(header, columns)
            for name, record in loader.finish(self._offsets).items():
                self._groups.restore(name, record)
            for name, rows in loader.modern.items():
                self._groups.modern.restore(name, rows)

    async def commit(
        self, member: ConsumerGroupMetadata, offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        """Commit offsets; they count when they are durable, which is when this returns.

        Raises:
            UnknownMemberError, IllegalGenerationError, RebalanceInProgressError: the group moved
            on. UnknownTopicError, ConfigError: nothing was written.
        """
        await self._topic.create_if_missing()
        self._check_commit(member, offsets, transactional=False)
        await self._write_offsets(member.group, offsets)

    async def announce(
        self, transactional_id: str, producer_id: int, epoch: int, group: str
    ) -> None:
        """Offsets of this group are about to be committed in the transaction. Raises as
        `TransactionCoordinator.announce_partitions`."""
        await self._topic.create_if_missing()
        where = self._topic.partition_of(group)
        await self._transactions.announce_partitions(transactional_id, producer_id, epoch, (where,))

    async def commit_in_transaction(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        member: ConsumerGroupMetadata,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        *,
        version: int | None = None,
    ) -> None:
        """Commit offsets as part of a transaction: they count when it commits. Those of a producer
        on the network, which has a `version`, are durable when this returns: its transaction
        outlives this process.

        Raises:
            ProducerFencedError, ConcurrentTransactionsError: as `TransactionCoordinator`.
            And as `commit`.
        """
        await self._topic.create_if_missing()
        self._check_commit(member, offsets, transactional=True)
        if not offsets:
            return
        where = self._topic.partition_of(member.group)
        logged = self._transactions.add_partitions(
            transactional_id, producer_id, epoch, (where,), version=version
        )
        sequence = self._partitions.partition(where).next_sequence(producer_id, epoch)
        keys, values = self._encode(member.group, offsets)
        end = self._topic.append(
            where, keys, values, producer_id=producer_id, epoch=epoch, sequence=sequence
        )
        now_ms = self._clock.wall_ms()
        self._offsets.add_pending(producer_id, member.group, offsets, end, now_ms)
        if logged is not None:
            await self._topic.durable(*logged)
        if version is not None:
            await self._topic.durable(where, end)

    def transaction_ended(self, producer_id: int, *, commit: bool) -> None:
        """The markers are durable: offsets of this transaction count, or are forgotten."""
        self._offsets.end_transaction(producer_id, commit=commit)
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

    def committed(
        self, group: str, partitions: Iterable[TopicPartition] | None, *, stable: bool
    ) -> dict[TopicPartition, OffsetAndMetadata | UnstableOffsetCommitError | None]:
        """What the group committed for these partitions, all of them for None, at once.

        Args:
            stable: an error where a transaction that has not ended holds an offset (KIP-447).
        """
        wanted = self._everything_of(group) if partitions is None else partitions
        return {
            each: _unstable(group, each)
            if stable and self._offsets.is_pending(group, each)
            else self._offsets.get(group, each)
            for each in wanted
        }

    def of_group(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """Everything the group committed."""
        return self._offsets.of_group(group)

    def rows(self) -> Iterator[tuple[OffsetKey, OffsetAndMetadata]]:
        """Every committed offset of every group."""
        return ((key, row.value) for key, row in self._offsets.rows())

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
        await self._topic.create_if_missing()
        self._groups.check_empty(group)
        await self._forget([(group, self._everything_of(group))], whole={group})

    async def delete_offsets(self, group: str, partitions: Collection[TopicPartition]) -> None:
        """Forget what a group committed for these partitions; see `Log.delete_group_offsets`."""
        known, modern = self._groups.get(group), self._groups.modern.get(group)
        if known is None and modern is None and not self._offsets.of_group(group):
            raise no_group(group)
        if modern is not None:
            topics = modern.subscribed_topics() if modern.knows_topics else None
            _check_unread(group, topics, partitions)
        if known is not None and known.members:
            if known.protocol_type != CONSUMER:
                raise GroupNotEmptyError(
                    f"Group {group} has {len(known.members)} members. Close them first."
                )
            _check_unread(group, subscribed_topics(known), partitions)
        await self._topic.create_if_missing()
        known_partitions = self._everything_of(group).intersection(partitions)
        await self._forget([(group, known_partitions)])

    def _everything_of(self, group: str) -> set[TopicPartition]:
        return self._offsets.undecided_of(group).union(self._offsets.of_group(group))

    # Growing old

    def next_deadline_ms(self) -> int:
        """Monotonic time at which `expire` has something to do."""
        return self._expiry_due_ms

    async def expire(self, now_ms: int) -> None:
        """Every offsets.retention.check.interval.ms: forget offsets that are too old, and empty
        groups that have none. Raises StorageError."""
        if now_ms < self._expiry_due_ms:
            return
        self._expiry_due_ms = now_ms + self._config.offsets_retention_check_interval_ms
        wall_ms = self._clock.wall_ms()
        retention_ms = self._config.offsets_retention_minutes * 60_000
        gone: list[tuple[str, set[TopicPartition]]] = []
        whole: set[str] = set()
        names = {*self._offsets.groups(), *(each.name for each in self._groups)}
        names.update(each.name for each in self._groups.modern)
        for name in sorted(names):
            group, times = self._groups.get(name), self._offsets.times(name)
            modern = self._groups.modern.get(name)
            undecided = self._offsets.undecided_of(name)
            if modern is not None:
                expired = expired_of_modern(modern, times, wall_ms, retention_ms)
                is_empty = not modern.members
            else:
                expired = expired_offsets(group, times, wall_ms, retention_ms)
                is_empty = (
                    group is not None and group.state is GroupState.EMPTY and not group.size()
                )
            old = set(expired) - undecided
            with_group = is_empty and not undecided and len(old) == len(times)
            if old or with_group:
                gone.append((name, old))
                whole |= {name} if with_group else set()
                event("group offsets expired", group=name, offsets=len(old), group_too=with_group)
        await self._forget(gone, whole=whole)

    async def forget_topic(self, topic: str) -> None:
        """The topic is gone, and with it what was committed for it: a topic of the same name made
        later has other records at those offsets."""
        by_group: dict[str, set[TopicPartition]] = {}
        for group, topic_partition in self._offsets.of_topic(topic):
            by_group.setdefault(group, set()).add(topic_partition)
        await self._forget(by_group.items())

    async def forget_lost_topics(self) -> None:
        """Finish what a crash in the middle of a topic's deletion left undone."""
        for topic in sorted(self._offsets.topics().difference(self._partitions.topics())):
            await self.forget_topic(topic)

    def _check_commit(
        self,
        member: ConsumerGroupMetadata,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        *,
        transactional: bool,
    ) -> None:
        check_string("Group", member.group)
        self._groups.check_commit(member, transactional=transactional)
        size_bytes_max = self._config.offset_metadata_max_bytes
        for topic_partition, offset in offsets.items():
            self._partitions.partition(topic_partition)
            check_string("Note on an offset", offset.metadata)
            is_offset = 0 <= offset.offset <= LONG_MAX
            if not is_offset or len(offset.metadata.encode()) > size_bytes_max:
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
        now_ms = self._clock.wall_ms()
        partitions = list(offsets)
        self._offsets.begin_commit(group, partitions)

        def count() -> None:
            self._offsets.end_commit(group, partitions)
            self._offsets.commit(group, offsets, end, now_ms)

        await asyncio.shield(self._then(where, end, count))

    async def _forget(
        self, gone: Iterable[tuple[str, set[TopicPartition]]], *, whole: Collection[str] = ()
    ) -> None:
        """Write tombstones: (group, its partitions), and of groups that are forgotten as a
        `whole`. What cannot be written is not forgotten."""
        by_place: dict[TopicPartition, tuple[list[bytes], list[OffsetKey], list[str]]] = {}
        for group, partitions in gone:
            raw, keys, groups = by_place.setdefault(self._topic.partition_of(group), ([], [], []))
            for each in sorted(partitions):
                raw.append(encode_offset_key(group, each))
                keys.append(OffsetKey(group, each))
            if group in whole:
                raw += self._groups.keys_of(group)
                groups.append(group)
        failed: LogError | None = None
        written = []  # all at once: who waits may make the topic again, and commit
        for where, (raw, keys, groups) in by_place.items():
            try:
                end = self._topic.append(where, raw, [None] * len(raw)) if raw else None
            except LogError as error:
                failed = error
                continue
            for group in groups:
                self._groups.forget(group)
            if end is not None:
                remove = partial(self._offsets.remove, keys, end)
                written.append(self._then(where, end, remove))
        for durable in written:
            await asyncio.shield(durable)
        if failed is not None:
            raise failed

    def _then(
        self, where: TopicPartition, end: int, apply: Callable[[], None]
    ) -> asyncio.Future[None]:
        """When the records are durable they count, whether or not somebody waits for it; at once
        where an acknowledgement does not wait for the disk."""
        durable = self._topic.durable(where, end)

        def ended(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and future.exception() is None:
                apply()

        if durable.done():
            ended(durable)
        else:
            durable.add_done_callback(ended)
        return durable


def _check_unread(
    group: str, topics: Collection[str] | None, partitions: Iterable[TopicPartition]
) -> None:
    for each in partitions:
        if topics is None or each.topic in topics:
            raise GroupSubscribedToTopicError(
                f"Group {group}: members read topic {each.topic}. Close them, or subscribe "
                "them to others, first."
            )


def _unstable(group: str, topic_partition: TopicPartition) -> UnstableOffsetCommitError:
    return UnstableOffsetCommitError(
        f"Group {group}: a transaction that has not ended holds an offset of {topic_partition}; "
        "try again."
    )
