"""The group coordinator at work: answers members when their group is ready, logs their offsets.

Groups live as long as the process: their members do. Offsets, and the generation a group reached,
are in `__consumer_offsets`, so that a generation never comes twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from millstream.log.config import CONSUMER_OFFSETS, BrokerConfig
from millstream.log.errors import ConfigError, GroupNotEmptyError, LogError, UnknownMemberError
from millstream.log.record import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

from .groups import Group, JoinRequest, JoinResult, SyncResult
from .internal_topic import InternalTopic
from .offset_records import (
    GroupRecord,
    MemberRecord,
    OffsetKey,
    encode_group_key,
    encode_group_value,
    encode_offset_key,
    encode_offset_value,
)
from .offsets import OffsetLoader, OffsetTable
from .partitions import Partitions
from .txn_coordinator import TransactionCoordinator

__all__ = ["GroupCoordinator"]

_SEQUENCES = 1 << 31


class GroupCoordinator:
    """Groups and their offsets. One event loop owns it."""

    def __init__(
        self,
        partitions: Partitions,
        transactions: TransactionCoordinator,
        config: BrokerConfig,
        *,
        on_deadline: Callable[[int], None],
    ) -> None:
        self._partitions = partitions
        self._transactions = transactions
        self._config = config
        self._clock = partitions.clock
        self._on_deadline = on_deadline
        self._topic = InternalTopic(
            partitions, CONSUMER_OFFSETS, config.offsets_topic_num_partitions
        )
        self._offsets = OffsetTable()
        self._groups: dict[str, Group] = {}
        self._waiting: dict[str, asyncio.Future[JoinResult | SyncResult]] = {}  # by member id
        self._on_rebalance: dict[str, Callable[[], None]] = {}  # by member id
        self._sequences: dict[tuple[int, TopicPartition], tuple[int, int]] = {}
        self._unstable: set[asyncio.Future[None]] = set()

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
                self._groups[name] = self._new_group(name, record.generation)

    # Membership

    async def join_group(
        self, name: str, request: JoinRequest, *, on_rebalance: Callable[[], None] | None = None
    ) -> JoinResult:
        """Join, and wait for the new generation.

        `on_rebalance` is called when the member should join again; one on the network learns it
        from its next heartbeat.

        Raises:
            UnknownMemberError: the session ended while waiting.
            ConfigError: session.timeout.ms or the assignors do not suit.
        """
        low, high = (
            self._config.group_min_session_timeout_ms,
            self._config.group_max_session_timeout_ms,
        )
        if not low <= request.session_timeout_ms <= high:
            raise ConfigError(
                f"session.timeout.ms is {request.session_timeout_ms}; it can be "
                f"group.min.session.timeout.ms={low} to group.max.session.timeout.ms={high}."
            )
        await self._topic.create_if_missing()
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = self._new_group(name, 0)
        if len(group.members) >= self._config.group_max_size and (
            request.member_id not in group.members
        ):
            raise ConfigError(
                f"Group {name} has group.max.size={self._config.group_max_size} members already."
            )
        if on_rebalance is not None:
            self._on_rebalance[request.member_id] = on_rebalance
        group.join(request, self._clock.monotonic_ms())
        result = await self._reply(group, request.member_id)
        assert isinstance(result, JoinResult)
        return result

    async def sync_group(
        self, name: str, member_id: str, generation: int, assignments: Mapping[str, bytes]
    ) -> SyncResult:
        """Wait for the assignment; the leader brings everybody's.

        Raises:
            UnknownMemberError, IllegalGenerationError, RebalanceInProgressError: join again.
        """
        group = self._group_of(name, member_id)
        if group.sync(member_id, generation, assignments, self._clock.monotonic_ms()):
            self._write_group(group)
        result = await self._reply(group, member_id)
        assert isinstance(result, SyncResult)
        return result

    def heartbeat(self, name: str, member_id: str, generation: int) -> None:
        """The member is alive. Raises as `sync_group`."""
        group = self._group_of(name, member_id)
        group.heartbeat(member_id, generation, self._clock.monotonic_ms())

    def leave_group(self, name: str, member_id: str) -> None:
        """The member goes; the others rebalance at once."""
        self._on_rebalance.pop(member_id, None)
        group = self._groups.get(name)
        if group is not None:
            group.leave(member_id, self._clock.monotonic_ms())
            self._deliver(group)

    def let_time_pass(self, now_ms: int) -> None:
        """End the sessions of silent members, and rebalances that waited long enough."""
        for group in self._groups.values():
            group.let_time_pass(now_ms)
            self._deliver(group)

    def next_deadline_ms(self) -> int | None:
        """Monotonic time at which `let_time_pass` has something to do."""
        deadlines = [group.next_deadline_ms() for group in self._groups.values()]
        return min((each for each in deadlines if each is not None), default=None)

    # Offsets

    async def offset_commit(
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

    async def txn_offset_commit(
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
            And as `offset_commit`.
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

    async def offset_fetch(
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

    def offsets_of(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """Everything the group committed."""
        return self._offsets.of_group(group)

    async def alter_offsets(
        self, group: str, offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        """Set offsets of a group without members. Raises GroupNotEmptyError."""
        self._check_empty(group)
        await self.offset_commit(ConsumerGroupMetadata(group), offsets)

    async def delete_group(self, group: str) -> None:
        """Forget a group and its offsets. Raises GroupNotEmptyError."""
        self._check_empty(group)
        known = self._groups.pop(group, None)
        if known is not None:
            known.delete()
        keys = [OffsetKey(group, each) for each in self._offsets.of_group(group)]
        if known is not None or keys:
            await self._forget(group, keys, with_group=known is not None)

    async def forget_topic(self, topic: str) -> None:
        """The topic is gone, and with it what was committed for it: a topic of the same name made
        later has other records at those offsets."""
        by_group: dict[str, list[OffsetKey]] = {}
        for key in self._offsets.of_topic(topic):
            by_group.setdefault(key.group, []).append(key)
        for group, keys in by_group.items():
            await self._forget(group, keys, with_group=False)

    # Steps

    def _new_group(self, name: str, generation: int) -> Group:
        delay_ms = self._config.group_initial_rebalance_delay_ms
        return Group(name, initial_delay_ms=delay_ms, generation=generation)

    def _group_of(self, name: str, member_id: str) -> Group:
        group = self._groups.get(name)
        if group is None:
            raise UnknownMemberError(
                f"Group {name} has no member {member_id!r}: the group was deleted. Join again."
            )
        return group

    def _check_empty(self, name: str) -> None:
        group = self._groups.get(name)
        if group is not None and group.members:
            raise GroupNotEmptyError(
                f"Group {name} has {len(group.members)} members. Close its consumers first."
            )

    def _check_commit(
        self,
        member: ConsumerGroupMetadata,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        *,
        transactional: bool,
    ) -> None:
        group = self._groups.get(member.group)
        if group is None and (member.member_id or member.generation >= 0):
            raise UnknownMemberError(
                f"Group {member.group} has no member {member.member_id!r}; join again."
            )
        if group is not None:
            now_ms = self._clock.monotonic_ms()
            group.check_commit(
                member.member_id, member.generation, now_ms, transactional=transactional
            )
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

        def written(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and future.exception() is None:
                apply()

        durable.add_done_callback(written)
        await asyncio.shield(durable)

    def _write_group(self, group: Group) -> None:
        """Its fsync rides along with the next commit: it only keeps generations from repeating."""
        members = [
            MemberRecord(
                each.member_id,
                None,
                each.request.client_id,
                "",
                each.request.rebalance_timeout_ms,
                each.request.session_timeout_ms,
                dict(each.request.protocols).get(group.protocol or "", b""),
                each.assignment,
            )
            for each in group.members.values()
        ]
        record = GroupRecord(
            group.protocol_type,
            group.generation,
            group.protocol,
            group.leader,
            self._clock.wall_ms(),
            members,
        )
        where = self._topic.partition_of(group.name)
        self._topic.append(where, [encode_group_key(group.name)], [encode_group_value(record)])

    async def _reply(self, group: Group, member_id: str) -> JoinResult | SyncResult:
        """Wait for the answer to this member. One that stops waiting leaves the group alone: its
        session ends in time, unless it comes back."""
        future: asyncio.Future[JoinResult | SyncResult]
        future = asyncio.get_running_loop().create_future()
        older = self._waiting.get(member_id)
        if older is not None and not older.done():
            older.cancel()
        self._waiting[member_id] = future
        self._deliver(group)
        try:
            return await future
        finally:
            if self._waiting.get(member_id) is future:
                del self._waiting[member_id]

    def _deliver(self, group: Group) -> None:
        for reply in group.take_replies():
            future = self._waiting.get(reply.member_id)
            if future is None or future.done():
                continue
            if isinstance(reply.result, LogError):
                future.set_exception(reply.result)
            else:
                future.set_result(reply.result)
        for member_id in group.members_to_call():
            if member_id in self._on_rebalance:
                self._on_rebalance[member_id]()
        deadline_ms = group.next_deadline_ms()
        if deadline_ms is not None:
            self._on_deadline(deadline_ms)
