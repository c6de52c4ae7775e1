"""The engine of one log: what a Kafka broker does, without the network.

The embedded producer and consumer call it directly; a server for Kafka's protocol will sit on the
same object. It puts together the partitions, the coordinators of transactions and groups, and the
one background task that lets time pass for them. One event loop owns a broker; nothing here is
thread-safe.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from millstream.log.clock import Clock, sleep_until
from millstream.log.config import CONSUMER_OFFSETS, INTERNAL_TOPICS, BrokerConfig, Durability
from millstream.log.errors import (
    InvalidTopicError,
    InvalidTxnStateError,
    LogError,
    OutOfOrderSequenceError,
)
from millstream.log.format.header import ATTRIBUTE_TRANSACTIONAL, HEADER_SIZE_BYTES
from millstream.log.limits import TIMED_WORK_RETRY_MS
from millstream.log.record import TopicPartition
from millstream.log.settings import SettingValue
from millstream.log.storage.checkpoints import decode_cluster_id
from millstream.log.storage.files import Files
from millstream.log.storage.layout import META_PROPERTIES
from millstream.log.storage.log_dir import disk_errors
from millstream.log.storage.partition import AppendInfo

from .catalog import Catalog
from .cleaner import LogCleaner
from .disk_threads import DiskThreads
from .group_coordinator import GroupCoordinator
from .internal_topic import InternalTopic
from .offset_coordinator import OffsetCoordinator
from .partitions import Partitions
from .producer_ids import ProducerIds
from .to_the_end import in_background, stopped, to_the_end
from .topics import Topic, TopicChange
from .txn_coordinator import TransactionCoordinator
from .txn_records import BY_PRODUCER

if TYPE_CHECKING:
    from millstream.log.security.store import SecurityStore
    from millstream.log.server.server import Server

__all__ = ["Broker", "check_not_internal"]

logger = logging.getLogger("millstream.log")

_ATTRIBUTES_LOW_BYTE = 22  # of a record batch
_PRODUCER = struct.Struct(">qhi")  # producer id, epoch and sequence
_PRODUCER_POSITION = 43
_FREED_MEMORY_KEPT_BYTES = 16 << 20


class Broker:
    """One open log: its partitions, transactions, groups and offsets; from `Broker.open`."""

    def __init__(
        self,
        files: Files,
        folder: str,
        catalog: Catalog,
        threads: DiskThreads,
        cleaner_threads: DiskThreads,
        config: BrokerConfig,
        clock: Clock,
    ) -> None:
        self.config = config
        self.clock = clock
        self.folder = folder
        self.servers: set[Server] = set()  # those that serve it now
        self._files = files
        self.partitions = Partitions(catalog, threads, config=config, clock=clock)
        self.transactions = TransactionCoordinator(
            self.partitions,
            ProducerIds(files, folder),
            config,
            on_ended=self._transaction_ended,
            on_deadline=self._deadline_set,
        )
        topic = InternalTopic(
            self.partitions,
            CONSUMER_OFFSETS,
            config.offsets_topic_num_partitions,
            segment_bytes=config.offsets_topic_segment_bytes,
        )
        self.groups = GroupCoordinator(topic, config, clock, on_deadline=self._deadline_set)
        self.partitions.on_partitions_added.add(self.groups.on_partitions_added)
        self.offsets = OffsetCoordinator(
            self.partitions, topic, self.groups, self.transactions, config
        )
        self.cleaner = LogCleaner(self.partitions, cleaner_threads, config, clock)
        self.partitions.release = self.cleaner.release
        self._wake = asyncio.Event()
        self._asleep_until_ms = 0
        self._timed_work_failed = False
        self._timer: asyncio.Task[None] | None = None
        self._security: SecurityStore | None = None

    @classmethod
    async def open(
        cls,
        files: Files,
        folder: str,
        *,
        durability: Durability,
        config: BrokerConfig,
        clock: Clock,
        threads: Callable[[int], DiskThreads] = DiskThreads,
    ) -> Broker:
        """Open and recover the log in `folder`; unfinished transactions are finished or aborted.

        Raises:
            LogLockedError: another process has it open.
            StorageError: the disk refuses, or a file is damaged beyond what a crash can do.
        """
        _keep_freed_memory()
        disk_threads = threads(config.flush_threads)
        opened: list[Catalog] = []

        def open_catalog() -> None:
            now_ms = clock.wall_ms()
            opened.append(Catalog.open(files, folder, durability=durability, now_ms=now_ms))

        try:
            await disk_threads.run(open_catalog)
        except BaseException:
            for catalog in opened:  # cancelled: it was opened all the same
                catalog.close(clean=False)
            disk_threads.close()
            raise
        cleaner_threads = threads(min(config.flush_threads, 1))
        broker = cls(files, folder, opened[0], disk_threads, cleaner_threads, config, clock)
        try:
            await broker.transactions.recover()
            broker.offsets.load()
            await broker.offsets.forget_lost_topics()
        except BaseException:
            await to_the_end(broker.partitions.close(clean=False))
            raise
        broker._timer = in_background(broker._let_time_pass(), "timed work")
        broker.cleaner.start()
        return broker

    def cluster_id(self) -> str:
        """The id of this log as a cluster.

        Raises:
            StorageError: the disk refuses.
        """
        with disk_errors(self.folder):
            return decode_cluster_id(self._files.read_whole(f"{self.folder}/{META_PROPERTIES}"))

    def security(self) -> SecurityStore:
        """The users and access control lists of this log; read when it is first asked for.

        Raises:
            StorageError: the file is damaged, or the disk refuses.
        """
        from millstream.log.security.store import SecurityStore  # when it is used

        if self._security is None:
            self._security = SecurityStore(self._files, self.folder, self.partitions.run_on_disk)
        return self._security

    def append(
        self, topic_partition: TopicPartition, batch: bytes, *, transactional_id: str | None = None
    ) -> AppendInfo:
        """Append a batch to the page cache; `partitions.durable` waits for its acknowledgement.
        Raises as `admit` and `Partitions.append`."""
        self.admit(topic_partition, batch, transactional_id)
        return self.partitions.append(topic_partition, batch)

    def admit(
        self,
        topic_partition: TopicPartition,
        batch: bytes,
        transactional_id: str | None,
        version: int | None = None,
    ) -> tuple[TopicPartition, int] | None:
        """Whether a batch may be appended now. A transactional one joins the partition to the
        transaction of `transactional_id` (KIP-890: the client need not announce it); `version` and
        what is returned are those of `TransactionCoordinator.add_partitions`.

        Raises:
            ProducerFencedError, ConcurrentTransactionsError, InvalidTopicError,
            UnknownTopicError: it may not. InvalidTxnStateError: nor a transactional batch without
            an id, or one for a partition its producer had to announce. OutOfOrderSequenceError:
            what came before it in the transaction is not in the partition any more.
        """
        check_not_internal(topic_partition.topic)
        if (
            len(batch) > HEADER_SIZE_BYTES  # if not, it is refused below
            and batch[_ATTRIBUTES_LOW_BYTE] & ATTRIBUTE_TRANSACTIONAL
        ):
            if transactional_id is None:
                raise InvalidTxnStateError(
                    f"Partition {topic_partition}: a transactional batch that names no "
                    "transactional id. Nobody could end its transaction."
                )
            partition = self.partitions.partition(topic_partition)
            producer_id, epoch, sequence = _PRODUCER.unpack_from(batch, _PRODUCER_POSITION)
            joined = self.transactions.add_partitions(
                transactional_id, producer_id, epoch, (topic_partition,), version=version
            )
            if (
                version == BY_PRODUCER
                and sequence
                and not partition.next_sequence(producer_id, epoch)
            ):  # each of its transactions begins at 0 (KIP-890)
                raise OutOfOrderSequenceError(
                    f"Partition {topic_partition}, producer id {producer_id}: sequence {sequence} "
                    f"of epoch {epoch}, and nothing of this transaction is there. What was written "
                    "before is gone, maybe with its topic: abort the transaction."
                )
            return joined
        return None

    async def produce(
        self, topic_partition: TopicPartition, batch: bytes, *, transactional_id: str | None = None
    ) -> AppendInfo:
        """Append a batch and wait until it is acknowledged. Raises as `append` does."""
        info = self.append(topic_partition, batch, transactional_id=transactional_id)
        await self.partitions.durable(topic_partition, info.last_offset + 1)
        return info

    async def create_topic(
        self,
        name: str,
        partitions: int,
        config: Mapping[str, SettingValue] | None = None,
        *,
        exist_ok: bool = False,
    ) -> Topic:
        """Create a topic for a user; see `Log.create_topic`."""
        check_not_internal(name)
        return await self.partitions.create_topic(name, partitions, config, exist_ok=exist_ok)

    async def alter_topic(
        self,
        name: str,
        config: TopicChange | Callable[[Topic], TopicChange] | None = None,
        partitions: int | None = None,
    ) -> Topic:
        """Change a topic's settings or add partitions; see `Log.alter_topic`."""
        return await self.partitions.alter_topic(name, config, partitions)

    async def delete_topic(self, name: str, topic_id: str | None = None) -> None:
        """Remove a topic, its records, and what groups committed for it; only the one of this id
        if any is given."""
        check_not_internal(name)
        await to_the_end(self._delete_topic(name, topic_id))

    async def _delete_topic(self, name: str, topic_id: str | None) -> None:
        try:
            await self.partitions.delete_topic(name, topic_id)
        finally:  # the topic may be gone though its files could not be removed
            if name not in self.partitions.topics():
                await self.offsets.forget_topic(name)

    async def close(self) -> None:
        """Let transactions end, make everything durable, close the files. Again is harmless.

        Who waits for this may be cancelled; it goes on to its end before that is raised.
        """
        await to_the_end(self._close())

    async def _close(self) -> None:
        timer, self._timer = self._timer, None
        await stopped(timer)
        try:
            if timer is not None and not timer.cancelled():
                timer.result()  # what ended it
            await self.cleaner.stop()
        finally:
            await self.transactions.close()
            await self.partitions.close()

    def _transaction_ended(self, producer_id: int, commit: bool) -> None:
        self.offsets.transaction_ended(producer_id, commit=commit)

    def _deadline_set(self, moment_ms: int) -> None:
        """A coordinator has something to do at this moment (monotonic)."""
        if moment_ms < self._asleep_until_ms:
            self._wake.set()

    async def _let_time_pass(self) -> None:
        """Transactions and sessions time out; checkpoints are written. Runs until `close`."""
        interval_ms = self.config.log_flush_offset_checkpoint_interval_ms
        checkpoint_ms = self.clock.monotonic_ms() + interval_ms
        while True:
            self._wake.clear()
            now_ms = self.clock.monotonic_ms()
            if now_ms >= checkpoint_ms:
                checkpoint_ms = now_ms + interval_ms
                with self._noting_failure():
                    await self.partitions.checkpoint()
            with self._noting_failure():
                await self.transactions.let_time_pass(now_ms)
            with self._noting_failure():
                self.groups.let_time_pass(now_ms)
            with self._noting_failure():
                await self.offsets.expire(now_ms)
            deadlines = (
                self.transactions.next_deadline_ms(),
                self.groups.next_deadline_ms(),
                self.offsets.next_deadline_ms(),
                checkpoint_ms,
            )
            self._asleep_until_ms = min(each for each in deadlines if each is not None)
            if self._timed_work_failed:
                self._timed_work_failed = False
                await self.clock.sleep_ms(TIMED_WORK_RETRY_MS)
            await sleep_until(self.clock, self._asleep_until_ms, self._wake)

    @contextmanager
    def _noting_failure(self) -> Iterator[None]:
        """One kind of timed work: when it fails, the others do not wait for it."""
        try:
            yield
        except LogError as error:
            self._timed_work_failed = True
            logger.error("Timed work of the log failed, and will be tried again: %s", error)


def check_not_internal(name: str) -> None:
    """Raise InvalidTopicError for a topic that only the log itself writes to."""
    if name in INTERNAL_TOPICS:
        raise InvalidTopicError(
            f"{name} is where the log keeps its own state: it can be read, and nothing else. Use "
            "another name."
        )


@cache
def _keep_freed_memory() -> None:
    """Batches are buffers of 100 KB to 1 MB, made and freed all the time. The C library hands such
    memory back to the system at once, and every page of the next one costs a page fault: measured,
    more than half the time of reading a log. glibc raises that limit to the size of the largest
    block it ever took back (mallopt(3), M_MMAP_THRESHOLD, dynamic); so show it one."""
    bytes(_FREED_MEMORY_KEPT_BYTES)
