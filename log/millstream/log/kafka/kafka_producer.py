"""The producer on a cluster: hands records to librdkafka, collects what it reports, runs
transactions.

librdkafka has threads of its own that send. Two of ours wait for it: one makes the calls that block
(flush, commit, ...), one has delivery reports called back while there are any to come. What they
find is handed to the event loop once for many.

A producer has one owner, a task or several that agree among themselves. Cancelling any of its calls
leaves it usable: a cancelled send may or may not have been written, a cancelled commit goes on in
the background and the next call waits for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaException
from confluent_kafka import Producer as LibrdkafkaProducer

from millstream.log.client.offset_values import with_metadata
from millstream.log.errors import (
    BufferFullError,
    ConfigError,
    InvalidTxnStateError,
    LogClosedError,
    LogError,
    RetriableError,
    UnknownTopicError,
)
from millstream.log.record import (
    ConsumerGroupMetadata,
    Headers,
    OffsetAndMetadata,
    RecordMetadata,
    TopicPartition,
)

from .deliveries import Deliveries
from .errors import error_of, raised_as_ours
from .own_thread import OwnThread
from .recent_topics import RecentTopics
from .retrying import patiently
from .settings import KafkaProducerConfig
from .transaction_calls import TransactionCalls

__all__ = ["KafkaProducer"]

logger = logging.getLogger("millstream.log.librdkafka")

RECORDS_AT_ONCE: Final = 1000
"""Records handed over without letting others run: about a millisecond."""
FLUSH_SLICE_S: Final = 0.05
"""How long those who wait for one record may wait for a flush that gets its report."""
ANSWER_MIN_S: Final = 30.0
"""How long the end of a transaction is waited for at least: servers may be starting again."""
_ANY_PARTITION: Final = -1


class KafkaProducer:
    """Implements `Producer` on a cluster; see there for what the calls mean."""

    def __init__(
        self,
        connection: Mapping[str, Any],
        url: str,
        *,
        transactional_id: str | None,
        config: KafkaProducerConfig,
        recent: RecentTopics,
        on_close: Callable[[KafkaProducer], None],
    ) -> None:
        if transactional_id == "":
            raise ConfigError("transactional_id is empty. Give the producer a name, or None.")
        self._url = url
        self._transactional_id = transactional_id
        self._config = config
        self._recent = recent
        self._on_close = on_close
        self._settings = {
            **config.for_librdkafka(transactional_id, connection),
            "error_cb": self._failed,
            "logger": logger,
        }
        self._timeout_s = max(ANSWER_MIN_S, config.transaction_timeout_ms / 1000)
        self._thread = OwnThread("millstream-kafka-producer")
        self._transaction = TransactionCalls(
            self._thread, self._name, self._timeout_s, transactional_id is not None
        )
        self._producer: LibrdkafkaProducer | None = None
        self._deliveries: Deliveries | None = None
        self._starting: asyncio.Future[None] | None = None
        self._partition_counts: dict[str, int] = {}
        self._closed = False
        self.records_sent = 0

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

    @property
    def buffered_records(self) -> int:
        """Handed over and not acknowledged."""
        return len(self._producer) if self._producer is not None else 0

    # Starting

    async def _ready(self) -> tuple[LibrdkafkaProducer, Deliveries]:
        self._check_open()
        if self._producer is None or self._deliveries is None:
            if self._starting is None or (
                self._starting.done() and self._starting.exception() is not None
            ):
                self._starting = self._thread.submit(self._start)
            await asyncio.shield(self._starting)
            self._check_open()
        assert self._producer is not None
        assert self._deliveries is not None
        return self._producer, self._deliveries

    def _start(self) -> None:
        """In the thread. A transactional producer ends what one of its id before it left."""
        with raised_as_ours(self._name):
            producer = LibrdkafkaProducer(self._settings)
        if self._transactional_id is not None:
            patiently(partial(self._begin, producer))
        self._deliveries = Deliveries(producer)
        self._producer = producer

    def _begin(self, producer: LibrdkafkaProducer) -> None:
        with raised_as_ours(self._name):
            producer.init_transactions(self._timeout_s)

    def _failed(self, error: Any) -> None:
        """What concerns no record in particular; what does is reported with it."""
        logger.info("%s: %s", self._name, error.str())

    @property
    def _name(self) -> str:
        if self._transactional_id is None:
            return f"Producer on {self._url}"
        return f"Producer {self._transactional_id}"

    # Sending

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
        _, deliveries = await self._ready()
        _check_bytes(key, value)
        await self._check_topic(topic, partition)
        self._transaction.check_can_send()
        answer: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        report = deliveries.reported_to(answer)
        rows = [(value, key, timestamp or 0, headers)]
        await self._hand_over(topic, rows, _or_any(partition), report)
        return await answer

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
        _, deliveries = await self._ready()
        if not values:
            return
        count = len(values)
        for name, column in (("keys", keys), ("timestamps", timestamps), ("headers", headers)):
            if column is not None and len(column) != count:
                raise ValueError(f"send_batch got {count} values and {len(column)} {name}.")
        await self._check_topic(topic, partition)
        self._transaction.check_can_send()
        rows = list(
            zip(
                values,
                keys if keys is not None else (None,) * count,
                timestamps if timestamps is not None else (0,) * count,
                headers if headers is not None else ((),) * count,
                strict=True,
            )
        )
        await self._hand_over(topic, rows, _or_any(partition), deliveries.report)

    async def _hand_over(
        self,
        topic: str,
        rows: list[tuple[bytes | None, bytes | None, int, Headers]],
        partition: int,
        report: Callable[..., None],
    ) -> None:
        """To librdkafka's buffer, in order, waiting while it is full."""
        producer, deliveries = await self._ready()
        produce = producer.produce
        full_until: float | None = None
        at = 0
        while at < len(rows):
            before = at
            try:
                with raised_as_ours(f"Topic {topic}"):
                    for value, key, timestamp, headers in rows[at : at + RECORDS_AT_ONCE]:
                        if headers:
                            produce(
                                topic, value, key, partition, report, None, timestamp, list(headers)
                            )
                        else:
                            produce(topic, value, key, partition, report, None, timestamp)
                        at += 1
            except BufferError:
                full_until = await self._wait_for_room(deliveries, full_until)
            except InvalidTxnStateError as error:
                if not self._transaction.is_open:
                    raise
                raise deliveries.failure or RetriableError(
                    f"{self._name}: the transaction has failed. Abort it, and try again."
                ) from error
            finally:
                self.records_sent += at - before
                deliveries.expect()
            if at > before:
                full_until = None
            if at < len(rows):
                await asyncio.sleep(0)
                self._check_open()  # still

    async def _wait_for_room(self, deliveries: Deliveries, until: float | None) -> float:
        """Raises BufferFullError when the buffer stayed full for max.block.ms."""
        now = asyncio.get_running_loop().time()
        if until is None:
            until = now + self._config.max_block_ms / 1000
        if now >= until:
            raise BufferFullError(
                f"{self._name}: the buffer of {self._config.buffer_memory} bytes stayed full for "
                f"{self._config.max_block_ms} ms. Send less at once, or raise buffer.memory or "
                "max.block.ms."
            )
        await deliveries.next_report(until - now)
        return until

    async def _check_topic(self, topic: str, partition: int | None) -> None:
        """librdkafka would look for an unknown topic for half a minute."""
        count = self._partition_counts.get(topic)
        if count is None or (partition is not None and partition >= count):
            asked = partial(self._ask_partitions, topic)
            count = await self._thread.run(partial(patiently, asked))
            self._partition_counts[topic] = count
        if partition is not None and not 0 <= partition < count:
            raise UnknownTopicError(
                f"Topic {topic} has partitions 0 to {count - 1}, not {partition}."
            )

    def _ask_partitions(self, topic: str) -> int:
        """In the thread."""
        assert self._producer is not None
        with self._recent.known(topic), raised_as_ours(f"Topic {topic}"):
            found = self._producer.list_topics(topic, 30.0).topics[topic]
            if found.error is not None:
                raise error_of(found.error, f"Topic {topic}")
        return len(found.partitions)

    async def flush(self) -> None:
        """Wait until everything handed over is acknowledged; raise the first failure."""
        _, deliveries = await self._ready()
        await self._thread.run(self._flush)
        deliveries.raise_failure()

    def _flush(self) -> None:
        """In the thread. delivery.timeout.ms ends it."""
        assert self._producer is not None
        assert self._deliveries is not None
        left = 1
        while left > 0:
            try:
                left = self._producer.flush(FLUSH_SLICE_S)
            except KafkaException as raised:
                self._deliveries.note(raised)
            self._deliveries.tell()

    # Transactions

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commit at the end of the body, abort when it raises."""
        await self.begin_transaction()
        try:
            yield
            await self.commit_transaction()
        except BaseException as failure:
            await self._abort_after(failure)
            raise

    async def _abort_after(self, failure: BaseException) -> None:
        if not self._transaction.is_open or self._closed:
            return
        try:
            await self.abort_transaction()
        except LogError as error:
            logger.warning("%s: not aborted after %r: %s", self._name, failure, error)

    async def begin_transaction(self) -> None:
        """Open a transaction. Raises InvalidTxnStateError when one is open."""
        await self._transaction.begin(*await self._ready())

    async def commit_transaction(self) -> None:
        """Flush, then commit; see `Producer.commit_transaction`."""
        await self._transaction.commit(*await self._ready())

    async def abort_transaction(self) -> None:
        """Give up everything sent since the transaction began."""
        await self._transaction.abort(*await self._ready())

    async def send_offsets(
        self,
        offsets: Mapping[TopicPartition, int | OffsetAndMetadata],
        *,
        group: str | ConsumerGroupMetadata,
    ) -> None:
        """Commit consumer offsets as part of the open transaction; see `Producer.send_offsets`."""
        producer, deliveries = await self._ready()
        await self._transaction.send_offsets(producer, deliveries, with_metadata(offsets), group)

    # The end

    async def close(self) -> None:
        """Flush what was sent, abort an open transaction. Again is harmless."""
        if self._closed:
            return
        self._closed = True
        self._on_close(self)
        try:
            if self._starting is not None and not self._thread.is_given_up:
                await self._transaction.awaited(self._end)  # after the start, if that goes on
        finally:
            if self._thread.is_given_up:
                await asyncio.to_thread(self._let_go)
            await self._thread.stop()

    def _end(self) -> None:
        """In the thread."""
        if self._producer is None or self._deliveries is None:
            return  # it could not start
        try:
            if self._transaction.is_open:
                with raised_as_ours(self._name):
                    self._transaction.abort_now(self._producer)
            else:
                self._flush()
                self._deliveries.raise_failure()
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._deliveries is not None:
            self._deliveries.stop()
        self._producer = self._deliveries = None

    def _check_open(self) -> None:
        if self._closed:
            raise LogClosedError("The producer is closed; make another with log.producer().")


def _or_any(partition: int | None) -> int:
    return _ANY_PARTITION if partition is None else partition


def _check_bytes(key: bytes | None, value: bytes | None) -> None:
    for name, field in (("key", key), ("value", value)):
        if field is not None and not isinstance(field, bytes):
            raise TypeError(f"The {name} is {type(field).__name__}; a record is made of bytes.")
