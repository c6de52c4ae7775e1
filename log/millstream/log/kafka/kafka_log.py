"""A log that is a cluster: topics, producers and consumers over librdkafka."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import NoReturn, Self

from confluent_kafka.admin import OffsetSpec

from millstream.log.client.offset_values import with_metadata
from millstream.log.errors import LogClosedError, LogError, TopicExistsError, UnsupportedError
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

from .address import KafkaAddress
from .kafka_admin import KafkaAdmin
from .kafka_consumer import KafkaConsumer
from .kafka_producer import KafkaProducer
from .settings import ConnectionConfig, KafkaConsumerConfig, KafkaProducerConfig

__all__ = ["KafkaLog"]

_REACHED_WITHIN_S = 15.0
_NOT_TOLD = -1
"""What a partition takes on the brokers' disks librdkafka does not ask."""


class KafkaLog:
    """Implements `Log` on a cluster. Enter it (`async with`) to open it."""

    def __init__(self, address: KafkaAddress) -> None:
        self.url = address.url
        self._connection = ConnectionConfig.parse(address.settings, address.url).for_librdkafka(
            address.bootstrap_servers
        )
        self._open_admin: KafkaAdmin | None = None
        self._producers: dict[KafkaProducer, None] = {}
        self._consumers: dict[KafkaConsumer, None] = {}
        self._sent_records = self._returned_records = 0  # of those that were closed

    async def __aenter__(self) -> Self:
        if self._open_admin is None:
            admin = KafkaAdmin(self._connection, self.url)
            try:
                await admin.reach(_REACHED_WITHIN_S)
            except BaseException:
                await admin.close()
                raise
            self._open_admin = admin
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def _admin(self) -> KafkaAdmin:
        if self._open_admin is None:
            raise LogClosedError(
                f"The log {self.url} is not open. Use `async with open_log({self.url!r}) as log:`."
            )
        return self._open_admin

    # Topics

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        config: Mapping[str, str | int | float | bool] | None = None,
        exist_ok: bool = False,
    ) -> TopicDescription:
        """Create a topic with as many copies as the cluster makes by default."""
        try:
            await self._admin.create(name, partitions, config)
        except TopicExistsError:
            if not exist_ok:
                raise
        return await self._admin.describe(name)

    async def alter_topic(
        self,
        name: str,
        *,
        config: Mapping[str, SettingValue | None] | None = None,
        partitions: int | None = None,
    ) -> TopicDescription:
        """Change a topic; see `Log.alter_topic`. The partitions first: what is refused of the
        settings then was not changed."""
        if partitions is not None and partitions != (await self.describe_topic(name)).partitions:
            await self._admin.add_partitions(name, partitions)
        if config:
            await self._admin.alter_config(name, config)
        return await self._admin.describe(name)

    async def delete_topic(self, name: str) -> None:
        """Remove a topic and its records. Raises UnknownTopicError."""
        await self._admin.delete(name)

    async def topics(self) -> list[str]:
        """Names of all topics, sorted."""
        return await self._admin.names()

    async def describe_topic(self, name: str) -> TopicDescription:
        """Raises UnknownTopicError."""
        return await self._admin.describe(name)

    async def describe_partitions(self, topic: str) -> list[PartitionDescription]:
        """Offsets of every partition; `size_bytes` and `segments` are -1, not told. The log end
        offset is the high watermark: what a leader has beyond it only its followers ask."""
        partitions = await self._admin.partitions_of(topic)
        beginnings = await self.beginning_offsets(partitions)
        stable = await self.end_offsets(partitions)
        ends = await self.end_offsets(partitions, "read_uncommitted")
        return [
            PartitionDescription(
                each.partition,
                beginnings[each],
                stable[each],
                ends[each],
                ends[each],
                _NOT_TOLD,
                _NOT_TOLD,
            )
            for each in partitions
        ]

    # Offsets

    async def beginning_offsets(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """The log start offsets."""
        found = await self._admin.offsets(dict.fromkeys(partitions, OffsetSpec.earliest()))
        return {each: at.offset for each, at in found.items()}

    async def end_offsets(
        self, partitions: Collection[TopicPartition], isolation: Isolation = "read_committed"
    ) -> dict[TopicPartition, int]:
        """Where reading stops now."""
        found = await self._admin.offsets(dict.fromkeys(partitions, OffsetSpec.latest()), isolation)
        return {each: at.offset for each, at in found.items()}

    async def offsets_for_time(
        self, timestamps: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int | None]:
        """Earliest offset whose timestamp is at least the given one."""
        found = await self._admin.offsets(
            {each: OffsetSpec.for_timestamp(time) for each, time in timestamps.items()}
        )
        return {each: at.offset if at.offset >= 0 else None for each, at in found.items()}

    async def max_timestamps(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndTimestamp | None]:
        """The first record with the latest timestamp of each partition."""
        found = await self._admin.offsets(dict.fromkeys(partitions, OffsetSpec.max_timestamp()))
        return {
            each: OffsetAndTimestamp(at.offset, at.timestamp) if at.offset >= 0 else None
            for each, at in found.items()
        }

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        """Raise the log start offsets."""
        await self._admin.delete_records(before)

    # Groups

    async def group_offsets(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """What the group committed."""
        from .group_admin import group_offsets

        return await group_offsets(self._admin.client, group)

    async def alter_group_offsets(
        self, group: str, offsets: Mapping[TopicPartition, int | OffsetAndMetadata]
    ) -> None:
        """Set committed offsets of a group without members."""
        from .group_admin import alter_group_offsets

        await alter_group_offsets(self._admin.client, group, with_metadata(offsets))

    async def delete_group_offsets(
        self, group: str, partitions: Collection[TopicPartition]
    ) -> None:
        """Not there: raises UnsupportedError."""
        topics = ",".join(sorted({each.topic for each in partitions})) or "TOPIC"
        self._cannot(
            "delete single offsets of a group",
            f"kafka-consumer-groups.sh --delete-offsets --group {group} --topic {topics}",
        )

    async def groups(self) -> list[GroupListing]:
        """Every group, by name."""
        from .group_admin import list_groups

        return await list_groups(self._admin.client)

    async def describe_group(self, group: str) -> GroupDescription:
        """Raises UnknownGroupError. Generation (-1) and leader ("") are not told."""
        from .group_admin import describe_group

        return await describe_group(self._admin.client, group)

    async def remove_group_members(
        self, group: str, group_instance_ids: Collection[str] | None = None
    ) -> None:
        """Not there: raises UnsupportedError."""
        self._cannot(
            "take members out of a group",
            "Kafka's Admin.removeMembersFromConsumerGroup, or wait for session.timeout.ms",
        )

    async def delete_group(self, group: str) -> None:
        """Forget a group and its offsets."""
        from .group_admin import delete_group

        await delete_group(self._admin.client, group)

    # Transactions

    async def transactions(
        self,
        *,
        states: Collection[str] = (),
        producer_ids: Collection[int] = (),
        open_longer_than_ms: int = -1,
    ) -> list[TransactionListing]:
        """Not there: raises UnsupportedError."""
        self._cannot("list transactions", "kafka-transactions.sh list")

    async def describe_transaction(self, transactional_id: str) -> TransactionDescription:
        """Not there: raises UnsupportedError."""
        self._cannot(
            "describe transactions",
            f"kafka-transactions.sh describe --transactional-id {transactional_id}",
        )

    async def terminate_transaction(self, transactional_id: str) -> bool:
        """Not there: raises UnsupportedError."""
        self._cannot(
            "end transactions of others",
            "kafka-transactions.sh forceTerminateTransaction --transactional-id "
            f"{transactional_id}, or open a producer of this transactional id",
        )

    async def describe_producers(
        self, partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, list[ProducerDescription]]:
        """Not there: raises UnsupportedError."""
        self._cannot("describe producers", "kafka-transactions.sh describe-producers")

    async def hanging_transactions(
        self,
        partitions: Collection[TopicPartition] | None = None,
        *,
        open_longer_than_ms: int = 900_000,
    ) -> list[HangingTransaction]:
        """Not there: raises UnsupportedError."""
        self._cannot("look for hanging transactions", "kafka-transactions.sh find-hanging")

    def _cannot(self, what: str, instead: str) -> NoReturn:
        raise UnsupportedError(
            f"{self.url}: librdkafka cannot {what}. Use {instead} on the cluster; a log that is "
            "opened as file:DIR can."
        )

    # Clients

    def producer(
        self, *, transactional_id: str | None = None, config: Mapping[str, str | int] | None = None
    ) -> KafkaProducer:
        """A producer; it starts when it is entered or first used."""
        producer = KafkaProducer(
            self._connection,
            self.url,
            transactional_id=transactional_id,
            config=KafkaProducerConfig.parse(config),
            recent=self._admin.recent,
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
    ) -> KafkaConsumer:
        """A consumer; it joins its group at its first poll."""
        consumer = KafkaConsumer(
            self._connection,
            self._admin,
            topics,
            group=group,
            auto_offset_reset=auto_offset_reset,
            isolation=isolation,
            config=KafkaConsumerConfig.parse(config),
            on_close=self._consumer_closed,
        )
        self._consumers[consumer] = None
        return consumer

    def metrics(self) -> str:
        """What this process has open, and has sent and read; the rest is the servers' to tell."""
        from .metrics import client_metrics

        return client_metrics(
            len(self._producers),
            self._sent_records + sum(each.records_sent for each in self._producers),
            len(self._consumers),
            self._returned_records + sum(each.records_returned for each in self._consumers),
        )

    def _producer_closed(self, producer: KafkaProducer) -> None:
        if self._producers.pop(producer, producer) is None:
            self._sent_records += producer.records_sent

    def _consumer_closed(self, consumer: KafkaConsumer) -> None:
        if self._consumers.pop(consumer, consumer) is None:
            self._returned_records += consumer.records_returned

    async def close(self) -> None:
        """Close producers and consumers. One that cannot be closed well does not keep the others
        open; the first problem is raised."""
        admin, self._open_admin = self._open_admin, None
        if admin is None:
            return
        problems: list[BaseException] = []
        clients: list[KafkaConsumer | KafkaProducer] = [*self._consumers, *self._producers]
        for client in clients:
            try:
                await client.close()
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised below
                problems.append(error)
        await admin.close()
        problems.sort(key=lambda error: isinstance(error, LogError))
        if problems:
            raise problems[0]
