"""The one interface streams, connect and users see; every kind of log fits it.

`open_log("file:DIR")` and `open_log("memory:")` answer it in this process. Offsets, groups,
isolation and transactions mean what they mean in Apache Kafka. Times are milliseconds, event times
milliseconds since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol, Self

from .consumer_interface import Consumer, Isolation, OffsetReset, RebalanceListener
from .record import (
    ConsumerGroupMetadata,
    GroupDescription,
    GroupListing,
    HangingTransaction,
    Headers,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    PartitionDescription,
    ProducerDescription,
    RecordMetadata,
    TopicDescription,
    TopicPartition,
    TransactionDescription,
    TransactionListing,
)
from .settings import SettingValue

__all__ = ["Consumer", "Isolation", "Log", "OffsetReset", "Producer", "RebalanceListener"]


class Producer(Protocol):
    """Writes records. Idempotent always; transactional when it was given a `transactional_id`."""

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        timestamp: int | None = None,
        headers: Headers = (),
    ) -> RecordMetadata:
        """Send one record and wait until it is acknowledged.

        Many `send`s waited for together (`asyncio.gather`) share batches and fsyncs.

        Raises:
            UnknownTopicError, RecordTooLargeError, InvalidRecordError: nothing was written.
            BufferFullError: the buffer stayed full for `max.block.ms`; nothing was written.
            LogTimeoutError: not acknowledged within `delivery.timeout.ms`; it may still be written.
            ProducerFencedError: another producer took over this transactional id.
        """
        ...

    async def send_batch(
        self,
        topic: str,
        values: Sequence[bytes | None],
        *,
        keys: Sequence[bytes | None] | None = None,
        timestamps: Sequence[int] | None = None,
        headers: Sequence[Headers] | None = None,
        partition: int | None = None,
    ) -> None:
        """Hand over many records at once, in columns; returns when they are in the buffer.

        `flush()` or the end of the transaction waits for their acknowledgement and raises what went
        wrong. Order per partition is kept. The sequences must not be changed afterwards.
        """
        ...

    async def flush(self) -> None:
        """Wait until everything handed over is acknowledged; raise the first failure."""
        ...

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """`async with producer.transaction():` commits at the end, aborts when the body raises."""
        ...

    async def begin_transaction(self) -> None: ...
    async def commit_transaction(self) -> None:
        """Flush, then commit. When it returns, read_committed readers see everything, for good."""
        ...

    async def abort_transaction(self) -> None: ...

    async def send_offsets(
        self,
        offsets: Mapping[TopicPartition, int | OffsetAndMetadata],
        *,
        group: str | ConsumerGroupMetadata,
    ) -> None:
        """Commit consumer offsets as part of the open transaction.

        Raises:
            IllegalGenerationError, UnknownMemberError: the group moved on without this member.
        """
        ...

    async def close(self) -> None: ...


class Log(Protocol):
    """An open log: topics, producers, consumers, and the offsets of groups."""

    url: str

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        config: Mapping[str, str | int | float | bool] | None = None,
        exist_ok: bool = False,
    ) -> TopicDescription:
        """Create a topic. `exist_ok` answers an existing topic as it is.

        Raises:
            TopicExistsError, InvalidTopicError, ConfigError: nothing was created.
        """
        ...

    async def alter_topic(
        self,
        name: str,
        *,
        config: Mapping[str, SettingValue | None] | None = None,
        partitions: int | None = None,
    ) -> TopicDescription:
        """Change a topic while it is in use. The change is stored before it takes effect, then it
        holds at once for everybody.

        `config` changes the settings it names, all or none; None resets one to its default.
        `partitions` is the new total, and only more than before. Records with keys go to other
        partitions from then on; groups that subscribed share the new ones too.

        Raises:
            UnknownTopicError, ConfigError: nothing was changed.
            StorageError: the disk refused. The topic is as before.
        """
        ...

    async def delete_topic(self, name: str) -> None: ...
    async def topics(self) -> list[str]:
        """Names of all topics, internal ones (`__...`) too, sorted."""
        ...

    async def describe_topic(self, name: str) -> TopicDescription:
        """Raises UnknownTopicError when there is none of this name."""
        ...

    async def describe_partitions(self, topic: str) -> list[PartitionDescription]:
        """Every partition of a topic: its offsets, and what it takes on the disk.

        Raises:
            UnknownTopicError, StorageError
        """
        ...

    async def beginning_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int]: ...
    async def end_offsets(
        self, partitions: Collection[TopicPartition], isolation: Isolation = "read_committed"
    ) -> dict[TopicPartition, int]:
        """Where reading stops now: the last stable offset, or the high watermark."""
        ...

    async def offsets_for_time(
        self, timestamps: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int | None]:
        """Earliest offset whose timestamp is at least the given one; None where there is none."""
        ...

    async def max_timestamps(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record with the latest timestamp of each partition; None where no record has
        one. Kafka's `ListOffsets` with -3 (KIP-734)."""
        ...

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Raise the log start offset: records before the given offset are gone for good."""
        ...

    async def group_offsets(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]: ...
    async def alter_group_offsets(
        self, group: str, offsets: Mapping[TopicPartition, int | OffsetAndMetadata]
    ) -> None:
        """Set committed offsets of a group without members. Raises GroupNotEmptyError."""
        ...

    async def delete_group_offsets(
        self, group: str, partitions: Collection[TopicPartition]
    ) -> None:
        """Forget what a group committed for these partitions (KIP-496).

        Raises:
            UnknownGroupError: there is no such group.
            GroupSubscribedToTopicError, GroupNotEmptyError: members read the topics.
        """
        ...

    async def groups(self) -> list[GroupListing]:
        """Every group that has members or committed offsets, by name."""
        ...

    async def describe_group(self, group: str) -> GroupDescription:
        """Raises UnknownGroupError when nobody joined it and it committed nothing."""
        ...

    async def remove_group_members(
        self, group: str, group_instance_ids: Collection[str] | None = None
    ) -> None:
        """Take members out of a group: static ones by their group.instance.id, or all of them
        (None). Members that still live join again.

        Raises:
            UnknownGroupError, UnknownMemberError: nobody was taken out.
        """
        ...

    async def delete_group(self, group: str) -> None:
        """Forget a group and its offsets; an unknown one is no error. Raises GroupNotEmptyError."""
        ...

    async def transactions(
        self,
        *,
        states: Collection[str] = (),
        producer_ids: Collection[int] = (),
        open_longer_than_ms: int = -1,
    ) -> list[TransactionListing]:
        """Every transactional id that is known, by name; filters that are given must all fit.

        Args:
            states: Kafka's names of states, such as "Ongoing".
            open_longer_than_ms: only transactions that are open for longer than this.

        Raises:
            ConfigError: a state that does not exist.
        """
        ...

    async def describe_transaction(self, transactional_id: str) -> TransactionDescription:
        """Raises UnknownTransactionalIdError."""
        ...

    async def terminate_transaction(self, transactional_id: str) -> bool:
        """Abort the open transaction of an id by force, and fence its producer, dead or alive.

        Returns:
            Whether one was open. Without one nothing happens, and nobody is fenced. One that is
            just being ended ends as its producer decided.

        Raises:
            UnknownTransactionalIdError: there is no such id.
            StorageError: the disk failed.
        """
        ...

    async def describe_producers(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, list[ProducerDescription]]:
        """What partitions remember of those who write to them. Raises UnknownTopicError."""
        ...

    async def hanging_transactions(
        self,
        partitions: Collection[TopicPartition] | None = None,
        *,
        open_longer_than_ms: int = 900_000,
    ) -> list[HangingTransaction]:
        """Transactions open for longer than this in these partitions, or in any; oldest first.

        They hold back every read_committed reader of the partition. The default is Kafka's
        transaction.max.timeout.ms, which no transaction outlives by itself.
        """
        ...

    def producer(
        self, *, transactional_id: str | None = None, config: Mapping[str, str | int] | None = None
    ) -> Producer:
        """`config` takes Kafka's producer settings: `linger.ms`, `compression.type`, ..."""
        ...

    def consumer(
        self,
        *topics: str,
        group: str | None = None,
        auto_offset_reset: OffsetReset = "earliest",
        isolation: Isolation = "read_committed",
        config: Mapping[str, str | int] | None = None,
    ) -> Consumer:
        """`config` takes Kafka's consumer settings: `enable.auto.commit`, ..."""
        ...

    def metrics(self) -> str:
        """What there is to watch, in Prometheus's text exposition format 0.0.4. The reference page
        on metrics lists every name."""
        ...

    async def close(self) -> None: ...
