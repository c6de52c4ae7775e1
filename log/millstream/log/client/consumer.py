"""The embedded consumer: positions, polls and commits; the group work is in `membership`.

A consumer has one owner. Everything that changes its assignment happens inside `poll`,
`poll_batches` or the iteration, so the owner never loses a partition while it works on what it was
given.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import suppress
from re import Pattern
from types import TracebackType
from typing import TYPE_CHECKING, Self

from millstream.log.broker.broker import Broker
from millstream.log.errors import ConfigError, LogClosedError, OffsetOutOfRangeError
from millstream.log.interface import Isolation, OffsetReset, RebalanceListener
from millstream.log.record import (
    ConsumerGroupMetadata,
    OffsetAndMetadata,
    Record,
    RecordBatch,
    TopicPartition,
)

from .fetcher import Fetcher
from .membership import Listeners, Membership
from .offset_values import with_metadata
from .position_commits import PositionCommits
from .settings import ConsumerConfig
from .topic_selection import TopicSelection
from .whole_topics import WholeTopics

if TYPE_CHECKING:
    from millstream.log.stats import ConsumerStats

__all__ = ["EmbeddedConsumer"]


class EmbeddedConsumer:
    """Implements `Consumer` on a log in this process; see there for what the calls mean."""

    def __init__(
        self,
        broker: Broker,
        topics: Collection[str],
        *,
        group: str | None,
        auto_offset_reset: OffsetReset,
        isolation: Isolation,
        config: ConsumerConfig,
        on_close: Callable[[EmbeddedConsumer], None],
    ) -> None:
        if auto_offset_reset not in {"earliest", "latest", "none"}:
            raise ConfigError(
                f"auto_offset_reset is {auto_offset_reset!r}; it can be earliest, latest or none."
            )
        if isolation not in {"read_committed", "read_uncommitted"}:
            raise ConfigError(
                f"isolation is {isolation!r}; it can be read_committed or read_uncommitted."
            )
        self._broker = broker
        self._partitions = broker.partitions
        self._clock = broker.clock
        self._group = group
        self._reset: OffsetReset = auto_offset_reset
        self._isolation: Isolation = isolation
        self._config = config
        self._on_close = on_close
        self._fetcher = Fetcher(broker.partitions, isolation, config)
        self._membership: Membership | None = None
        self._whole_topics: WholeTopics | None = None
        self._wake = asyncio.Event()
        self._commits = PositionCommits(
            broker,
            config if group is not None else None,
            member=self.group_metadata,
            position=self._fetcher.positions,
            is_joining=self._is_joining,
        )
        self._closed = False
        if topics:
            self._subscribe(TopicSelection(topics), Listeners())

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # Reading

    async def __aiter__(self) -> AsyncIterator[Record]:
        """Records one by one, for ever. The position moves with each, so that a commit in the body
        of the loop covers what the loop has seen, and no more. After every `max.poll.records` this
        is a poll: it takes part in a rebalance, commits if that is automatic, lets others run."""
        while True:
            await self._fill(0 if self._fetcher.has_fetched else self._config.max_poll_interval_ms)
            for _ in range(self._config.max_poll_records):
                record = self._fetcher.take_record()
                if record is None:
                    break
                yield record

    async def poll(self, timeout_ms: int = 1000, max_records: int | None = None) -> list[Record]:
        """Up to `max_records` records (`max.poll.records`, 500); see `Consumer.poll`."""
        await self._fill(timeout_ms)
        return self._fetcher.take_records(max_records or self._config.max_poll_records)

    async def poll_batches(self, timeout_ms: int = 1000) -> list[RecordBatch]:
        """What can be read now, in columns; see `Consumer.poll_batches`."""
        await self._fill(timeout_ms)
        return self._fetcher.take_batches()

    async def _fill(self, timeout_ms: int) -> None:
        """Have something fetched, or let the time pass."""
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_ms / 1000
        await asyncio.sleep(0)  # a reader that always finds something must not starve the rest
        wait_ms = 0
        while True:
            self._check_open()
            self._wake.clear()
            await self._take_part(end - loop.time())
            with suppress(TimeoutError):  # a transaction that is open holds one of them
                async with asyncio.timeout_at(end):
                    await self._find_positions()
            if self._fetcher.has_fetched:
                return
            was_reset = await self._fetch(wait_ms)
            if self._fetcher.has_fetched:
                return
            if was_reset:
                continue
            wait_ms = min(int((end - loop.time()) * 1000), self._config.max_poll_interval_ms // 2)
            if wait_ms <= 0:
                return

    async def _take_part(self, timeout_s: float) -> None:
        """Assign what was subscribed: by the group's rules, or all of it without a group."""
        if self._whole_topics is not None:
            self._whole_topics.assign(self._fetcher)
        if self._membership is not None:
            self._membership.polled()
            await self._membership.poll(timeout_s)
        await self._commits.commit_if_due()

    async def _fetch(self, wait_ms: int) -> bool:
        """Fetch; returns whether a position that does not exist was reset to one that does."""
        if wait_ms > 0:
            out_of_range = await self._fetch_or_wake(wait_ms)
        elif self._config.fetch_min_bytes > 1:
            out_of_range = await self._fetcher.fetch(self._config.fetch_max_wait_ms)
        else:
            out_of_range = self._fetcher.fetch_now()
        for partition, error in out_of_range.items():
            if self._reset == "none":
                raise error
            self._fetcher.seek(partition, self._reset_offset(partition))
        return bool(out_of_range)

    async def _fetch_or_wake(self, wait_ms: int) -> dict[TopicPartition, OffsetOutOfRangeError]:
        """Wait for records, but no longer than until the group or the owner wants something."""
        loop = asyncio.get_running_loop()
        tasks: list[asyncio.Task[object]] = [loop.create_task(self._wake.wait())]
        fetching = None
        if self._fetcher.can_fetch:
            fetching = loop.create_task(self._fetcher.fetch(wait_ms))
            tasks.append(fetching)
        try:
            await asyncio.wait(tasks, timeout=wait_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
            if fetching is not None and fetching.done():
                return fetching.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        return {}

    # Positions

    async def _find_positions(self) -> None:
        missing = self._fetcher.without_position()
        if not missing:
            return
        committed: dict[TopicPartition, OffsetAndMetadata | None] = dict.fromkeys(missing)
        if self._group is not None:
            committed = await self.committed(missing)
        for partition in self._fetcher.without_position():  # some may have been sought meanwhile
            if partition in committed:
                found = committed[partition]
                offset = found.offset if found is not None else self._reset_offset(partition)
                self._fetcher.seek(partition, offset)

    def _reset_offset(self, partition: TopicPartition) -> int:
        if self._reset == "earliest":
            return self._partitions.beginning_offset(partition)
        if self._reset == "latest":
            return self._partitions.end_offset(partition, self._isolation)
        raise OffsetOutOfRangeError(
            f"Partition {partition} has no position: group {self._group!r} committed none, and "
            "auto_offset_reset is none. Seek, commit an offset, or let it be earliest or latest."
        )

    def position(self) -> dict[TopicPartition, int]:
        """The next offset to be returned, for every assigned partition that has one yet.

        Raises:
            LogClosedError: the consumer was closed and has given up its partitions. A transaction
                that committed these no offsets would count without what it had read.
        """
        positions = self._fetcher.positions()
        if not self._fetcher.assignment():
            self._check_open()
        return positions

    async def seek(self, partition: TopicPartition, offset: int) -> None:
        """Go on at `offset`. One that does not exist is noticed by the next poll."""
        self._check_assigned([partition])
        self._fetcher.seek(partition, offset)
        self._wake.set()

    async def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """To the log start offset, of all assigned partitions when none is named."""
        for partition in self._check_assigned(partitions):
            await self.seek(partition, self._partitions.beginning_offset(partition))

    async def seek_to_end(self, *partitions: TopicPartition) -> None:
        """To the readable end, of all assigned partitions when none is named."""
        for partition in self._check_assigned(partitions):
            await self.seek(partition, self._partitions.end_offset(partition, self._isolation))

    async def seek_to_time(self, timestamp: int, *partitions: TopicPartition) -> None:
        """To the first record of this time or later; to the end where there is none."""
        for partition in self._check_assigned(partitions):
            offset = self._partitions.offset_for_time(partition, timestamp)
            if offset is None:
                offset = self._partitions.end_offset(partition, self._isolation)
            await self.seek(partition, offset)

    def pause(self, *partitions: TopicPartition) -> None:
        """Return nothing of these partitions until they are resumed."""
        self._fetcher.pause(self._check_assigned(partitions), paused=True)

    def resume(self, *partitions: TopicPartition) -> None:
        """Return records of these partitions again."""
        self._fetcher.pause(self._check_assigned(partitions), paused=False)
        self._wake.set()

    async def lag(self) -> dict[TopicPartition, int]:
        """Readable end minus position."""
        await self._find_positions()
        return {
            partition: self._partitions.end_offset(partition, self._isolation) - offset
            for partition, offset in self.position().items()
        }

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
        self._subscribe(
            TopicSelection(topics, pattern), Listeners(on_assigned, on_revoked, on_lost)
        )

    def _subscribe(self, selection: TopicSelection, listeners: Listeners) -> None:
        if selection.has_pattern:
            self._require_group()
        self._read_no_whole_topics()
        if self._membership is not None:
            self._membership.resubscribe(selection, listeners)
            return
        if self._group is None:
            self._whole_topics = WholeTopics(self._partitions, selection.names, self._wake.set)
            return
        self._membership = Membership(
            self._broker,
            self._group,
            selection,
            self._config,
            listeners,
            assign=self._fetcher.assign,
            before_revoke=self._commits.commit_at_end,
            wake=self._wake.set,
        )

    async def assign(self, partitions: Collection[TopicPartition]) -> None:
        """Read exactly these partitions; no group decides about them."""
        self._check_open()
        for partition in partitions:
            self._partitions.partition(partition)
        if self._membership is not None:
            try:
                await self._membership.leave()
            finally:
                self._membership = None
        self._read_no_whole_topics()
        self._fetcher.assign(partitions)
        self._wake.set()

    def assignment(self) -> set[TopicPartition]:
        """The partitions this consumer reads now."""
        return self._fetcher.assignment()

    def group_metadata(self) -> ConsumerGroupMetadata:
        """Who this consumer is in its group, for `Producer.send_offsets`."""
        group = self._require_group()
        if self._membership is None:
            return ConsumerGroupMetadata(group)
        return self._membership.metadata()

    def _read_no_whole_topics(self) -> None:
        if self._whole_topics is not None:
            self._whole_topics.close()
            self._whole_topics = None

    # Committing

    async def commit(
        self, offsets: Mapping[TopicPartition, int | OffsetAndMetadata] | None = None
    ) -> None:
        """Commit these offsets, or the current position; see `Consumer.commit`."""
        if not self._fetcher.assignment():  # closing, its listener may
            self._check_open()
        self._require_group()
        await self._commits.commit(with_metadata(self.position() if offsets is None else offsets))

    async def committed(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """What the group committed; waits while a transaction holds an offset undecided."""
        return await self._broker.offsets.fetch(self._require_group(), partitions)

    def _is_joining(self) -> bool:
        return self._membership is not None and self._membership.is_joining

    def stats(self) -> ConsumerStats:
        """Where this consumer stands."""
        from millstream.log.stats import ConsumerStats  # when it is used

        return ConsumerStats(
            len(self._fetcher.assignment()),
            self._fetcher.records_returned,
            self._fetcher.bytes_fetched,
            self._membership.rebalances if self._membership is not None else 0,
        )

    async def close(self) -> None:
        """Commit if that is automatic, leave the group. Again is harmless."""
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        self._read_no_whole_topics()
        try:
            if self._membership is not None:
                await self._membership.leave()
            else:
                await self._commits.commit_at_end()
        finally:
            self._on_close(self)

    def _require_group(self) -> str:
        if self._group is None:
            raise ConfigError(
                "This consumer has no group; make it with log.consumer(..., group=...)."
            )
        return self._group

    def _check_assigned(self, partitions: Collection[TopicPartition]) -> list[TopicPartition]:
        assigned = self._fetcher.assignment()
        for partition in partitions:
            if partition not in assigned:
                raise ValueError(
                    f"Partition {partition} is not assigned to this consumer. assign() it, or poll "
                    "once so that the group assigns partitions."
                )
        return list(partitions) or sorted(assigned)

    def _check_open(self) -> None:
        if self._closed:
            raise LogClosedError("The consumer is closed; make another with log.consumer().")
