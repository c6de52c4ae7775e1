"""What a producer holds between `send` and the acknowledgement: open batches, sequences, bytes.

A record sent alone waits in its partition's open batch until the batch is full or `linger.ms` has
passed. Then, and at once for records handed over in columns, the batch is encoded and appended in
one step, with nothing awaited in between: a cancelled caller can neither tear a batch nor a
sequence.

Acknowledgements are counted per batch. Inside a transaction nobody but its end waits for the disk,
so the fsync is left to it, except that a long transaction is flushed every megabyte on the way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from millstream.log.broker.broker import Broker
from millstream.log.errors import BufferFullError, LogError
from millstream.log.format.codec import HEADER_SIZE_BYTES, encode_batch, estimate_size, fill_batches
from millstream.log.limits import UNFLUSHED_BYTES_MAX
from millstream.log.record import Headers, RecordMetadata, TopicPartition
from millstream.log.storage.partition import AppendInfo

from .batches import (
    SEQUENCES,
    OpenBatch,
    PartitionQueue,
    ProducerIdentity,
    answer,
    fail,
    too_large,
    too_late,
    unfit,
    wake,
)
from .settings import CODECS, ProducerConfig

__all__ = ["Accumulator"]


class Accumulator:
    """The buffer of one producer. Belongs to the event loop."""

    def __init__(self, broker: Broker, config: ProducerConfig) -> None:
        self._broker = broker
        self._config = config
        self._codecs = {  # of a batch, by the topic's compression.type
            **CODECS,
            "uncompressed": CODECS["none"],
            "producer": CODECS[config.compression_type],
        }
        self._identity = ProducerIdentity(-1, -1)
        self._queues: dict[TopicPartition, PartitionQueue] = {}
        self._in_flight: set[asyncio.Future[None]] = set()
        self._room: list[asyncio.Future[None]] = []
        self._failure: BaseException | None = None
        self.touched = False
        """Whether the open transaction was written to, or may have been."""
        self.buffered_bytes = 0
        self.records_sent = 0
        self.batches_sent = 0

    @property
    def identity(self) -> ProducerIdentity:
        """Producer id and epoch of the next batch."""
        return self._identity

    def start_epoch(self, identity: ProducerIdentity) -> None:
        """Go on under a new producer id or epoch: every sequence starts at 0 again (KIP-890)."""
        self._identity = identity
        for queue in self._queues.values():
            queue.sequence = 0

    async def reserve(self, size_bytes: int) -> None:
        """Wait until the buffer has room. A single thing larger than the buffer goes in alone.

        Raises:
            BufferFullError: no room within `max.block.ms`.
        """
        if self.buffered_bytes and self.buffered_bytes + size_bytes > self._config.buffer_memory:
            await self._wait_for_room(size_bytes)

    async def _wait_for_room(self, size_bytes: int) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self._config.max_block_ms / 1000
        while self.buffered_bytes and (
            self.buffered_bytes + size_bytes > self._config.buffer_memory
        ):
            self.drain()
            self._flush_all()
            room: asyncio.Future[None] = loop.create_future()
            self._room.append(room)
            timer = loop.call_at(end, wake, room)
            try:
                await room
            finally:
                timer.cancel()
            if loop.time() >= end:
                raise BufferFullError(
                    f"{self.buffered_bytes} bytes wait for their acknowledgement, buffer.memory is "
                    f"{self._config.buffer_memory}; there was no room within max.block.ms="
                    f"{self._config.max_block_ms}. Send less at once or raise buffer.memory."
                )

    def add(
        self,
        topic_partition: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        timestamp: int,
        headers: Headers,
    ) -> asyncio.Future[RecordMetadata]:
        """Put one record into the partition's open batch.

        Raises:
            RecordTooLargeError, UnknownTopicError, InvalidRecordError, TypeError: not taken.
        """
        try:
            size_bytes = estimate_size(key, value, headers)
        except UnicodeEncodeError as error:
            raise unfit(topic_partition, error) from error
        size_bytes_max = self._size_bytes_max(topic_partition)
        if size_bytes + HEADER_SIZE_BYTES > size_bytes_max:
            self._check_alone(topic_partition, key, value, timestamp, headers)
        queue = self._queue(topic_partition)
        batch = queue.open
        limit = min(self._config.batch_size, size_bytes_max)
        if batch is not None and batch.size_bytes + size_bytes > limit:
            self._close_batch(queue)
            batch = None
        if batch is None:
            batch = queue.open = OpenBatch()
            batch.timer = asyncio.get_running_loop().call_later(
                self._config.linger_ms / 1000, self._close_batch, queue
            )
        batch.keys.append(key)
        batch.values.append(value)
        batch.timestamps.append(timestamp)
        batch.headers.append(headers)
        batch.has_headers = batch.has_headers or bool(headers)
        waiter: asyncio.Future[RecordMetadata] = asyncio.get_running_loop().create_future()
        batch.waiters.append(waiter)
        batch.size_bytes += size_bytes
        self.buffered_bytes += size_bytes
        if batch.size_bytes >= limit:
            self._close_batch(queue)
        return waiter

    def add_columns(
        self,
        topic_partition: TopicPartition,
        keys: Sequence[bytes | None] | None,
        values: Sequence[bytes | None],
        timestamps: Sequence[int],
        headers: Sequence[Headers] | None,
    ) -> int:
        """Encode and append many records of one partition, as few batches; returns their bytes.

        Raises:
            RecordTooLargeError, InvalidRecordError, UnknownTopicError: nothing was written.
            StorageError, ProducerFencedError, ...: as `Broker.append`.
        """
        size_bytes_max = self._size_bytes_max(topic_partition)
        limit = min(self._config.batch_size, size_bytes_max)
        queue = self._queue(topic_partition)
        if queue.open is not None:
            self._close_batch(queue)  # sent earlier, so written earlier
        sequence, start, count = queue.sequence, 0, len(values)
        batches: list[tuple[bytes, int]] = []
        while start < count:
            try:
                stop = fill_batches(keys, values, timestamps, headers, start, limit)
                batch = self._encode(
                    topic_partition, keys, values, timestamps, headers, start, stop, sequence
                )
            except (OverflowError, UnicodeEncodeError) as error:
                raise unfit(topic_partition, error) from error
            if len(batch) > size_bytes_max:
                raise too_large(topic_partition, len(batch), size_bytes_max)
            batches.append((batch, stop - start))
            sequence = (sequence + stop - start) % SEQUENCES
            start = stop
        size_bytes = 0
        try:
            for batch, records in batches:
                self._append(queue, batch, records)
                size_bytes += len(batch)
        finally:  # those before one that the disk refused are written
            self.buffered_bytes += size_bytes
            if size_bytes:
                self._unflushed(queue, size_bytes)
        return size_bytes

    def drain(self) -> None:
        """Write every open batch now."""
        for queue in self._queues.values():
            if queue.open is not None:
                self._close_batch(queue)

    async def flush(self) -> None:
        """Wait until all that was added is acknowledged; raise what failed first.

        Raises:
            LogTimeoutError: not within `delivery.timeout.ms`; it may still be written.
        """
        self.drain()
        self._flush_all()
        if self._in_flight:
            timeout_s = self._config.delivery_timeout_ms / 1000
            _, late = await asyncio.wait(list(self._in_flight), timeout=timeout_s)
            if late:
                raise too_late(self._config.delivery_timeout_ms)
        if self._failure is not None:
            failure = self._failure
            if self._identity.transactional_id is None:
                self._failure = None  # a transaction remembers until it is aborted
            raise failure

    def failed(self, error: BaseException) -> None:
        """Remember the first failure for `flush` to raise."""
        if self._failure is None:
            self._failure = error

    def forget_failure(self) -> None:
        """The transaction it belonged to is aborted."""
        self._failure = None

    def begin(self) -> None:
        """A transaction begins: nothing was sent in it, nothing failed."""
        self._failure = None
        self.touched = False

    def drop(self, error: LogError) -> None:
        """Give up what is not written yet: the transaction is aborted, or the producer closed."""
        for queue in self._queues.values():
            batch, queue.open = queue.open, None
            if batch is None:
                continue
            if batch.timer is not None:
                batch.timer.cancel()
            self._released(batch.size_bytes - HEADER_SIZE_BYTES)
            for waiter in batch.waiters:
                fail(waiter, error)

    def _queue(self, topic_partition: TopicPartition) -> PartitionQueue:
        queue = self._queues.get(topic_partition)
        if queue is None:
            queue = self._queues[topic_partition] = PartitionQueue(topic_partition)
        return queue

    def _size_bytes_max(self, topic_partition: TopicPartition) -> int:
        return self._broker.partitions.partition(topic_partition).config.max_message_bytes

    def _check_alone(
        self,
        topic_partition: TopicPartition,
        key: bytes | None,
        value: bytes | None,
        timestamp: int,
        headers: Headers,
    ) -> None:
        """The estimate says too large: see what the record really takes, compressed."""
        alone = self._encode(topic_partition, [key], [value], [timestamp], [headers], 0, 1, 0)
        size_bytes_max = self._size_bytes_max(topic_partition)
        if len(alone) > size_bytes_max:
            raise too_large(topic_partition, len(alone), size_bytes_max)

    def _encode(
        self,
        topic_partition: TopicPartition,
        keys: Sequence[bytes | None] | None,
        values: Sequence[bytes | None],
        timestamps: Sequence[int],
        headers: Sequence[Headers] | None,
        start: int,
        stop: int,
        sequence: int,
    ) -> bytes:
        identity = self._identity
        config = self._broker.partitions.partition(topic_partition).config
        return encode_batch(
            keys,
            values,
            timestamps,
            headers,
            start,
            stop,
            compression=self._codecs[config.compression_type],
            level=config.compression_level,
            producer_id=identity.producer_id,
            producer_epoch=identity.epoch,
            base_sequence=sequence,
            transactional=identity.transactional_id is not None,
        )

    def _append(self, queue: PartitionQueue, batch: bytes, records: int) -> AppendInfo:
        self.touched = True
        info = self._broker.append(
            queue.topic_partition, batch, transactional_id=self._identity.transactional_id
        )
        queue.sequence = (queue.sequence + records) % SEQUENCES
        queue.end_offset = info.last_offset + 1
        self.records_sent += records
        self.batches_sent += 1
        return info

    def _close_batch(self, queue: PartitionQueue) -> None:
        batch, queue.open = queue.open, None
        if batch is None:
            return
        if batch.timer is not None:
            batch.timer.cancel()
        headers = batch.headers if batch.has_headers else None
        count = len(batch.values)
        size_bytes = batch.size_bytes - HEADER_SIZE_BYTES
        try:
            data = self._encode(
                queue.topic_partition,
                batch.keys,
                batch.values,
                batch.timestamps,
                headers,
                0,
                count,
                queue.sequence,
            )
            info = self._append(queue, data, count)
        except (LogError, ValueError, TypeError, OverflowError) as error:
            self._released(size_bytes)
            self._batch_failed(batch, error)
            return
        durable = self._broker.partitions.durable(queue.topic_partition, info.last_offset + 1)
        self._track(durable, size_bytes + queue.unflushed_bytes)
        queue.unflushed_bytes = 0
        timeout_ms = self._config.delivery_timeout_ms
        timer = asyncio.get_running_loop().call_later(
            timeout_ms / 1000, lambda: self._batch_failed(batch, too_late(timeout_ms))
        )

        def acknowledged(future: asyncio.Future[None]) -> None:
            timer.cancel()
            error = None if future.cancelled() else future.exception()
            if error is not None:
                self._batch_failed(batch, error)
            else:
                answer(batch, queue.topic_partition, info)

        durable.add_done_callback(acknowledged)

    def _batch_failed(self, batch: OpenBatch, error: BaseException) -> None:
        if self._identity.transactional_id is not None:
            self.failed(error)  # a transaction that lost a record must not commit
        for waiter in batch.waiters:
            fail(waiter, error)

    def _unflushed(self, queue: PartitionQueue, size_bytes: int) -> None:
        """Ask for the fsync now, or leave it to the end of the transaction."""
        queue.unflushed_bytes += size_bytes
        if self._identity.transactional_id is None or queue.unflushed_bytes >= UNFLUSHED_BYTES_MAX:
            self._flush_queue(queue)

    def _flush_all(self) -> None:
        for queue in self._queues.values():
            if queue.unflushed_bytes:
                self._flush_queue(queue)

    def _flush_queue(self, queue: PartitionQueue) -> None:
        size_bytes, queue.unflushed_bytes = queue.unflushed_bytes, 0
        try:
            durable = self._broker.partitions.durable(queue.topic_partition, queue.end_offset)
        except LogError as error:
            self._released(size_bytes)
            self.failed(error)
            return
        durable.add_done_callback(self._note_failure)
        self._track(durable, size_bytes)

    def _track(self, durable: asyncio.Future[None], size_bytes: int) -> None:
        if durable.done() and not durable.cancelled() and durable.exception() is None:
            self._released(size_bytes)
            return
        self._in_flight.add(durable)

        def ended(future: asyncio.Future[None]) -> None:
            self._in_flight.discard(future)
            self._released(size_bytes)

        durable.add_done_callback(ended)

    def _note_failure(self, future: asyncio.Future[None]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self.failed(error)

    def _released(self, size_bytes: int) -> None:
        self.buffered_bytes -= size_bytes
        waiting, self._room = self._room, []
        for room in waiting:
            wake(room)
