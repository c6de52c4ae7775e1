"""What a consumer is, whatever log it reads: half of `interface`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from re import Pattern
from types import TracebackType
from typing import Literal, Protocol, Self

from .record import (
    ConsumerGroupMetadata,
    OffsetAndMetadata,
    Record,
    RecordBatch,
    TopicPartition,
)

__all__ = ["Consumer", "Isolation", "OffsetReset", "RebalanceListener"]

Isolation = Literal["read_committed", "read_uncommitted"]
OffsetReset = Literal["earliest", "latest", "none"]
RebalanceListener = Callable[[Collection[TopicPartition]], Awaitable[None]]


class Consumer(Protocol):
    """Reads records: by group (topics and `group` given), or by `assign`."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def __aiter__(self) -> AsyncIterator[Record]: ...

    async def poll(self, timeout_ms: int = 1000, max_records: int = 500) -> list[Record]:
        """Up to `max_records` records; empty when the wait ends with nothing to read."""
        ...

    async def poll_batches(self, timeout_ms: int = 1000) -> list[RecordBatch]:
        """What can be read now, in columns, at most one `max.partition.fetch.bytes` a partition.

        The position moves past what is returned.
        """
        ...

    async def subscribe(
        self,
        topics: Collection[str] = (),
        *,
        pattern: Pattern[str] | None = None,
        on_assigned: RebalanceListener | None = None,
        on_revoked: RebalanceListener | None = None,
        on_lost: RebalanceListener | None = None,
    ) -> None:
        """Read these topics, shared with the group's other members.

        A topic that begins with "^" is a pattern its name must begin with, as in librdkafka;
        `pattern` is one the whole name must match, as in Kafka. Topics that match and are created
        later are read too.

        Every listener is awaited inside a poll. At a rebalance `on_revoked` gets the partitions
        that go, before they go, then `on_assigned` those that came: with the cooperative-sticky
        assignor alone only what moves, otherwise all. `on_lost` (without it `on_revoked`) gets
        partitions that others have already.
        """
        ...

    async def assign(self, partitions: Collection[TopicPartition]) -> None: ...
    def assignment(self) -> set[TopicPartition]: ...
    def group_metadata(self) -> ConsumerGroupMetadata: ...

    def position(self) -> dict[TopicPartition, int]:
        """The next offset to be returned, for every assigned partition that has one yet."""
        ...

    async def seek(self, partition: TopicPartition, offset: int) -> None: ...
    async def seek_to_beginning(self, *partitions: TopicPartition) -> None: ...
    async def seek_to_end(self, *partitions: TopicPartition) -> None: ...
    async def seek_to_time(self, timestamp: int, *partitions: TopicPartition) -> None:
        """To the first record with this timestamp or a later one; without one, to the end."""
        ...

    def pause(self, *partitions: TopicPartition) -> None: ...
    def resume(self, *partitions: TopicPartition) -> None: ...

    async def commit(
        self, offsets: Mapping[TopicPartition, int | OffsetAndMetadata] | None = None
    ) -> None:
        """Commit these offsets, or the current position, for the group."""
        ...

    async def committed(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata | None]:
        """What the group committed; waits while a transaction holds an offset undecided."""
        ...

    async def lag(self) -> dict[TopicPartition, int]:
        """Readable end (last stable offset under read_committed) minus position."""
        ...

    async def close(self) -> None: ...
