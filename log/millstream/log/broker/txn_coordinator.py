"""The transaction coordinator at work: logs each step, writes the markers, ends what timed out.

The order of a commit, and what a crash after each step leaves:

    1. data and offsets are flushed          the transaction is open: recovery aborts it
    2. PREPARE_COMMIT is logged and flushed  the commit point: recovery rolls it forward
    3. markers to every partition, flushed   readers see it; recovery finds some markers there
    4. COMPLETE_COMMIT is logged             its fsync rides along with the next one

An abort does the same without step 1. That a transaction is open, and in which partitions, is not
logged before PREPARE, which names all of them: recovery (txn_recovery.py) looks for what is open in
the partitions themselves. But of a producer on the network it is logged, durably, before what it
announced or wrote is acknowledged: its transaction outlives this process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import TYPE_CHECKING

from millstream.log.config import BrokerConfig
from millstream.log.errors import StorageError
from millstream.log.events import event
from millstream.log.record import TopicPartition

from .partitions import Partitions
from .primitives import check_string
from .producer_ids import ProducerIds
from .transactions import still_ending
from .txn_expiry import IdExpiry
from .txn_log import TransactionLog
from .txn_markers import TransactionEnded, TransactionMarkers
from .txn_records import BY_OLD_PRODUCER, BY_PRODUCER, TransactionMetadata, TransactionState
from .txn_recovery import TransactionRecovery
from .txn_stuck import StuckTransactions

if TYPE_CHECKING:
    from millstream.log.stats import TransactionsStats

__all__ = ["TransactionCoordinator"]

logger = logging.getLogger("millstream.log")


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
        self._log = TransactionLog(partitions, config)
        self.table = self._log.table
        self.expiry = IdExpiry(self._log, config, partitions.clock)
        self._deadlines: dict[str, int] = {}  # of open transactions, monotonic
        self._ending: dict[str, asyncio.Task[tuple[int, int]]] = {}
        self._stuck = StuckTransactions(partitions.clock)
        self._markers = TransactionMarkers(partitions, on_ended)
        self._on_deadline = on_deadline
        self._committed = self._aborted = self._timed_out = self._fenced = 0

    # Requests

    async def init_producer_id(
        self,
        transactional_id: str | None,
        timeout_ms: int,
        *,
        version: int = BY_PRODUCER,
        current: tuple[int, int] | None = None,
    ) -> tuple[int, int]:
        """A producer id and epoch. With a transactional id, every earlier producer of it is fenced
        and its open transaction aborted, before this returns. `version` and `current` are those of
        `TransactionTable.init`.

        Raises:
            InvalidRequestError, InvalidTransactionTimeoutError: the id or the time-out is none
                Kafka would take.
            ProducerFencedError: `current` is not in force.
            StorageError: the disk failed.
        """
        if transactional_id is not None:
            check_string("Transactional id", transactional_id)
        await self._reserve_producer_id()
        if transactional_id is None:
            return self._producer_ids.take(), 0
        await self._log.create_if_missing()
        while True:
            await self._when_quiet(transactional_id)
            metadata = self.table.init(
                transactional_id,
                timeout_ms,
                self._clock.wall_ms(),
                self._producer_ids.take,
                version=version,
                current=current,
            )
            if metadata.state is TransactionState.EMPTY:
                await self._log.write_durably(metadata)
                return metadata.producer_id, metadata.epoch
            abort = self._start_abort(metadata, "another producer took over")
            if current is not None:
                current = await asyncio.shield(abort)  # it may leave another producer id

    def add_partitions(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        partitions: Collection[TopicPartition],
        *,
        announced: bool = False,
        version: int | None = None,
    ) -> tuple[TopicPartition, int] | None:
        """These partitions are about to be written to in the transaction; the first begins it. With
        a `version` (of producers on the network) returns what must be durable before the write is.

        Raises:
            ProducerFencedError: the producer is not the one in force.
            ConcurrentTransactionsError: its last transaction is still being completed.
            InvalidTxnStateError: the producer had to announce them, and did not.
        """
        self._check_not_ending(transactional_id, producer_id, epoch)
        who, now_ms = (transactional_id, producer_id, epoch), self._clock.wall_ms()
        metadata = self.table.add_partitions(
            *who, partitions, now_ms, announced=announced, version=version
        )
        if metadata is None:
            return None
        logged = None
        if version == BY_PRODUCER:
            logged = self._log.write(metadata)
        else:  # of this process, or announced: then the announcement is logged
            self.table.put(metadata)
        if transactional_id not in self._deadlines:
            self._set_deadline(transactional_id, metadata.timeout_ms)
        return logged

    async def announce_partitions(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        partitions: Collection[TopicPartition],
    ) -> None:
        """The producer says what it will write to; when this returns it is on disk, and the
        transaction goes on should the log be opened again. Raises as `add_partitions`."""
        identity = transactional_id, producer_id, epoch
        self.add_partitions(*identity, partitions, announced=True, version=BY_OLD_PRODUCER)
        await self._log.write_durably(self.table.check(*identity))

    def end_txn(
        self,
        transactional_id: str,
        producer_id: int,
        epoch: int,
        *,
        commit: bool,
        version: int | None = None,
    ) -> asyncio.Task[tuple[int, int]]:
        """End the transaction: a task that answers the producer id and epoch of the next one, when
        the markers are durable. It runs to its end whether or not somebody waits for it.

        Raises:
            ConcurrentTransactionsError: it is being ended already.
            ProducerFencedError, InvalidTxnStateError: nothing changed; also from the task.
            StorageError: (the task) the disk failed. Before the commit point the transaction is
                still open; after it what was decided is finished when a full disk has room again,
                or when the log is opened again.
        """
        self._stuck.check(transactional_id)
        if transactional_id in self._ending:
            self.table.check_end(transactional_id, producer_id, epoch, commit=commit)
            raise still_ending(transactional_id)
        who = transactional_id, producer_id, epoch
        prepare = partial(self.table.prepare_end, *who, commit=commit, version=version)
        return self._own(transactional_id, self._end(transactional_id, prepare))

    async def terminate(self, transactional_id: str) -> bool:
        """Abort the open transaction of an id, whoever has it, and fence its producer; whether
        there was one. One that is being ended ends as was decided. Raises as
        `Log.terminate_transaction`."""
        from .txn_admin import unknown_id  # only an operator needs it

        await self._when_quiet(transactional_id)
        known = self.table.get(transactional_id)
        if known is None:
            raise unknown_id(transactional_id)
        if known.state is not TransactionState.ONGOING:
            return False
        self._start_abort(self.table.fence(known, self._clock.wall_ms()), "terminated")
        await self._wait_for_end(transactional_id)
        self._stuck.check(transactional_id)
        return True

    # Time

    def next_deadline_ms(self) -> int:
        """Monotonic time at which `let_time_pass` has something to do: the next time-out of a
        transaction, exactly; the next try to end a stuck one; the next look for ids to forget."""
        return min((self.expiry.next_look_ms, *self._deadlines.values(), *self._stuck.retries()))

    async def let_time_pass(self, now_ms: int) -> None:
        """Try again to end what is stuck; abort what was open longer than its
        transaction.timeout.ms, and fence its producer; forget ids that were idle for long.

        Raises:
            StorageError: the disk failed.
        """
        for transactional_id in self._stuck.take_due(now_ms):
            self._own(transactional_id, self._end_stuck(transactional_id))
        await self._abort_timed_out(now_ms)
        self.expiry.let_time_pass(now_ms, busy=self._ending)

    async def _abort_timed_out(self, now_ms: int) -> None:
        """All together: groups wait for this, and need not wait for one after the other."""
        aborts = []
        for each in [each for each, deadline in self._deadlines.items() if deadline <= now_ms]:
            await self._reserve_producer_id()
            if self._deadlines.get(each, now_ms + 1) > now_ms:
                continue  # it was ended while this waited, and maybe another began
            known = self.table.get(each)
            if each in self._ending or known is None or known.state is not TransactionState.ONGOING:
                self._deadlines.pop(each, None)
                continue
            self._timed_out += 1
            fenced = self.table.fence(known, self._clock.wall_ms())
            aborts.append(self._start_abort(fenced, "timed out"))
        if aborts:
            await asyncio.wait(aborts)

    def stats(self) -> TransactionsStats:
        """Where the coordinator stands."""
        from millstream.log.stats import TransactionsStats  # when it is used

        now_open = sum(each.state is TransactionState.ONGOING for each in self.table)
        now = len(self.table), now_open, len(self._ending), len(self._stuck)
        counted = self._committed, self._aborted, self._timed_out, self._fenced
        return TransactionsStats(*now, *counted, self.expiry.expired)

    async def close(self) -> None:
        """Let every transaction that is ending end."""
        while self._ending:
            await asyncio.wait(list(self._ending.values()))
            await asyncio.sleep(0)  # let `ended` see it

    # Recovery

    async def recover(self) -> None:
        """Read the state, finish what was prepared, abort what was open."""
        recovery = TransactionRecovery(
            self._log, self._partitions, self, self._markers, self._clock
        )
        await recovery.run()
        try:
            self.expiry.let_time_pass(self._clock.monotonic_ms(), busy=self._ending)
        except StorageError as error:  # a full disk: no reason not to open the log
            logger.warning("Idle transactional ids are kept for now: %s", error)

    async def abort(self, metadata: TransactionMetadata) -> tuple[int, int]:
        """Abort what is fenced, or recovery found open; it has the partitions and the epoch."""
        await self._reserve_producer_id()
        return await self._finish(
            self.table.prepare_abort(metadata, self._clock.wall_ms(), self._producer_ids.take)
        )

    def resume(self, metadata: TransactionMetadata) -> None:
        """Recovery found it open, and it may go on: it has the rest of its time."""
        left_ms = metadata.start_ms + metadata.timeout_ms - self._clock.wall_ms()
        left_ms = min(max(left_ms, 0), metadata.timeout_ms)
        self._set_deadline(metadata.transactional_id, left_ms)

    # Steps

    async def _end(
        self, transactional_id: str, prepare: Callable[..., TransactionMetadata | None]
    ) -> tuple[int, int]:
        await self._reserve_producer_id()
        prepared = prepare(now_ms=self._clock.wall_ms(), new_producer_id=self._producer_ids.take)
        if prepared is None:
            known = self.table.get(transactional_id)
            assert known is not None  # prepare_end found its transaction complete
            return known.producer_id, known.epoch
        if prepared.state is TransactionState.PREPARE_COMMIT:
            await self._markers.flush(prepared.partitions)
        return await self._finish(prepared)

    async def _finish(self, prepared: TransactionMetadata) -> tuple[int, int]:
        """From the decision to the end: log it, write the markers, log that they are written."""
        await self._log.write_durably(prepared)
        return await self._complete(prepared)

    async def _end_stuck(self, transactional_id: str) -> tuple[int, int]:
        """Go on where the disk stopped its end; markers that are there are not written again."""
        known = self.table.get(transactional_id)
        assert known is not None  # an id in a transaction is not forgotten
        if known.state is TransactionState.PREPARE_EPOCH_FENCE:
            return await self.abort(known)
        return await self._complete(known)

    async def _complete(self, prepared: TransactionMetadata) -> tuple[int, int]:
        await self._markers.write(
            prepared.producer_id,
            prepared.epoch,
            prepared.partitions,
            commit=prepared.state is TransactionState.PREPARE_COMMIT,
        )
        completed = self.table.complete(prepared, self._clock.wall_ms())
        self._log.write(completed)
        self._deadlines.pop(prepared.transactional_id, None)
        if completed.state is TransactionState.COMPLETE_COMMIT:
            self._committed += 1
        else:
            self._aborted += 1
        return completed.producer_id, completed.epoch

    def _start_abort(self, fenced: TransactionMetadata, why: str) -> asyncio.Task[tuple[int, int]]:
        self._fenced += why != "timed out"
        event(
            "transaction aborted",
            logging.WARNING,
            transactional_id=fenced.transactional_id,
            producer_id=fenced.producer_id,
            epoch=fenced.epoch,
            partitions=len(fenced.partitions),
            reason=why,
        )
        self.table.put(fenced)
        self._deadlines.pop(fenced.transactional_id, None)
        return self._own(fenced.transactional_id, self.abort(fenced))

    def _own(
        self, transactional_id: str, work: Coroutine[None, None, tuple[int, int]]
    ) -> asyncio.Task[tuple[int, int]]:
        """Run `work` as the end of this transaction; `close` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._ending[transactional_id] = task

        def ended(task: asyncio.Task[tuple[int, int]]) -> None:
            del self._ending[transactional_id]
            error = None if task.cancelled() else task.exception()
            known = self.table.get(transactional_id)
            if known is None:
                return
            if error is not None and known.is_prepared:
                self._note_stuck(known, error)
                return
            self._stuck.ended(transactional_id)
            if known.state is TransactionState.ONGOING and transactional_id not in self._deadlines:
                self._set_deadline(transactional_id, 0)  # it passed while the end was tried

        task.add_done_callback(ended)
        return task

    def _note_stuck(self, known: TransactionMetadata, error: BaseException) -> None:
        needed = {self._log.partition_of(known.transactional_id), *known.partitions}
        failed = any(each.failed for each in self._markers.existing(needed))
        self._stuck.note(known.transactional_id, error, needs_reopening=failed)
        self._on_deadline(self.next_deadline_ms())

    def _check_not_ending(self, transactional_id: str, producer_id: int, epoch: int) -> None:
        self._stuck.check(transactional_id)
        if transactional_id in self._ending:
            self.table.check(transactional_id, producer_id, epoch)
            raise still_ending(transactional_id)

    def _set_deadline(self, transactional_id: str, after_ms: int) -> None:
        deadline_ms = self._clock.monotonic_ms() + after_ms
        self._deadlines[transactional_id] = deadline_ms
        self._on_deadline(deadline_ms)

    async def _wait_for_end(self, transactional_id: str) -> None:
        while transactional_id in self._ending:
            await asyncio.wait([self._ending[transactional_id]])
            await asyncio.sleep(0)  # let `ended` see it

    async def _when_quiet(self, transactional_id: str) -> None:
        """Wait until no end of it runs and a producer id is at hand, both at the same moment."""
        while transactional_id in self._ending or self._producer_ids.is_empty:
            await self._wait_for_end(transactional_id)
            await self._reserve_producer_id()
        self._stuck.check(transactional_id)

    async def _reserve_producer_id(self) -> None:
        """Have a producer id at hand, so that `take` does not touch the disk on the event loop."""
        if self._producer_ids.is_empty:
            await self._partitions.run_on_disk(self._producer_ids.fill)
