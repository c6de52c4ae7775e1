"""A log opened in this process: topics, producers and consumers on one broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from millstream.log.broker.broker import Broker, check_not_internal
from millstream.log.broker.disk_threads import DiskThreads
from millstream.log.clock import Clock, SystemClock
from millstream.log.config import BrokerConfig, Durability
from millstream.log.errors import LogClosedError, LogError
from millstream.log.interface import Isolation, OffsetReset
from millstream.log.record import (
    GroupDescription,
    GroupListing,
    HangingTransaction,
    OffsetAndMetadata,
    OffsetAndTimestamp,
    PartitionDescription,
    ProducerDescription,
    TopicDescription,
    TopicPartition,
    TransactionDescription,
    TransactionListing,
)
from millstream.log.settings import SettingValue
from millstream.log.storage.files import Files

from .consumer import EmbeddedConsumer
from .offset_values import with_metadata
from .producer import EmbeddedProducer
from .settings import ConsumerConfig, ProducerConfig

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from millstream.log.server.server import Server
    from millstream.log.stats import LogStats

__all__ = ["EmbeddedLog"]


class EmbeddedLog:
    """Implements `Log` on files in this process. Enter it (`async with`) to open it.

    Args:
        url: what it was opened by, for messages.
        files: the disk.
        folder: where on it the log lies.
        durability: what an acknowledgement means; see `open_log`.
        config: broker settings.
        clock: the time.
        threads: makes what blocking disk work runs in, from how many at most.
    """

    def __init__(
        self,
        url: str,
        files: Files,
        folder: str,
        *,
        durability: Durability = "fsync",
        config: BrokerConfig | None = None,
        clock: Clock | None = None,
        threads: Callable[[int], DiskThreads] | None = None,
    ) -> None:
        self.url = url
        self._files = files
        self._folder = folder
        self._durability: Durability = durability
        self._config = config or BrokerConfig()
        self._clock = clock or SystemClock()
        self._threads = threads or DiskThreads
        self._open_broker: Broker | None = None
        self._is_closing = False
        self._producers: dict[EmbeddedProducer, None] = {}
        self._consumers: dict[EmbeddedConsumer, None] = {}
        self._sent_records = self._returned_records = 0  # of those that were closed

    async def __aenter__(self) -> Self:
        if self._open_broker is None:
            self._open_broker = await Broker.open(
                self._files,
                self._folder,
                durability=self._durability,
                config=self._config,
                clock=self._clock,
                threads=self._threads,
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def _broker(self) -> Broker:
        if self._open_broker is None:
            raise LogClosedError(
                f"The log {self.url} is not open. Use `async with open_log({self.url!r}) as log:`."
            )
        return self._open_broker

    @property
    def _broker_for_clients(self) -> Broker:
        if self._is_closing:
            raise LogClosedError("The log is closed; open it again with open_log.")
        return self._broker

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        config: Mapping[str, str | int | float | bool] | None = None,
        exist_ok: bool = False,
    ) -> TopicDescription:
        """Create a topic; see `Log.create_topic`."""
        topic = await self._broker.create_topic(name, partitions, config, exist_ok=exist_ok)
        return topic.describe()

    async def alter_topic(
        self,
        name: str,
        *,
        config: Mapping[str, SettingValue | None] | None = None,
        partitions: int | None = None,
    ) -> TopicDescription:
        """Change a topic; see `Log.alter_topic`."""
        return (await self._broker.alter_topic(name, config, partitions)).describe()

    async def delete_topic(self, name: str) -> None:
        """Remove a topic and its records. Raises UnknownTopicError."""
        await self._broker.delete_topic(name)

    async def topics(self) -> list[str]:
        """Names of all topics, sorted."""
        return self._broker.partitions.topics()

    async def describe_topic(self, name: str) -> TopicDescription:
        """Raises UnknownTopicError."""
        return self._broker.partitions.topic(name).describe()

    async def describe_partitions(self, topic: str) -> list[PartitionDescription]:
        """Every partition of a topic; see `Log.describe_partitions`."""
        partitions = self._broker.partitions
        return [
            partitions.partition(each).describe()
            for each in partitions.topic(topic).topic_partitions()
        ]

    async def beginning_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """The log start offsets."""
        return {each: self._broker.partitions.beginning_offset(each) for each in partitions}

    async def end_offsets(
        self, partitions: Collection[TopicPartition], isolation: Isolation = "read_committed"
    ) -> dict[TopicPartition, int]:
        """Where reading stops now."""
        return {each: self._broker.partitions.end_offset(each, isolation) for each in partitions}

    async def offsets_for_time(
        self, timestamps: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int | None]:
        """Earliest offset whose timestamp is at least the given one."""
        partitions = self._broker.partitions
        return {each: partitions.offset_for_time(each, time) for each, time in timestamps.items()}

    async def max_timestamps(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record with the latest timestamp of each partition."""
        found = {each: self._broker.partitions.max_timestamp(each) for each in partitions}
        return {each: OffsetAndTimestamp(*at) if at else None for each, at in found.items()}

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Raise the log start offsets."""
        for partition, offset in before.items():
            check_not_internal(partition.topic)
            self._broker.partitions.delete_records(partition, offset)

    async def group_offsets(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """What the group committed."""
        return self._broker.offsets.of_group(group)

    async def alter_group_offsets(
        self, group: str, offsets: Mapping[TopicPartition, int | OffsetAndMetadata]
    ) -> None:
        """Set committed offsets of a group without members."""
        await self._broker.offsets.alter(group, with_metadata(offsets))

    async def delete_group_offsets(
        self, group: str, partitions: Collection[TopicPartition]
    ) -> None:
        """Forget what a group committed for these partitions."""
        await self._broker.offsets.delete_offsets(group, partitions)

    async def groups(self) -> list[GroupListing]:
        """Every group, by name."""
        from millstream.log.broker.group_admin import list_groups

        return list_groups(self._broker.groups, self._broker.offsets)

    async def describe_group(self, group: str) -> GroupDescription:
        """Raises UnknownGroupError."""
        from millstream.log.broker.group_admin import describe_group

        return describe_group(self._broker, group)

    async def remove_group_members(
        self, group: str, group_instance_ids: Collection[str] | None = None
    ) -> None:
        """Take members out of a group."""
        from millstream.log.broker.group_admin import remove_members

        remove_members(self._broker.groups, self._broker.offsets, group, group_instance_ids)

    async def delete_group(self, group: str) -> None:
        """Forget a group and its offsets."""
        await self._broker.offsets.delete_group(group)

    async def transactions(
        self,
        *,
        states: Collection[str] = (),
        producer_ids: Collection[int] = (),
        open_longer_than_ms: int = -1,
    ) -> list[TransactionListing]:
        """Every transactional id that passes the filters; see `Log.transactions`."""
        from millstream.log.broker.txn_admin import listings

        return listings(
            self._broker.transactions.table,
            self._clock.wall_ms(),
            states=states,
            producer_ids=producer_ids,
            open_longer_than_ms=open_longer_than_ms,
        )

    async def describe_transaction(self, transactional_id: str) -> TransactionDescription:
        """One transactional id. Raises UnknownTransactionalIdError."""
        from millstream.log.broker.txn_admin import description

        return description(self._broker.transactions.table, transactional_id)

    async def terminate_transaction(self, transactional_id: str) -> bool:
        """Abort the open transaction of an id; see `Log.terminate_transaction`."""
        return await self._broker.transactions.terminate(transactional_id)

    async def describe_producers(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, list[ProducerDescription]]:
        """What these partitions remember of their producers."""
        log = self._broker.partitions
        return {each: log.partition(each).describe_producers() for each in partitions}

    async def hanging_transactions(
        self,
        partitions: Collection[TopicPartition] | None = None,
        *,
        open_longer_than_ms: int = 900_000,
    ) -> list[HangingTransaction]:
        """Transactions that are open for long; see `Log.hanging_transactions`."""
        from millstream.log.broker.txn_admin import hanging

        log = self._broker.partitions
        return hanging(
            self._broker.transactions.table,
            log,
            [each.topic_partition for each in log] if partitions is None else partitions,
            self._clock.wall_ms(),
            open_longer_than_ms=open_longer_than_ms,
        )

    def producer(
        self, *, transactional_id: str | None = None, config: Mapping[str, str | int] | None = None
    ) -> EmbeddedProducer:
        """A producer; it starts when it is entered or first used."""
        producer = EmbeddedProducer(
            self._broker_for_clients,
            transactional_id=transactional_id,
            config=ProducerConfig.parse(config),
            on_close=self._producer_closed,
        )
        self._producers[producer] = None
        return producer

    def consumer(
        self,
        *topics: str,
        group: str | None = None,
        auto_offset_reset: OffsetReset = "earliest",
        isolation: Isolation = "read_committed",
        config: Mapping[str, str | int] | None = None,
    ) -> EmbeddedConsumer:
        """A consumer; it joins its group at its first poll."""
        consumer = EmbeddedConsumer(
            self._broker_for_clients,
            topics,
            group=group,
            auto_offset_reset=auto_offset_reset,
            isolation=isolation,
            config=ConsumerConfig.parse(config),
            on_close=self._consumer_closed,
        )
        self._consumers[consumer] = None
        return consumer

    def serve(
        self, listen: str, *, advertised: str | None = None, insecure: bool = False
    ) -> AbstractAsyncContextManager[Server]:
        """Serve this log to Kafka clients while the body runs; see `millstream.log.server.serve`:
        async with log.serve("127.0.0.1:9092") as server: ..."""
        from millstream.log.server.server import serve  # when it is used

        broker = self._broker_for_clients
        return serve(broker, listen, advertised=advertised, insecure=insecure)

    def stats(self) -> LogStats:
        """Where this log stands."""
        from millstream.log.stats import LogStats  # when it is used

        broker = self._broker
        partitions, groups = broker.partitions.stats(), broker.groups.stats()
        return LogStats(
            partitions.topics,
            partitions.partitions,
            sum(each.high_watermark - each.log_start_offset for each in broker.partitions),
            partitions.unflushed,
            partitions.failed,
            partitions.waiting_fetches,
            broker.transactions.stats().open,
            groups.groups,
            groups.members,
            len(self._producers),
            len(self._consumers),
        )

    def metrics(self) -> str:
        """All metrics of this log and its clients; see `Log.metrics`."""
        from millstream.log.metrics import log_metrics

        return log_metrics(
            self._broker,
            [each.stats() for each in self._producers],
            [each.stats() for each in self._consumers],
            sent_records=self._sent_records,
            returned_records=self._returned_records,
        )

    def _producer_closed(self, producer: EmbeddedProducer) -> None:
        if self._producers.pop(producer, producer) is None:
            self._sent_records += producer.stats().records_sent

    def _consumer_closed(self, consumer: EmbeddedConsumer) -> None:
        if self._consumers.pop(consumer, consumer) is None:
            self._returned_records += consumer.stats().records_returned

    async def close(self) -> None:
        """Close producers and consumers, make everything durable, release the directory.

        One that cannot be closed well does not keep the others open. Cancelled, this hurries, and
        still closes everything; then the cancellation is raised.

        Raises:
            StorageError, LogTimeoutError: the disk failed; what was acknowledged is found when the
                log is opened again.
        """
        if self._open_broker is None:
            return
        self._is_closing = True
        problems: list[BaseException] = []
        try:
            await self._close_clients(problems)
        finally:
            try:
                await self._open_broker.close()
            except (LogError, asyncio.CancelledError) as error:
                problems.append(error)
        problems.sort(key=lambda error: isinstance(error, LogError))
        if problems:
            raise problems[0]

    async def _close_clients(self, problems: list[BaseException]) -> None:
        clients: list[EmbeddedConsumer | EmbeddedProducer] = [*self._consumers, *self._producers]
        for client in clients:
            try:
                await client.close()
            except (LogError, asyncio.CancelledError) as error:
                problems.append(error)
