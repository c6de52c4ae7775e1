"""The transaction coordinator at work: logs each step, writes the markers, ends what timed out.

The order of a commit, and what a crash after each step leaves:

    1. data and offsets are flushed          the transaction is open: recovery aborts it
    2. PREPARE_COMMIT is logged and flushed  the commit point: recovery rolls it forward
    3. markers to every partition, flushed   readers see it; recovery finds some markers there
    4. COMPLETE_COMMIT is logged             its fsync rides along with the next one

An abort does the same without step 1. That a transaction is open, and in which partitions, is not
logged before PREPARE, which names all of them: recovery looks for what is open in the partitions
themselves. It has to in any case, because data may reach the disk before any record about it does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterable
from contextlib import suppress

from millstream.log.config import TRANSACTION_STATE, BrokerConfig
from millstream.log.errors import ConcurrentTransactionsError, StorageError, UnknownTopicError
from millstream.log.record import TopicPartition
from millstream.log.storage.partition import Partition

from .internal_topic import InternalTopic
from .partitions import Partitions
from .producer_ids import ProducerIds
from .transactions import TransactionTable
from .txn_records import (
    TransactionMetadata,
    TransactionState,
    decode_key,
    decode_value,
    encode_key,
    encode_value,
)

__all__ = ["TransactionCoordinator"]

COORDINATOR_EPOCH = 0
"""One node coordinates for ever; there is no second coordinator to fence."""

TransactionEnded = Callable[[int, bool], None]
"""Called with the producer id, and whether it committed, once the markers are durable."""


class TransactionCoordinator:
    """Transactions of one log. One event loop owns it."""

    def __init__(
        self,
        partitions: Partitions,
        producer_ids: ProducerIds,
        config: BrokerConfig,
        *,
        on_ended: TransactionEnded,
        on_deadline: Callable[[int], None],
    ) -> None:
        self._partitions = partitions
        self._clock = partitions.clock
        self._producer_ids = producer_ids
        self._topic = InternalTopic(
            partitions, TRANSACTION_STATE, config.transaction_state_log_num_partitions
        )
        self._table = TransactionTable(timeout_ms_max=config.transaction_max_timeout_ms)
        self._deadlines: dict[str, int] = {}  # of open transactions, monotonic
        self._ending: dict[str, asyncio.Task[tuple[int, int]]] = {}
        self._snapshot_bytes = config.internal_topic_snapshot_bytes
        self._stuck: dict[str, StorageError] = {}  # decided, and the disk failed before the end
        self._on_ended = on_ended
        self._on_deadline = on_deadline

    # Requests

    async def init_producer_id(
        self, transactional_id: str | None, timeout_ms: int
    ) -> tuple[int, int]:
        """A producer id and epoch. With a transactional id, every earlier producer of it is fenced
        and its open transaction aborted, before this returns.

        Raises:
            ConfigError: the id or the time-out is none Kafka would take.
            StorageError: the disk failed.
        """
        await self._reserve_producer_id()
        if transactional_id is None:
            return self._producer_ids.take(), 0
        await self._topic.create_if_missing()
        while True:
            await self._wait_for_end(transactional_id)
            self._check_not_stuck(transactional_id)
            await self._reserve_producer_id()
            metadata = self._table.init(
                transactional_id, timeout_ms, self._clock.wall_ms(), self._producer_ids.take
            )
            if metadata.state is TransactionState.EMPTY:
                end = self._log(metadata)
                await self._topic.durable(*end)
                return metadata.producer_id, metadata.epoch
            self._start_abort(metadata)

    def add_partitions(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        partitions: Collection[TopicPartition],
    ) -> None:
        """These partitions are about to be written to in the transaction; the first begins it.

        Raises:
            ProducerFencedError: the producer is not the one in force.
            ConcurrentTransactionsError: its last transaction is still being completed.
        """
        self._check_not_ending(transactional_id, producer_id, epoch)
        now_ms = self._clock.wall_ms()
        metadata = self._table.add_partitions(
            transactional_id, producer_id, epoch, partitions, now_ms
        )
        if metadata is not None:
            self._table.put(metadata)
            if transactional_id not in self._deadlines:
                deadline_ms = self._clock.monotonic_ms() + metadata.timeout_ms
                self._deadlines[transactional_id] = deadline_ms
                self._on_deadline(deadline_ms)

    def end_txn(
        self, transactional_id: str, producer_id: int, epoch: int, *, commit: bool
    ) -> asyncio.Task[tuple[int, int]]:
        """End the transaction: a task that answers the producer id and epoch of the next one, when
        the markers are durable. It runs to its end whether or not somebody waits for it.

        Raises:
            ConcurrentTransactionsError: it is being ended already.
            ProducerFencedError, InvalidTxnStateError: (the task) nothing changed.
            StorageError: (the task) the disk failed. Before the commit point the transaction is
                still open; after it the log must be opened again, which finishes what was decided.
        """
        self._check_not_ending(transactional_id, producer_id, epoch)
        ending = self._end(transactional_id, producer_id, epoch, commit=commit)
        return self._own(transactional_id, ending)

    # Time

    def next_deadline_ms(self) -> int | None:
        """Monotonic time of the next transaction time-out."""
        return min(self._deadlines.values(), default=None)

    async def abort_timed_out(self, now_ms: int) -> None:
        """Abort what was open longer than its transaction.timeout.ms, and fence its producer."""
        late = [each for each, deadline in self._deadlines.items() if deadline <= now_ms]
        for transactional_id in late:
            known = self._table.get(transactional_id)
            if (
                transactional_id in self._ending
                or known is None
                or known.state is not TransactionState.ONGOING
            ):
                del self._deadlines[transactional_id]
                continue
            await self._reserve_producer_id()
            self._start_abort(self._table.fence(known, self._clock.wall_ms()))
            await self._wait_for_end(transactional_id)

    @property
    def open_count(self) -> int:
        """Transactions that are open."""
        return len(self._deadlines)

    async def shrink(self) -> None:
        """Write the state anew where its records have grown, and drop them."""
        for where in self._topic.grown(self._snapshot_bytes):
            rows = [
                each
                for each in self._table
                if self._topic.partition_of(each.transactional_id) == where
            ]
            await self._topic.replace_state(
                where,
                [encode_key(each.transactional_id) for each in rows],
                [encode_value(each) for each in rows],
            )

    async def close(self) -> None:
        """Let every transaction that is ending end."""
        while self._ending:
            await asyncio.wait(list(self._ending.values()))
            await asyncio.sleep(0)  # let `ended` see it

    # Recovery

    async def recover(self) -> None:
        """Read the state, finish what was prepared, abort what was open.

        No producer outlives the process that had the log open, so nothing open can still end well.
        """
        self._load()
        open_now = self._open_transactions()
        for metadata in self._table:
            if metadata.is_prepared:
                await self._complete_prepared(metadata, open_now.get(metadata.producer_id, {}))
        open_now = self._open_transactions()
        for metadata in self._table:
            found = open_now.pop(metadata.producer_id, {})
            if found or metadata.state is TransactionState.ONGOING:
                await self._abort_found(metadata, found)
        for producer_id, found in open_now.items():
            await self._write_markers(producer_id, max(found.values()) + 1, found, commit=False)

    def _load(self) -> None:
        newest: dict[bytes | None, bytes | None] = {}
        for topic_partition in self._topic.load():
            for _, columns in self._topic.scan(topic_partition):
                newest.update(zip(columns.keys, columns.values, strict=True))
        for key, value in newest.items():
            transactional_id = decode_key(key or b"")
            if transactional_id is not None and value is not None:
                self._table.restore(decode_value(transactional_id, value))

    def _open_transactions(self) -> dict[int, dict[TopicPartition, int]]:
        """Producer id -> partition -> epoch, of every transaction open in a partition."""
        found: dict[int, dict[TopicPartition, int]] = {}
        for partition in self._partitions:
            for producer_id, epoch in partition.open_transactions().items():
                found.setdefault(producer_id, {})[partition.topic_partition] = epoch
        return found

    async def _complete_prepared(
        self, metadata: TransactionMetadata, found: dict[TopicPartition, int]
    ) -> None:
        """Roll forward. The markers carry `metadata.epoch`, the transaction's own plus one: what is
        open with that epoch already is the next transaction, before which the COMPLETE record was
        lost with the page cache. It must not get the last one's marker."""
        missing = {each for each, epoch in found.items() if epoch < metadata.epoch}
        commit = metadata.state is TransactionState.PREPARE_COMMIT
        await self._write_markers(metadata.producer_id, metadata.epoch, missing, commit=commit)
        self._log(self._table.complete(metadata, self._clock.wall_ms()))

    async def _abort_found(
        self, metadata: TransactionMetadata, found: dict[TopicPartition, int]
    ) -> None:
        fenced = metadata._replace(
            state=TransactionState.PREPARE_ABORT,
            epoch=max(metadata.epoch, *found.values(), 0) + 1,
            partitions=metadata.partitions.union(found),
        )
        await self._reserve_producer_id()
        await self._finish(
            self._table.prepare_abort(fenced, self._clock.wall_ms(), self._producer_ids.take)
        )

    # Steps

    async def _end(
        self, transactional_id: str, producer_id: int, epoch: int, *, commit: bool
    ) -> tuple[int, int]:
        await self._reserve_producer_id()
        prepared = self._table.prepare_end(
            transactional_id,
            producer_id,
            epoch,
            commit=commit,
            now_ms=self._clock.wall_ms(),
            new_producer_id=self._producer_ids.take,
        )
        if prepared is None:
            known = self._table.get(transactional_id)
            assert known is not None  # prepare_end found its transaction complete
            return known.producer_id, known.epoch
        if commit:
            await self._partitions.flusher.flush(self._existing(prepared.partitions))
        return await self._finish(prepared)

    async def _finish(self, prepared: TransactionMetadata) -> tuple[int, int]:
        """From the decision to the end: log it, write the markers, log that they are written."""
        await self._topic.durable(*self._log(prepared))
        await self._write_markers(
            prepared.producer_id,
            prepared.epoch,
            prepared.partitions,
            commit=prepared.state is TransactionState.PREPARE_COMMIT,
        )
        completed = self._table.complete(prepared, self._clock.wall_ms())
        self._log(completed)
        self._deadlines.pop(prepared.transactional_id, None)
        return completed.producer_id, completed.epoch

    async def _write_markers(
        self, producer_id: int, epoch: int, partitions: Iterable[TopicPartition], *, commit: bool
    ) -> None:
        written = []
        for topic_partition in sorted(partitions):
            try:
                self._partitions.append_marker(
                    topic_partition,
                    producer_id,
                    epoch,
                    commit=commit,
                    coordinator_epoch=COORDINATOR_EPOCH,
                )
            except UnknownTopicError:
                continue  # deleted while the transaction was open: its records are gone
            written.append(topic_partition)
        await self._partitions.flusher.flush(self._existing(written))
        self._on_ended(producer_id, commit)

    def _start_abort(self, fenced: TransactionMetadata) -> None:
        self._table.put(fenced)
        self._deadlines.pop(fenced.transactional_id, None)
        prepared = self._table.prepare_abort(fenced, self._clock.wall_ms(), self._producer_ids.take)
        self._own(fenced.transactional_id, self._finish(prepared))

    def _own(
        self, transactional_id: str, work: Coroutine[None, None, tuple[int, int]]
    ) -> asyncio.Task[tuple[int, int]]:
        """Run `work` as the end of this transaction; `close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._ending[transactional_id] = task

        def ended(task: asyncio.Task[tuple[int, int]]) -> None:
            del self._ending[transactional_id]
            error = None if task.cancelled() else task.exception()
            known = self._table.get(transactional_id)
            if isinstance(error, StorageError) and known is not None and known.is_prepared:
                self._stuck[transactional_id] = error

        task.add_done_callback(ended)
        return task

    def _check_not_ending(self, transactional_id: str, producer_id: int, epoch: int) -> None:
        self._check_not_stuck(transactional_id)
        if transactional_id in self._ending:
            self._table.check(transactional_id, producer_id, epoch)
            raise ConcurrentTransactionsError(
                f"Transactional id {transactional_id!r}: the transaction is being ended; wait for "
                "that first."
            )

    async def _wait_for_end(self, transactional_id: str) -> None:
        while transactional_id in self._ending:
            await asyncio.wait([self._ending[transactional_id]])
            await asyncio.sleep(0)  # let `ended` see it

    def _check_not_stuck(self, transactional_id: str) -> None:
        error = self._stuck.get(transactional_id)
        if error is not None:
            raise StorageError(
                f"Transactional id {transactional_id!r}: its last transaction was decided, but "
                f"could not be finished: {error} Opening the log again finishes it."
            ) from error

    async def _reserve_producer_id(self) -> None:
        """Have a producer id at hand, so that `take` does not touch the disk on the event loop."""
        if self._producer_ids.is_empty:
            await self._partitions.run_on_disk(self._producer_ids.fill)

    def _log(self, metadata: TransactionMetadata) -> tuple[TopicPartition, int]:
        """Append the step; it counts from now on. Returns what must become durable."""
        topic_partition = self._topic.partition_of(metadata.transactional_id)
        end = self._topic.append(
            topic_partition, [encode_key(metadata.transactional_id)], [encode_value(metadata)]
        )
        self._table.put(metadata)
        return topic_partition, end

    def _existing(self, partitions: Iterable[TopicPartition]) -> list[Partition]:
        """Those that were not deleted meanwhile."""
        found = []
        for topic_partition in sorted(partitions):
            with suppress(UnknownTopicError):
                found.append(self._partitions.partition(topic_partition))
        return found
