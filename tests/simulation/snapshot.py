"""What a log holds at one moment, read batch by batch beside the consumer's own code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from millstream.log import TopicPartition
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.format.codec import decode_batch, parse_header
from millstream.log.format.control import control_type
from millstream.log.record import Headers

NUMBER = "n"
"""Header that carries a record's number."""


class Row(NamedTuple):
    """One record. `number` is None for one the simulation did not send."""

    offset: int
    number: int | None
    key: bytes | None
    value: bytes | None
    timestamp: int


class Batch(NamedTuple):
    """One batch as stored. `control`: commit or abort, for a marker."""

    base_offset: int
    last_offset: int
    producer_id: int
    epoch: int
    transactional: bool
    control: str | None
    rows: list[Row]


@dataclass(slots=True)
class PartitionSnapshot:
    """One partition."""

    partition: TopicPartition
    log_start_offset: int
    last_stable_offset: int
    high_watermark: int
    log_end_offset: int
    batches: list[Batch]
    _committed: list[Row] | None = None

    def rows(self) -> list[Row]:
        """Every record that is there, aborted and undecided ones too."""
        start = self.log_start_offset
        return [row for batch in self.batches for row in batch.rows if row.offset >= start]

    def committed(self) -> list[Row]:
        """What a read_committed reader is to see: worked out from the markers alone."""
        if self._committed is None:
            open_now: dict[int, list[Row]] = {}
            visible: list[Row] = []
            for batch in self.batches:
                if batch.control is not None:
                    rows = open_now.pop(batch.producer_id, [])
                    visible += rows if batch.control == "commit" else []
                elif batch.transactional:
                    open_now.setdefault(batch.producer_id, []).extend(batch.rows)
                else:
                    visible += batch.rows
            first_open = min(
                (rows[0].offset for rows in open_now.values() if rows), default=1 << 62
            )
            low, high = self.log_start_offset, min(first_open, self.high_watermark)
            self._committed = sorted(row for row in visible if low <= row.offset < high)
        return self._committed


@dataclass(slots=True)
class Snapshot:
    """A whole log."""

    partitions: dict[TopicPartition, PartitionSnapshot]
    groups: dict[str, dict[TopicPartition, int]] = field(default_factory=dict)

    def of_topic(self, topic: str) -> list[PartitionSnapshot]:
        return [each for partition, each in self.partitions.items() if partition.topic == topic]


def number_of(headers: Headers) -> int | None:
    """The number a record carries."""
    for name, value in headers:
        if name == NUMBER and value is not None:
            return int(value)
    return None


def read_partition(log: EmbeddedLog, topic_partition: TopicPartition) -> PartitionSnapshot:
    """Everything readable of one partition, by the storage's own read."""
    partition = log._broker.partitions.partition(topic_partition)
    batches: list[Batch] = []
    offset, end = partition.log_start_offset, partition.high_watermark
    while offset < end:
        read = partition.read(offset, size_bytes_max=1 << 20, isolation="read_uncommitted")
        data, position = read.data, 0
        if not data:
            break
        while position < len(data):
            header = parse_header(data, position)
            columns = decode_batch(data, position, header)
            rows = []
            control = None
            if header.is_control:
                control = control_type(columns)
            else:
                headers = columns.headers or [()] * len(columns.values)
                rows = [
                    Row(columns.offsets[i], number_of(headers[i]), *row)
                    for i, row in enumerate(
                        zip(columns.keys, columns.values, columns.timestamps, strict=True)
                    )
                ]
            batches.append(
                Batch(
                    header.base_offset,
                    header.last_offset,
                    header.producer_id,
                    header.producer_epoch,
                    header.is_transactional,
                    control,
                    rows,
                )
            )
            position += header.size_bytes
            offset = header.last_offset + 1
    return PartitionSnapshot(
        topic_partition,
        partition.log_start_offset,
        partition.last_stable_offset,
        partition.high_watermark,
        partition.log_end_offset,
        batches,
    )


async def read_log(log: EmbeddedLog, groups: tuple[str, ...]) -> Snapshot:
    """The whole log, as it is between two turns of the event loop."""
    snapshot = Snapshot({})
    for name in await log.topics():
        if name.startswith("__"):
            continue
        for number in range((await log.describe_topic(name)).partitions):
            partition = TopicPartition(name, number)
            snapshot.partitions[partition] = read_partition(log, partition)
    for group in groups:
        offsets = await log.group_offsets(group)
        snapshot.groups[group] = {each: found.offset for each, found in offsets.items()}
    return snapshot


async def read_by_consumer(
    log: EmbeddedLog, partitions: list[TopicPartition], isolation: str
) -> dict[TopicPartition, list[Row]]:
    """What a consumer is given, from the beginning to the end of now."""
    found: dict[TopicPartition, list[Row]] = {each: [] for each in partitions}
    async with log.consumer(isolation=isolation) as consumer:
        await consumer.assign(partitions)
        ends = await log.end_offsets(partitions, isolation)
        while any(consumer.position().get(each, -1) < end for each, end in ends.items()):
            for batch in await consumer.poll_batches(0):
                found[TopicPartition(batch.topic, batch.partition)] += [
                    Row(each.offset, number_of(each.headers), each.key, each.value, each.timestamp)
                    for each in batch
                ]
    return found
