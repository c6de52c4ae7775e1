"""A producer's side of its transactions: which state they are in, and what may be called when.

    no identity --ready--> idle --begin--> open --commit, abort--> ending --> idle, next epoch
                                             any --fenced, disk failed--> failed for good

The end of a transaction runs in a task of its own: whoever waits for it may be cancelled, the
transaction ends all the same, and the next call waits for that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from millstream.log.broker.broker import Broker
from millstream.log.errors import (
    InvalidProducerEpochError,
    InvalidTxnStateError,
    LogError,
    MillstreamError,
    ProducerFencedError,
)
from millstream.log.record import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

from .accumulator import Accumulator
from .batches import ProducerIdentity
from .offset_values import with_metadata

__all__ = ["ProducerTransaction"]


class ProducerTransaction:
    """The transactional half of one producer; without a `transactional_id`, only its identity."""

    def __init__(
        self,
        broker: Broker,
        accumulator: Accumulator,
        transactional_id: str | None,
        timeout_ms: int,
    ) -> None:
        self._broker = broker
        self._accumulator = accumulator
        self._transactional_id = transactional_id
        self._timeout_ms = timeout_ms
        self._starting = asyncio.Lock()
        self._open = False
        self._ending: asyncio.Task[tuple[int, int]] | None = None
        self._fatal: LogError | None = None
        self._holds_id = False

    @property
    def is_open(self) -> bool:
        """Between begin and the end of the transaction."""
        return self._open

    async def ready(self) -> None:
        """Have a producer id, and no transaction still ending. Raises what failed for good."""
        if self._ending is not None:
            await asyncio.wait([self._ending])
        if self._fatal is not None:
            raise self._fatal
        if self._accumulator.identity.producer_id < 0:
            async with self._starting:
                if self._accumulator.identity.producer_id < 0:
                    producer_id, epoch = await self._broker.transactions.init_producer_id(
                        self._transactional_id, self._timeout_ms
                    )
                    self._start_epoch(producer_id, epoch)
                    if self._transactional_id is not None:
                        self._broker.transactions.expiry.hold(self._transactional_id)
                        self._holds_id = True

    def release(self) -> None:
        """The producer is closed: its transactional id may be forgotten in time."""
        if self._holds_id and self._transactional_id is not None:
            self._holds_id = False
            self._broker.transactions.expiry.release(self._transactional_id)

    def begin(self) -> None:
        """Raises InvalidTxnStateError when one is open or the producer is not transactional."""
        if self._transactional_id is None:
            raise InvalidTxnStateError(
                "This producer has no transactional_id; make it with "
                "log.producer(transactional_id=...) to use transactions."
            )
        if self._open:
            raise InvalidTxnStateError(
                f"Transactional id {self._transactional_id}: a transaction is open already. "
                "Commit or abort it first."
            )
        self._open = True
        self._accumulator.begin()

    def check_can_send(self) -> None:
        """Called before each record that is sent; a transactional producer must be in one."""
        if self._transactional_id is not None:
            self._check_in_transaction()

    @contextmanager
    def noting_failure(self) -> Iterator[None]:
        """A transaction in which a send failed must not commit, whoever caught the error."""
        try:
            yield
        except (MillstreamError, TypeError, ValueError) as error:
            if self._transactional_id is not None:
                self._accumulator.failed(error)
                self._note_fatal(error)
            raise

    async def commit(self) -> None:
        """Flush and commit. When a send failed this raises that error and the transaction is
        still open: abort it."""
        self._check_in_transaction()
        await self._accumulator.flush()
        await self._end(commit=True)

    async def abort(self) -> None:
        """Drop what is not written and abort the rest."""
        self._check_in_transaction()
        self._accumulator.drop(
            InvalidTxnStateError("The transaction was aborted before this record was sent.")
        )
        self._accumulator.forget_failure()
        await self._end(commit=False)

    async def abort_after_failure(self, failure: BaseException) -> None:
        """Abort because the body of the transaction raised; `failure` gets a note if that fails."""
        try:
            await self.settle()
            if self._open and self._fatal is None:
                await self.abort()
        except MillstreamError as error:
            failure.add_note(f"And the transaction could not be aborted: {error}")

    async def close(self) -> None:
        """Abort an open transaction. One that failed for good was told to its owner already, and
        that of a fenced producer is aborted: by whoever fenced it."""
        await self.settle()
        if self._open and self._fatal is None:
            with suppress(ProducerFencedError):
                await self.abort()

    async def send_offsets(
        self,
        offsets: Mapping[TopicPartition, int | OffsetAndMetadata],
        group: str | ConsumerGroupMetadata,
    ) -> None:
        """Add a group's offsets to the open transaction."""
        self._check_in_transaction()
        if not offsets:
            return
        member = ConsumerGroupMetadata(group) if isinstance(group, str) else group
        self._accumulator.touched = True
        identity = self._accumulator.identity
        with self.noting_failure():
            await self._broker.offsets.commit_in_transaction(
                identity.transactional_id or "",
                identity.producer_id,
                identity.epoch,
                member,
                with_metadata(offsets),
            )

    async def settle(self) -> None:
        """Wait for a transaction that is ending."""
        if self._ending is not None:
            await asyncio.wait([self._ending])

    async def _end(self, *, commit: bool) -> None:
        if not self._accumulator.touched:
            self._open = False
            return
        identity = self._accumulator.identity
        ending = self._broker.transactions.end_txn(
            identity.transactional_id or "",
            identity.producer_id,
            identity.epoch,
            commit=commit,
        )
        self._ending = ending
        ending.add_done_callback(self._ended)
        await asyncio.shield(ending)

    def _ended(self, ending: asyncio.Task[tuple[int, int]]) -> None:
        self._ending = None
        self._open = False
        error = None if ending.cancelled() else ending.exception()
        if isinstance(error, LogError):
            self._fatal = error
        elif error is None and not ending.cancelled():
            self._start_epoch(*ending.result())

    def _start_epoch(self, producer_id: int, epoch: int) -> None:
        self._accumulator.start_epoch(ProducerIdentity(producer_id, epoch, self._transactional_id))

    def _note_fatal(self, error: Exception) -> None:
        if isinstance(error, ProducerFencedError | InvalidProducerEpochError):
            self._fatal = error

    def _check_in_transaction(self) -> None:
        if self._fatal is not None:
            raise self._fatal
        if not self._open or self._ending is not None:
            raise InvalidTxnStateError(
                f"Transactional id {self._transactional_id}: no transaction is open. "
                "Use `async with producer.transaction():`, or begin_transaction()."
            )
