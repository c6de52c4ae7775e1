"""The transactions of one producer: whether one is open, and the calls that begin and end it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka import Producer as LibrdkafkaProducer
from confluent_kafka import TopicPartition as Place

from millstream.log.errors import InvalidTxnStateError, LogError, LogTimeoutError
from millstream.log.record import ConsumerGroupMetadata, OffsetAndMetadata, TopicPartition

from .deliveries import Deliveries
from .errors import raised_as_ours
from .group_metadata import group_metadata_to
from .own_thread import OwnThread

__all__ = ["TransactionCalls"]

_PATIENCE = 3
"""Times the time-out that librdkafka is told until it is taken at its word: it does not always keep
to it, and calls that nobody waits for any more may come first."""


class TransactionCalls:
    """Every call is made in the producer's thread: that knows what cancelled ones have done.

    Args:
        name: of the producer, for messages.
        timeout_s: how long an answer is waited for; what is decided then, the next producer of the
            same transactional id learns.
    """

    def __init__(
        self, thread: OwnThread, name: str, timeout_s: float, is_transactional: bool
    ) -> None:
        self._thread = thread
        self._name = name
        self._timeout_s = timeout_s
        self._is_transactional = is_transactional
        self.is_open = False

    def check_can_send(self) -> None:
        """Raises InvalidTxnStateError."""
        if self._is_transactional and not self.is_open:
            raise InvalidTxnStateError(
                f"{self._name} has no open transaction. Send inside `async with "
                "producer.transaction():`."
            )

    async def begin(self, producer: LibrdkafkaProducer, deliveries: Deliveries) -> None:
        """Cancelled, it has begun nothing. Raises InvalidTxnStateError."""
        if not self._is_transactional:
            raise InvalidTxnStateError(
                f"{self._name} has no transactions; make it with transactional_id=..."
            )

        def begin() -> None:
            if self.is_open:
                raise InvalidTxnStateError(
                    f"{self._name}: a transaction is open already. Commit or abort it first."
                )
            deliveries.forget_failure()
            producer.begin_transaction()
            self.is_open = True

        try:
            await self._made(deliveries, begin)
        except asyncio.CancelledError:
            self._thread.post(lambda: self._undo(producer))
            raise

    def _undo(self, producer: LibrdkafkaProducer) -> None:
        with suppress(KafkaException):
            if self.is_open:
                self.abort_now(producer)

    async def commit(self, producer: LibrdkafkaProducer, deliveries: Deliveries) -> None:
        """Flushes, too. Raises what a record failed by, if one did."""

        def commit() -> None:
            self._check_open()
            producer.commit_transaction(self._timeout_s)
            self.is_open = False

        try:
            await self._made(deliveries, commit)
        except LogError:
            deliveries.raise_failure()
            raise

    async def abort(self, producer: LibrdkafkaProducer, deliveries: Deliveries) -> None:
        """What failed in it is forgotten."""

        def abort() -> None:
            self._check_open()
            try:
                self.abort_now(producer)
            finally:
                deliveries.forget_failure()

        await self._made(deliveries, abort)

    def abort_now(self, producer: LibrdkafkaProducer) -> None:
        """In the thread."""
        self.is_open = False
        producer.abort_transaction(self._timeout_s)

    async def send_offsets(
        self,
        producer: LibrdkafkaProducer,
        deliveries: Deliveries,
        offsets: Mapping[TopicPartition, OffsetAndMetadata],
        group: str | ConsumerGroupMetadata,
    ) -> None:
        """As part of the open transaction."""
        places = [Place(*tp, each.offset, each.metadata) for tp, each in offsets.items()]
        member = group_metadata_to(group)

        def send() -> None:
            self._check_open()
            if places:
                producer.send_offsets_to_transaction(places, member, self._timeout_s)

        await self._made(deliveries, send)

    def _check_open(self) -> None:
        if not self.is_open:
            raise InvalidTxnStateError(
                f"{self._name} has no open transaction. Call begin_transaction() first, of a "
                "producer with a transactional_id."
            )

    async def _made(self, deliveries: Deliveries, work: Callable[[], Any]) -> None:
        def call() -> None:
            try:
                with raised_as_ours(self._name):
                    work()
            finally:
                deliveries.tell()

        await self.awaited(call)

    async def awaited(self, call: Callable[[], Any]) -> None:
        """Have a call made in the thread, after those that nobody waits for any more.

        Raises:
            LogTimeoutError: that takes so long that the thread is given up; what has transactions.
        """
        if not self._is_transactional:
            await self._thread.run(call)
            return
        try:
            await self._thread.run_within(_PATIENCE * self._timeout_s, call)
        except LogTimeoutError as error:
            if not self._thread.is_given_up:
                raise
            raise LogTimeoutError(
                f"{self._name}: {error} It is given up. Make another with the same "
                "transactional_id: that ends this transaction."
            ) from error
