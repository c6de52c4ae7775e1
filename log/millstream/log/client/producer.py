"""The embedded producer: partitions records, hands them to the accumulator, runs transactions.

A producer has one owner, a task or several that agree among themselves. Cancelling any of its calls
leaves it usable: a cancelled send may or may not have been written, a cancelled commit goes on in
the background and the next call waits for it.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from operator import index
from types import TracebackType
from typing import TYPE_CHECKING, Self

from millstream.log.broker.broker import Broker
from millstream.log.errors import LogClosedError
from millstream.log.format.header import TIMESTAMP_MAX
from millstream.log.ids import random_seed
from millstream.log.record import (
    ConsumerGroupMetadata,
    Headers,
    OffsetAndMetadata,
    RecordMetadata,
    TopicPartition,
)

from .accumulator import Accumulator
from .batches import unfit
from .partitioner import StickyPartitioner, pick, rows_by_partition
from .settings import ProducerConfig
from .transaction import ProducerTransaction

if TYPE_CHECKING:
    from millstream.log.stats import ProducerStats

__all__ = ["EmbeddedProducer"]


class EmbeddedProducer:
    """Implements `Producer` on a log in this process; see there for what the calls mean."""

    def __init__(
        self,
        broker: Broker,
        *,
        transactional_id: str | None,
        config: ProducerConfig,
        on_close: Callable[[EmbeddedProducer], None],
    ) -> None:
        self._broker = broker
        self._on_close = on_close
        self._config = config
        self._accumulator = Accumulator(broker, config)
        self._transaction = ProducerTransaction(
            broker, self._accumulator, transactional_id, config.transaction_timeout_ms
        )
        self._sticky = StickyPartitioner(config.batch_size, random.Random(random_seed()))
        self._closed = False

    async def __aenter__(self) -> Self:
        await self._ready()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

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
        """Send one record and wait until it is acknowledged; see `Producer.send`."""
        await self._ready()
        _check_record(key, value)
        count = (await self._broker.partitions.topic_to_write(topic)).partitions
        size_bytes = (len(key) if key else 0) + (len(value) if value else 0)
        await self._accumulator.reserve(size_bytes)
        self._transaction.check_can_send()
        if partition is None:
            if key is None:
                partition = self._sticky.partition(topic, count)
                self._sticky.sent(topic, count, size_bytes)
            else:
                partition = next(iter(rows_by_partition([key], count, 0)))
        where = TopicPartition(topic, partition)
        with self._transaction.noting_failure():
            if timestamp is None:
                timestamp = self._broker.clock.wall_ms()
            elif not -1 <= (timestamp := index(timestamp)) <= TIMESTAMP_MAX:
                raise unfit(where, OverflowError(timestamp))
            waiter = self._accumulator.add(where, key, value, timestamp, headers)
        return await waiter

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
        """Hand over many records in columns; see `Producer.send_batch`."""
        await self._ready()
        if not values:
            return
        count = (await self._broker.partitions.topic_to_write(topic)).partitions
        await self._accumulator.reserve(self._config.batch_size)
        self._transaction.check_can_send()
        _check_columns(len(values), keys, timestamps, headers)
        if timestamps is None:
            timestamps = [self._broker.clock.wall_ms()] * len(values)
        if partition is None and count == 1:
            partition = 0
        with self._transaction.noting_failure():
            if partition is not None:
                self._accumulator.add_columns(
                    TopicPartition(topic, partition), keys, values, timestamps, headers
                )
            elif keys is None:
                self._send_sticky(topic, count, values, timestamps, headers)
            else:
                self._send_by_key(topic, count, values, keys, timestamps, headers)

    def _send_sticky(
        self,
        topic: str,
        count: int,
        values: Sequence[bytes | None],
        timestamps: Sequence[int],
        headers: Sequence[Headers] | None,
    ) -> None:
        partition = self._sticky.partition(topic, count)
        size_bytes = self._accumulator.add_columns(
            TopicPartition(topic, partition), None, values, timestamps, headers
        )
        self._sticky.sent(topic, count, size_bytes)

    def _send_by_key(
        self,
        topic: str,
        count: int,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        timestamps: Sequence[int],
        headers: Sequence[Headers] | None,
    ) -> None:
        sticky = self._sticky.partition(topic, count)
        for partition, rows in rows_by_partition(keys, count, sticky).items():
            size_bytes = self._accumulator.add_columns(
                TopicPartition(topic, partition),
                pick(keys, rows),
                pick(values, rows),
                pick(timestamps, rows),
                pick(headers, rows) if headers is not None else None,
            )
            if partition == sticky:
                self._sticky.sent(topic, count, size_bytes)

    async def flush(self) -> None:
        """Wait until everything handed over is acknowledged; raise the first failure."""
        self._check_open()
        await self._accumulator.flush()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commit at the end of the body, abort when it raises."""
        await self.begin_transaction()
        try:
            yield
            await self.commit_transaction()
        except BaseException as failure:
            await self._transaction.abort_after_failure(failure)
            raise

    async def begin_transaction(self) -> None:
        """Open a transaction. Raises InvalidTxnStateError when one is open."""
        await self._ready()
        self._transaction.begin()

    async def commit_transaction(self) -> None:
        """Flush, then commit; see `Producer.commit_transaction`."""
        await self._ready()
        await self._transaction.commit()

    async def abort_transaction(self) -> None:
        """Give up everything sent since the transaction began."""
        await self._ready()
        await self._transaction.abort()

    async def send_offsets(
        self,
        offsets: Mapping[TopicPartition, int | OffsetAndMetadata],
        *,
        group: str | ConsumerGroupMetadata,
    ) -> None:
        """Commit consumer offsets as part of the open transaction; see `Producer.send_offsets`."""
        await self._ready()
        await self._transaction.send_offsets(offsets, group)

    def stats(self) -> ProducerStats:
        """Where this producer stands."""
        from millstream.log.stats import ProducerStats  # when it is used

        identity = self._accumulator.identity
        return ProducerStats(
            identity.producer_id,
            identity.epoch,
            self._accumulator.records_sent,
            self._accumulator.batches_sent,
            self._accumulator.buffered_bytes,
            self._transaction.is_open,
        )

    async def close(self) -> None:
        """Flush what was sent, abort an open transaction. Again is harmless."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._transaction.is_open:
                await self._transaction.close()
            else:
                await self._accumulator.flush()
        finally:
            try:
                await self._transaction.settle()
            finally:
                self._transaction.release()
                closed = LogClosedError("The producer was closed before this was sent.")
                self._accumulator.drop(closed)
                self._on_close(self)

    async def _ready(self) -> None:
        self._check_open()
        await self._transaction.ready()

    def _check_open(self) -> None:
        if self._closed:
            raise LogClosedError("The producer is closed; make another with log.producer().")


def _check_record(key: bytes | None, value: bytes | None) -> None:
    """A record that cannot be encoded must not take the others of its batch along."""
    for name, field in (("key", key), ("value", value)):
        if field is not None and not isinstance(field, bytes):
            raise TypeError(f"The {name} is {type(field).__name__}; a record is made of bytes.")


def _check_columns(
    count: int,
    keys: Sequence[bytes | None] | None,
    timestamps: Sequence[int] | None,
    headers: Sequence[Headers] | None,
) -> None:
    for name, column in (("keys", keys), ("timestamps", timestamps), ("headers", headers)):
        if column is not None and len(column) != count:
            raise ValueError(f"send_batch got {count} values and {len(column)} {name}.")
