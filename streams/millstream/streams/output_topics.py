"""Sends what tasks put out. Topics nobody declared (dead letters) are made when first written
to."""

from __future__ import annotations

from collections.abc import Sequence

from millstream.log.config import EVENT_TIME_TOPIC
from millstream.log.format.partitioner import partitions_for_keys

from .journal import Journal
from .outputs import OutputColumns
from .topic_names import TopicNames

__all__ = ["OutputTopics"]

_START_SIZE_BYTES = 8


class OutputTopics:
    """The way from a task's output columns to the log's topics."""

    def __init__(self, journal: Journal, names: TopicNames, partitions: dict[str, int]) -> None:
        self._journal = journal
        self._names = names
        self._partitions = partitions
        """Partition counts of the topics known to exist, by their names in the log."""
        self.records = 0

    async def send(self, outputs: Sequence[OutputColumns]) -> None:
        """Hand columns to the producer; waits while its buffer is full."""
        for columns in outputs:
            self.records += len(columns.values)
            topic = self._names.in_log(columns.topic)
            if topic not in self._partitions:
                created = await self._journal.log.create_topic(
                    topic, config=EVENT_TIME_TOPIC, exist_ok=True
                )
                self._partitions[topic] = created.partitions
            if columns.windowed_keys and self._partitions[topic] > 1:
                await self._send_windowed(topic, columns)
            else:
                await self._journal.producer.send_batch(
                    topic,
                    columns.values,
                    keys=columns.keys,
                    timestamps=columns.timestamps,
                    headers=columns.headers,
                )

    async def _send_windowed(self, topic: str, columns: OutputColumns) -> None:
        """Windows of one key belong together: the key decides, without the window's start."""
        inner = [None if key is None else key[:-_START_SIZE_BYTES] for key in columns.keys]
        rows_of: dict[int, list[int]] = {}
        for row, partition in enumerate(partitions_for_keys(inner, self._partitions[topic])):
            rows_of.setdefault(partition, []).append(row)
        for partition, rows in rows_of.items():
            headers = columns.headers
            await self._journal.producer.send_batch(
                topic,
                [columns.values[row] for row in rows],
                keys=[columns.keys[row] for row in rows],
                timestamps=[columns.timestamps[row] for row in rows],
                headers=None if headers is None else [headers[row] for row in rows],
                partition=None if partition < 0 else partition,
            )
