"""The consumer on a cluster: polls, positions, commits and the listeners of rebalances.

librdkafka is asked in a thread of its own (`reader.py`). A fetch runs there while a poll waits; if
the poll is cancelled, the fetch goes on, and the next poll has what it brings. A consumer has one
owner. Everything that changes its assignment happens inside a poll, or in `close`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from functools import partial
from re import Pattern
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID

from millstream.log.client.offset_values import with_metadata
from millstream.log.errors import ConfigError, LogClosedError
from millstream.log.interface import Isolation, OffsetReset, RebalanceListener
from millstream.log.record import (
    ConsumerGroupMetadata,
    OffsetAndMetadata,
    Record,
    RecordBatch,
    TopicPartition,
)

from .auto_commit import AutoCommit
from .consumer_calls import ConsumerCalls
from .fetched_records import FetchedRecords
from .kafka_admin import KafkaAdmin
from .named_places import NamedPlaces
from .own_thread import OwnThread
from .reader import Reader
from .rebalance import Rebalance
from .settings import KafkaConsumerConfig
from .topic_selection import TopicSelection

__all__ = ["KafkaConsumer"]

LOOKS_FOR_REBALANCES_S: Final = 0.5
"""How often a poll asks librdkafka although records wait."""
_RECORDS_AT_ONCE: Final = 10_000


class _Listeners(NamedTuple):
    on_assigned: RebalanceListener | None = None
    on_revoked: RebalanceListener | None = None
    on_lost: RebalanceListener | None = None


class KafkaConsumer:
    """Implements `Consumer` on a cluster; see there for what the calls mean."""

    def __init__(
        self,
        connection: Mapping[str, Any],
        admin: KafkaAdmin,
        topics: Collection[str],
        *,
        group: str | None,
        auto_offset_reset: OffsetReset,
        isolation: Isolation,
        config: KafkaConsumerConfig,
        on_close: Callable[[KafkaConsumer], None],
    ) -> None:
        self._admin = admin
        self._places = NamedPlaces(admin, isolation, auto_offset_reset)
        self._group = group
        self._reset: OffsetReset = auto_offset_reset
        self._config = config
        self._on_close = on_close
        self._thread = OwnThread("millstream-kafka-consumer")
        self._calls = ConsumerCalls(self._thread, self._rebalanced)
        self._reader = self._calls.reader = Reader(
            {
                **connection,
                **config.for_librdkafka(),
                "group.id": group if group is not None else "millstream-no-group",
                "auto.offset.reset": "error" if auto_offset_reset == "none" else auto_offset_reset,
                "isolation.level": isolation,
            },
            self._thread,
            self._calls.tell,
            admin.recent,
            group=group,
            is_cooperative=config.is_cooperative,
            fetch_bytes=min(config.fetch_max_bytes, 4 * config.max_partition_fetch_bytes),
        )
        self._records = FetchedRecords()
        self._assignment: set[TopicPartition] = set()
        self._change: Rebalance | None = None  # whose partitions are not read yet
        self._sought: dict[TopicPartition, int] = {}
        self._listeners = _Listeners()
        self._selection: TopicSelection | None = None
        self._member = ConsumerGroupMetadata(group) if group is not None else None
        self._commits = AutoCommit(config, self._commit_now, group)
        self._max_age_ms = int(connection["metadata.max.age.ms"])
        self._asked_at = 0.0  # when librdkafka was, by the loop's clock
        self._closed = False
        if topics:
            self._selection = TopicSelection(topics, None, group, self._max_age_ms)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def records_returned(self) -> int:
        """So far."""
        return self._records.returned

    # Reading

    async def __aiter__(self) -> AsyncIterator[Record]:
        """Records one by one, for ever. The position moves with each, so that a commit in the body
        of the loop covers what the loop has seen, and no more."""
        while True:
            await self._fill(self._config.max_poll_interval_ms // 2)
            until = self._asked_at + LOOKS_FOR_REBALANCES_S
            loop = asyncio.get_running_loop()
            while taken := self._records.take_records(1):
                yield taken[0]
                if loop.time() >= until:
                    break

    async def poll(self, timeout_ms: int = 1000, max_records: int | None = None) -> list[Record]:
        """Up to `max_records` records (`max.poll.records`, 500); see `Consumer.poll`."""
        await self._fill(timeout_ms)
        return self._records.take_records(max_records or self._config.max_poll_records)

    async def poll_batches(self, timeout_ms: int = 1000) -> list[RecordBatch]:
        """What can be read now, in columns; see `Consumer.poll_batches`."""
        await self._fill(timeout_ms)
        return self._records.take_batches()

    async def _fill(self, timeout_ms: int) -> None:
        """Have something fetched, or let the time pass."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_ms / 1000
        self._check_open()
        await self._commits.if_due(self.position)
        if self._selection is not None:
            await self._select(self._selection)
        if self._records.has_some:
            if loop.time() - self._asked_at >= LOOKS_FOR_REBALANCES_S:
                await self._fetch(0.0, 1)
            else:
                await asyncio.sleep(0)
            if self._records.has_some:
                return
        while True:
            self._check_open()  # still
            await self._fetch(max(0.0, end - loop.time()), _RECORDS_AT_ONCE)
            if self._records.has_some or loop.time() >= end:
                return

    async def _fetch(self, timeout_s: float, limit: int) -> None:
        fetched = await self._calls.fetch(timeout_s, self._records.paused, limit)
        current = {tp for tp in self._assignment if self._sought.get(tp, 0) <= fetched.seeks}
        self._records.add(
            [each for each in fetched.batches if (each.topic, each.partition) in current],
            {tp: at for tp, at in fetched.positions.items() if tp in current},
        )
        self._know(fetched.member)
        self._asked_at = asyncio.get_running_loop().time()
        for error in fetched.errors:
            raise error

    # A rebalance

    def _know(self, member: ConsumerGroupMetadata | None) -> None:
        """Who this consumer is. Put out of the group it is nobody, and what nobody commits in a
        transaction the group does not check: then it stays who it was, who is refused."""
        if member is not None and member.member_id and member.generation >= 0:
            self._member = member

    async def _rebalanced(self, change: Rebalance) -> None:
        self._know(change.member)
        if change.kind == "assigned":
            self._change = change
            self._reads(self._assignment.union(change.partitions))
            try:
                if self._listeners.on_assigned is not None:
                    await self._listeners.on_assigned(change.partitions)
            finally:
                self._change = None
            return
        gone = set(change.partitions)
        if change.kind == "revoked":
            try:
                await self._commits.at_end(self.position)
                if self._listeners.on_revoked is not None and gone:
                    await self._listeners.on_revoked(change.partitions)
            finally:
                self._reads(self._assignment - gone)
            return
        self._reads(self._assignment - gone)
        listener = self._listeners.on_lost or self._listeners.on_revoked
        if listener is not None and gone:
            await listener(change.partitions)

    def _reads(self, partitions: Collection[TopicPartition]) -> None:
        """These are assigned from now on."""
        self._assignment = set(partitions)
        self._records.keep(self._assignment)
        for gone in self._sought.keys() - self._assignment:
            del self._sought[gone]

    # Positions

    def position(self) -> dict[TopicPartition, int]:
        """The next offset to be returned, for every assigned partition that has one yet.

        Raises:
            LogClosedError: the consumer was closed and has given up its partitions.
        """
        if not self._assignment:
            self._check_open()
        found = ((tp, self._records.position(tp)) for tp in self._assignment)
        return {tp: at for tp, at in found if at is not None}

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at `offset`. One that does not exist is noticed by a later poll."""
        self._check_assigned([partition])
        if self._change is not None and partition in self._change.partitions:
            self._change.starts[partition] = offset
        else:
            self._reader.hurry()
            seek = partial(self._reader.seek, partition, offset)
            self._sought[partition] = await self._thread.run(seek)
        self._records.seek(partition, offset)

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """To the log start offset, of all assigned partitions when none is named."""
        await self._seek_all(await self._places.beginnings(self._check_assigned(partitions)))

    async def seek_to_end(self, *partitions: TopicPartition) -> None:
        """To the readable end, of all assigned partitions when none is named."""
        await self._seek_all(await self._places.ends(self._check_assigned(partitions)))

    async def seek_to_time(self, timestamp: int, *partitions: TopicPartition) -> None:
        """To the first record of this time or later; to the end where there is none."""
        named = self._check_assigned(partitions)
        await self._seek_all(await self._places.at_time(timestamp, named))

    async def _seek_all(self, offsets: Mapping[TopicPartition, int]) -> None:
        for each, offset in offsets.items():
            await self.seek(each, offset)

    def pause(self, *partitions: TopicPartition) -> None:
        """Return nothing of these partitions until they are resumed."""
        self._records.paused.update(self._check_assigned(partitions))

    def resume(self, *partitions: TopicPartition) -> None:
        """Return records of these partitions again."""
        self._records.paused.difference_update(self._check_assigned(partitions))
        self._reader.hurry()

    async def lag(self) -> dict[TopicPartition, int]:
        """Readable end minus position."""
        positions = self.position()
        missing = self._assignment - positions.keys()
        if missing:
            committed = await self.committed(missing) if self._group is not None else {}
            positions.update(await self._places.starts(missing, committed))
        ends = await self._places.ends(positions.keys())
        return {each: max(0, ends[each] - offset) for each, offset in positions.items()}

    # Assignment

    async def subscribe(
        self,
        topics: Collection[str] = (),
        *,
        pattern: Pattern[str] | None = None,
        on_assigned: RebalanceListener | None = None,
        on_revoked: RebalanceListener | None = None,
        on_lost: RebalanceListener | None = None,
    ) -> None:
        """Read these topics from now on, shared with the group's other members."""
        self._check_open()
        self._selection = TopicSelection(topics, pattern, self._group, self._max_age_ms)
        self._listeners = _Listeners(on_assigned, on_revoked, on_lost)

    async def _select(self, selection: TopicSelection) -> None:
        """Have librdkafka read what is meant now, if that is something new."""
        topics = await selection.changed(self._admin)
        if topics is None:
            return
        if self._group is not None:
            await self._thread.run(partial(self._reader.subscribe, list(topics)))
        else:
            counts = await self._thread.run(partial(self._reader.partitions_of, topics))
            wanted = [TopicPartition(t, number) for t in topics for number in range(counts[t])]
            # What is added to a topic later is read from its beginning: nothing in it is older.
            start = OFFSET_BEGINNING if self._assignment else self._places.reset_start()
            await self._read_exactly(dict.fromkeys(wanted, start))
        selection.are_read(topics)

    async def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Read exactly these partitions; no group decides about them."""
        self._check_open()
        self._reader.hurry()
        await self._thread.run(partial(self._reader.check, partitions))
        if self._selection is not None:
            if self._group is not None:
                await self._calls.run(self._reader.unsubscribe)
            self._selection = None
        # What is committed. With "none" librdkafka says so, unless the owner seeks first.
        is_told = self._group is not None or self._reset == "none"
        start = OFFSET_INVALID if is_told else self._places.reset_start()
        await self._read_exactly(dict.fromkeys(partitions, start))

    async def _read_exactly(self, starts: Mapping[TopicPartition, int]) -> None:
        number = await self._thread.run(partial(self._reader.assign, starts))
        added = starts.keys() - self._assignment
        self._reads(starts)
        self._sought.update(dict.fromkeys(added, number))  # what was fetched before is not meant

    def assignment(self) -> set[TopicPartition]:
        """The partitions this consumer reads now."""
        return set(self._assignment)

    def group_metadata(self) -> ConsumerGroupMetadata:
        """Who this consumer is in its group, for `Producer.send_offsets`."""
        self._require_group()
        assert self._member is not None
        return self._member

    # Committing

    async def commit(
        self, offsets: Mapping[TopicPartition, int | OffsetAndMetadata] | None = None
    ) -> None:
        """Commit these offsets, or the current position; see `Consumer.commit`."""
        if not self._assignment:  # closing, its listener may
            self._check_open()
        self._require_group()
        await self._commit_now(with_metadata(self.position() if offsets is None else offsets))

    async def _commit_now(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        if offsets:
            self._reader.hurry()
            await self._thread.run(partial(self._reader.commit, offsets))

    async def committed(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """What the group committed; waits while a transaction holds an offset undecided."""
        self._require_group()
        if not partitions:
            return {}
        self._reader.hurry()
        return await self._thread.run(partial(self._reader.committed, list(partitions)))

    # The end

    async def close(self) -> None:
        """Commit if that is automatic, leave the group. Again is harmless."""
        if self._closed:
            return
        self._closed = True
        self._on_close(self)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._thread.stop)
            stack.callback(self._reads, ())
            stack.push_async_callback(self._calls.run, self._reader.close)
            if self._selection is None:
                await self._commits.at_end(self.position)

    def _require_group(self) -> str:
        if self._group is None:
            raise ConfigError(
                "This consumer has no group; make it with log.consumer(..., group=...)."
            )
        return self._group

    def _check_assigned(self, partitions: Collection[TopicPartition]) -> list[TopicPartition]:
        for partition in partitions:
            if partition not in self._assignment:
                raise ValueError(
                    f"Partition {partition} is not assigned to this consumer. assign() it, or poll "
                    "once so that the group assigns partitions."
                )
        return list(partitions) or sorted(self._assignment)

    def _check_open(self) -> None:
        if self._closed:
            raise LogClosedError("The consumer is closed; make another with log.consumer().")
