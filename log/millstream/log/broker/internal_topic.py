"""A topic in which the log keeps its own state: `__transaction_state`, `__consumer_offsets`.

The newest record of each key is the state; a null value forgets the key. The topic is made when it
is first needed, compacted like any other, and read from the start when the log is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from millstream.log.errors import CorruptRecordError
from millstream.log.format.codec import (
    BatchHeader,
    Columns,
    decode_batch,
    encode_batch,
    parse_header,
)
from millstream.log.limits import INTERNAL_MESSAGE_BYTES_MAX, INTERNAL_READ_BYTES
from millstream.log.record import TopicPartition

from .partitions import Partitions

__all__ = ["InternalTopic"]

_NO_PRODUCER = -1


class InternalTopic:
    """One internal topic. Appends are synchronous; `durable` waits for the disk."""

    def __init__(
        self, partitions: Partitions, name: str, count: int, *, segment_bytes: int
    ) -> None:
        self.name = name
        self._partitions = partitions
        self._count = count
        self._segment_bytes = segment_bytes
        self._exists = False

    async def create_if_missing(self) -> None:
        """Have the topic; the number of partitions is that of its creation for ever."""
        if not self._exists:
            topic = await self._partitions.create_topic(
                self.name,
                self._count,
                {
                    "cleanup.policy": "compact",
                    "segment.bytes": self._segment_bytes,
                    # Its only reader reads it whole: nobody can miss a tombstone or a marker.
                    "delete.retention.ms": 0,
                    "max.message.bytes": INTERNAL_MESSAGE_BYTES_MAX,
                },
                exist_ok=True,
            )
            self._count = topic.partitions
            self._exists = True

    def load(self) -> list[TopicPartition]:
        """The topic's partitions as they are on disk; none before it was made."""
        if self.name not in self._partitions.topics():
            return []
        topic = self._partitions.topic(self.name)
        self._count, self._exists = topic.partitions, True
        return list(topic.topic_partitions())

    def partition_of(self, name: str) -> TopicPartition:
        """Where the records about a group or a transactional id lie (as in Kafka)."""
        return TopicPartition(self.name, (_java_hash(name) & 0x7FFFFFFF) % self._count)

    def append(
        self,
        topic_partition: TopicPartition,
        keys: Sequence[bytes],
        values: Sequence[bytes | None],
        *,
        producer_id: int = _NO_PRODUCER,
        epoch: int = _NO_PRODUCER,
        sequence: int = _NO_PRODUCER,
    ) -> int:
        """Append records as one batch; with a producer, as part of its transaction.

        Returns:
            The offset that must become durable.

        Raises:
            StorageError, RecordTooLargeError: nothing was written.
        """
        now_ms = self._partitions.clock.wall_ms()
        batch = encode_batch(
            list(keys),
            list(values),
            [now_ms] * len(keys),
            None,
            0,
            len(keys),
            producer_id=producer_id,
            producer_epoch=epoch,
            base_sequence=sequence,
            transactional=producer_id != _NO_PRODUCER,
        )
        return self._partitions.append(topic_partition, batch).last_offset + 1

    def durable(self, topic_partition: TopicPartition, offset: int) -> asyncio.Future[None]:
        """A future that ends when everything below `offset` is durable."""
        return self._partitions.durable(topic_partition, offset)

    def scan(self, topic_partition: TopicPartition) -> Iterator[tuple[BatchHeader, Columns]]:
        """Every batch from the start, control batches too.

        Raises:
            CorruptRecordError: names the partition and the offset.
        """
        partition = self._partitions.partition(topic_partition)
        offset = partition.log_start_offset
        while offset < partition.high_watermark:
            data = partition.read(
                offset, size_bytes_max=INTERNAL_READ_BYTES, isolation="read_uncommitted"
            ).data
            if not data:
                return  # compaction took the last batches below the high watermark
            position = 0
            while position < len(data):
                try:
                    header = parse_header(data, position)
                    yield header, decode_batch(data, position, header)
                except CorruptRecordError as error:
                    raise CorruptRecordError(
                        f"Partition {topic_partition}, at offset {offset}: {error}"
                    ) from error
                position += header.size_bytes
                offset = header.last_offset + 1


def _java_hash(text: str) -> int:
    """String.hashCode() of Java, as 32 unsigned bits: over UTF-16 code units."""
    units = text.encode("utf-16-be")
    value = 0
    for i in range(0, len(units), 2):
        value = (value * 31 + (units[i] << 8 | units[i + 1])) & 0xFFFFFFFF
    return value
