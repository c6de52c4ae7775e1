"""Partitions at work: append, fetch, list offsets, create and delete topics; one call per request.

The server answers Kafka's requests from the same methods: bytes of record batches in and out.
After an append a batch is in the page cache. It is acknowledged, and can be read, when the high
watermark passed it: after an fsync that covers it, or at once with durability="os".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from millstream.log.clock import Clock
from millstream.log.config import BrokerConfig
from millstream.log.errors import LogClosedError, LogError, StorageError, UnknownTopicError
from millstream.log.interface import Isolation
from millstream.log.record import TopicPartition
from millstream.log.settings import INT32_MAX, LONG_MAX, SettingValue
from millstream.log.storage.partition import AppendInfo, Partition, ReadResult

from .catalog import Catalog
from .counting import Traffic
from .disk_threads import DiskThreads
from .fetching import Room, fetch
from .flusher import Flusher
from .to_the_end import to_the_end
from .topics import Topic, TopicChange, new_topic
from .waiting import WaitingFetches

if TYPE_CHECKING:
    from millstream.log.stats import PartitionsStats

__all__ = ["FetchRequest", "Fetched", "Partitions"]


logger = logging.getLogger("millstream.log")

T = TypeVar("T")


class FetchRequest(NamedTuple):
    """Read one partition from `offset`, at most `size_bytes_max` (but always one whole batch)."""

    topic_partition: TopicPartition
    offset: int
    size_bytes_max: int


Fetched = ReadResult | LogError
"""What a fetch answers for one partition: batches, or why there are none."""


class Partitions:
    """The topics and partitions of an open log. One event loop owns it."""

    def __init__(
        self, catalog: Catalog, threads: DiskThreads, *, config: BrokerConfig, clock: Clock
    ) -> None:
        self.config = config
        self.clock = clock
        self._catalog = catalog
        self._threads = threads
        self._waiting = WaitingFetches()
        self.flusher = Flusher(threads, self._readable_end_moved)
        self.on_partitions_added: set[Callable[[str], None]] = set()
        """Called with the name of a topic that has more partitions than before."""
        self.on_topics_changed: set[Callable[[], None]] = set()
        """Called when a topic was created or deleted."""
        self.release: Callable[[Collection[TopicPartition]], Awaitable[None]] = _nothing_to_release
        """Awaited before the folders of closed partitions go: nobody must use their files."""
        self._changing = asyncio.Lock()  # topics are changed one at a time
        self._closed = False
        self._traffic: dict[TopicPartition, Traffic] = {}

    # Topics

    def topics(self) -> list[str]:
        """Names of all topics, sorted."""
        return sorted(topic.name for topic in self._catalog.topics)

    def has_topic(self, name: str) -> bool:
        """Whether there is a topic of this name."""
        return name in self._catalog.topics

    def topic(self, name: str) -> Topic:
        """Raises UnknownTopicError that says how to create it."""
        self._check_open()
        return self._catalog.topics.get(name)

    def topic_with_id(self, topic_id: str) -> Topic | None:
        """The topic whose `topic_id` this is."""
        self._check_open()
        return self._catalog.topics.with_id(topic_id)

    async def create_topic(
        self,
        name: str,
        partitions: int,
        config: Mapping[str, SettingValue] | None = None,
        *,
        exist_ok: bool = False,
    ) -> Topic:
        """Create a topic; see `Log.create_topic`."""
        self._check_open()
        topic = new_topic(name, partitions, config)
        async with self._changing:
            self._check_open()
            if exist_ok and name in self._catalog.topics:
                return self._catalog.topics.get(name)
            self._catalog.topics.check_absent(name)
            await to_the_end(self._create(topic))
        return topic

    async def _create(self, topic: Topic) -> None:
        now_ms = self.clock.wall_ms()
        await self._threads.run(lambda: self._catalog.create(topic, now_ms))
        self._tell_of_topics()

    def check_new_topic(
        self, name: str, partitions: int, config: Mapping[str, SettingValue] | None = None
    ) -> Topic:
        """What `create_topic` would create now. Raises as it does, but for the disk."""
        topic = new_topic(name, partitions, config)
        self._catalog.topics.check_absent(name)
        return topic

    async def alter_topic(
        self,
        name: str,
        config: TopicChange | Callable[[Topic], TopicChange] | None = None,
        partitions: int | None = None,
    ) -> Topic:
        """Change settings or add partitions; see `Log.alter_topic`. What to change may depend on
        the topic as it is when the changes before this one are done."""
        self._check_open()
        async with self._changing:
            self._check_open()
            before = self._catalog.topics.get(name)
            topic = before.altered(config(before) if callable(config) else config, partitions)
            await to_the_end(self._alter(before, topic))
        return topic

    async def _alter(self, before: Topic, topic: Topic) -> None:
        now_ms = self.clock.wall_ms()
        await self._threads.run(lambda: self._catalog.alter(topic, now_ms))
        for topic_partition in topic.topic_partitions():
            self._catalog.partition(topic_partition).config = topic.config
        if topic.partitions > before.partitions:
            for listener in list(self.on_partitions_added):
                listener(topic.name)

    async def topic_to_write(self, name: str) -> Topic:
        """The topic; created now when it is not there and `auto.create.topics.enable` allows it."""
        if name not in self._catalog.topics and self.config.auto_create_topics_enable:
            return await self.create_topic(name, self.config.num_partitions, exist_ok=True)
        return self.topic(name)

    async def delete_topic(self, name: str, topic_id: str | None = None) -> None:
        """Remove a topic and its records, only the one of this id if any is given. Those who wait
        for it get UnknownTopicError."""
        self._check_open()
        async with self._changing:
            self._check_open()
            topic = self._catalog.topics.get(name)
            if topic_id not in (None, topic.topic_id):
                raise UnknownTopicError(f"Topic {name} of id {topic_id} was deleted.")
            await to_the_end(self._delete(topic))

    def _tell_of_topics(self) -> None:
        for listener in list(self.on_topics_changed):
            listener()

    async def _delete(self, topic: Topic) -> None:
        await self._threads.run(lambda: self._catalog.forget(topic.name))
        detached = self._catalog.detach(topic)
        gone = UnknownTopicError(f"Topic {topic.name} was deleted.")
        for topic_partition in topic.topic_partitions():
            self.flusher.forget(topic_partition, gone)
            self._waiting.wake(topic_partition)
            self._traffic.pop(topic_partition, None)
        self._tell_of_topics()
        await self.flusher.settle(set(topic.topic_partitions()))
        await self.release(set(topic.topic_partitions()))
        await self._threads.run(lambda: self._catalog.remove(topic, detached))

    # Records

    def partition(self, topic_partition: TopicPartition) -> Partition:
        """The partition; raises UnknownTopicError."""
        self._check_open()
        return self._catalog.partition(topic_partition)

    def append(self, topic_partition: TopicPartition, batch: bytes) -> AppendInfo:
        """Append a batch to the page cache. `durable` waits for it to be acknowledged.

        Raises:
            UnknownTopicError, RecordTooLargeError, CorruptRecordError, OutOfOrderSequenceError,
            InvalidProducerEpochError, InvalidTxnStateError: nothing was written.
            StorageError: the write failed; the partition takes no more until the log is reopened.
        """
        partition = self.partition(topic_partition)
        info = partition.append(batch, self.clock.wall_ms())
        if not info.duplicate:
            traffic = self.traffic(topic_partition)
            traffic.appended_batches += 1
            traffic.appended_records += info.last_offset - info.base_offset + 1
            traffic.appended_bytes += len(batch)
        self._appended(partition)
        return info

    def append_marker(
        self,
        topic_partition: TopicPartition,
        producer_id: int,
        epoch: int,
        *,
        commit: bool,
        coordinator_epoch: int,
    ) -> None:
        """End a producer's transaction in one partition; it counts once the partition is flushed.

        Raises:
            UnknownTopicError, InvalidProducerEpochError, InvalidTxnStateError, StorageError.
        """
        partition = self.partition(topic_partition)
        partition.append_marker(
            producer_id,
            epoch,
            commit=commit,
            coordinator_epoch=coordinator_epoch,
            now_ms=self.clock.wall_ms(),
        )
        self._appended(partition)

    def _appended(self, partition: Partition) -> None:
        if partition.high_watermark == partition.log_end_offset:  # durability="os"
            self._waiting.wake(partition.topic_partition)
            if partition.unflushed:
                self.flusher.want(partition)  # a segment was closed, or flush.messages
            elif partition.config.flush_ms != LONG_MAX:
                self.flusher.want_within(partition, partition.config.flush_ms)

    def durable(self, topic_partition: TopicPartition, offset: int) -> asyncio.Future[None]:
        """A future that ends when everything below `offset` is acknowledged."""
        return self.flusher.durable(self.partition(topic_partition), offset)

    async def fetch(
        self,
        requests: Sequence[FetchRequest],
        *,
        isolation: Isolation,
        wait_ms_max: int = 0,
        size_bytes_min: int = 1,
        size_bytes_max: int = INT32_MAX,
        room: Room | None = None,
    ) -> dict[TopicPartition, Fetched]:
        """Read several partitions, at most `size_bytes_max` of all together and what `room`
        answers before each look; wait until there is something to read.

        Returns at once when any partition has an error. Batches come whole, the first one even when
        it is larger than asked for, and may begin before the offset.
        """
        return await fetch(
            self.read,
            self._check_open,
            self._waiting,
            requests,
            isolation=isolation,
            wait_ms_max=wait_ms_max,
            size_bytes_min=size_bytes_min,
            size_bytes_max=size_bytes_max,
            room=room,
        )

    def read(self, request: FetchRequest, isolation: Isolation) -> Fetched:
        """Read one partition now."""
        try:
            partition = self._catalog.partition(request.topic_partition)
            result = partition.read(
                request.offset, size_bytes_max=request.size_bytes_max, isolation=isolation
            )
        except LogError as error:
            return error
        if result.data:
            self.traffic(request.topic_partition).fetched_bytes += len(result.data)
        return result

    def end_offset(self, topic_partition: TopicPartition, isolation: Isolation) -> int:
        """Where reading stops now."""
        partition = self.partition(topic_partition)
        if isolation == "read_committed":
            return partition.last_stable_offset
        return partition.high_watermark

    def beginning_offset(self, topic_partition: TopicPartition) -> int:
        """The log start offset."""
        return self.partition(topic_partition).log_start_offset

    def offset_for_time(self, topic_partition: TopicPartition, timestamp_ms: int) -> int | None:
        """The first offset with this timestamp or a later one."""
        return self.partition(topic_partition).offset_for_time(timestamp_ms)

    def max_timestamp(self, topic_partition: TopicPartition) -> tuple[int, int] | None:
        """Offset and time of the first record with the latest time."""
        return self.partition(topic_partition).max_timestamp()

    def delete_records(self, topic_partition: TopicPartition, before: int) -> None:
        """Raise the log start offset to `before`; -1 means the high watermark."""
        partition = self.partition(topic_partition)
        partition.delete_records(partition.high_watermark if before == -1 else before)

    # Life

    def traffic(self, topic_partition: TopicPartition) -> Traffic:
        """What went through one partition since the log was opened."""
        found = self._traffic.get(topic_partition)
        if found is None:
            found = self._traffic[topic_partition] = Traffic()
        return found

    def stats(self) -> PartitionsStats:
        """Where all of them stand together."""
        from millstream.log.stats import PartitionsStats  # when it is used

        partitions, traffic = list(self), self._traffic.values()
        return PartitionsStats(
            len(self._catalog.topics),
            len(partitions),
            sum(each.unflushed for each in partitions),
            sum(each.failed for each in partitions),
            len(self._waiting),
            sum(each.appended_batches for each in traffic),
            sum(each.appended_records for each in traffic),
            sum(each.appended_bytes for each in traffic),
            sum(each.fetched_bytes for each in traffic),
        )

    def __iter__(self) -> Iterator[Partition]:
        """Every open partition."""
        return self._catalog.partitions()

    async def run_on_disk(self, work: Callable[[], T]) -> T:
        """Run blocking disk work where it belongs, while no topic is changed."""
        async with self._changing:
            self._check_open()
            return await self._threads.run(work)

    async def checkpoint(self) -> None:
        """Write down how far recovery need not look, and remove files nobody needs."""
        sealed = {}
        for partition in self._catalog.partitions():
            if partition.failed:
                continue
            try:
                if partition.seal():
                    sealed[partition] = partition.log_end_offset
                    self.flusher.want(partition)
            except (StorageError, LogClosedError) as error:  # a topic may go meanwhile
                logger.warning("No checkpoint of %s: %s", partition.topic_partition, error)
            await asyncio.sleep(0)  # a few small writes each: others may want to go on
            self._check_open()
        await self.flusher.until_recovery_point(sealed)
        await self.run_on_disk(self._catalog.checkpoint)

    async def close(self, *, clean: bool = True) -> None:
        """Make everything durable and close the files. Again is harmless."""
        if self._closed:
            return
        self._closed = True
        self._waiting.wake_all()
        self.flusher.stop_timers()
        try:
            for partition in self._catalog.partitions():
                if clean and partition.unflushed:
                    self.flusher.want(partition)
            await self.flusher.settle()
        finally:
            try:
                async with self._changing:
                    await self._threads.run(lambda: self._catalog.close(clean=clean))
            finally:
                self._threads.close()

    def _check_open(self) -> None:
        if self._closed:
            raise LogClosedError("The log is closed; open it again with open_log.")

    def _readable_end_moved(self, partition: Partition) -> None:
        self._waiting.wake(partition.topic_partition)


async def _nothing_to_release(_closed: Collection[TopicPartition]) -> None:
    """Only a cleaner uses files of partitions behind their backs."""
