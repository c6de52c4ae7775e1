"""Runs one source task: poll, convert, write; records, dead letters and offsets in one transaction.

Invariant: what a committed transaction holds is exactly the records up to the source offset in
it. So whatever happens, a restart reads that offset and goes on behind it: exactly once. The
task's transactional id is `connect-NAME-TASK`; a second worker of the same connector fences this
one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from millstream.log import Log, Producer
from millstream.log.config import EVENT_TIME_TOPIC

from .api import SourceConfig, SourceConnector, SourceContext, TaskConfig
from .dead_letter import dead_letter_columns, stop_at
from .errors import FatalConnectError
from .offsets import OFFSETS_TOPIC, ensure_offsets_topic, offset_record, read_offsets
from .records import Progress, Rejection, SourceBatch, SourceRecord, batches_of
from .retry import run_with_retries
from .source_parts import SourcePart, convert
from .status import State, TaskRun

__all__ = ["SourceTaskWorker", "SourceWriter"]


class SourceTaskWorker:
    """One source task in this event loop."""

    def __init__(
        self,
        connector: SourceConnector[SourceConfig],
        task_config: TaskConfig,
        log: Log,
        run: TaskRun,
        *,
        until_end: bool,
        progress: Progress,
    ) -> None:
        self._connector = connector
        self._config = connector.config
        self._task_config = task_config
        self._log = log
        self._run = run
        self._until_end = until_end
        self._progress = progress

    async def run(self) -> None:
        """Run until the source is at its end (`until_end`), cancelled, or failed for good."""
        await run_with_retries(self._attempt, self._config, self._run)

    async def _attempt(self) -> None:
        config, run = self._config, self._run
        await ensure_offsets_topic(self._log)
        topic = await self._log.create_topic(
            config.topic,
            partitions=config.partitions,
            config={**EVENT_TIME_TOPIC, **config.topic_config},
            exist_ok=True,
        )
        transactional_id = f"connect-{config.name}-{run.id}"
        async with self._log.producer(
            transactional_id=transactional_id, config=config.producer_override
        ) as producer:
            writer = SourceWriter(config, run, self._log, producer)
            context = SourceContext(
                config.name,
                run.id,
                offsets=await read_offsets(self._log, config.name),
                until_end=self._until_end,
                record_size_bytes_max=int(topic.config["max.message.bytes"]),
            )
            task = self._connector.create_task(self._task_config)
            try:
                await task.start(context)
                run.state = State.RUNNING
                while True:
                    batches = _as_batches(await task.poll(), config.topic)
                    if batches:
                        await writer.write(batches)
                        self._progress(run.records, run.total)
                    elif self._until_end:
                        return
                    else:
                        await asyncio.sleep(config.poll_interval_ms / 1000)
            finally:
                await task.stop()


def _as_batches(
    polled: SourceBatch | Sequence[SourceRecord] | None, topic: str
) -> list[SourceBatch]:
    """A batch without records counts: it may hold rejections, or move the offset."""
    if isinstance(polled, SourceBatch):
        return [polled]
    return batches_of(polled or (), topic)


class SourceWriter:
    """Writes what one poll returned, with its offsets, in one transaction."""

    def __init__(self, config: SourceConfig, run: TaskRun, log: Log, producer: Producer) -> None:
        self._config = config
        self._run = run
        self._log = log
        self._producer = producer
        self._size_bytes_max: dict[str, int] = {}

    async def write(self, batches: Sequence[SourceBatch]) -> None:
        """Write the batches. With `errors_tolerance` `none`, only up to the first bad record.

        Raises:
            FatalConnectError: a record was bad; everything before it is committed.
        """
        parts: list[SourcePart] = []
        stop: FatalConnectError | None = None
        for batch in batches:
            part = await convert(batch, self._config, await self._limit(batch.topic))
            if part.rejections and self._config.errors_tolerance == "none":
                first = min(part.rejections, key=_index_of)
                stop = stop_at(self._config.name, first)
                parts.append(part.before(first.index))
                break
            parts.append(part)
        await self._commit(parts)
        if stop is not None:
            raise stop

    async def _commit(self, parts: Sequence[SourcePart]) -> None:
        rejections = [rejection for part in parts for rejection in part.rejections]
        if rejections:
            await self._limit(self._config.dead_letters)
        async with self._producer.transaction():
            for part in parts:
                await self._send(part)
            if rejections:
                await self._send_dead_letters(rejections)
            await self._send_offsets(parts)
        self._run.records += sum(len(part.values) for part in parts)
        self._run.dead_letters += len(rejections)

    async def _send(self, part: SourcePart) -> None:
        if part.values:
            await self._producer.send_batch(
                part.topic,
                part.values,
                keys=part.keys,
                timestamps=part.timestamps,
                headers=part.headers,
                partition=part.partition,
            )

    async def _send_dead_letters(self, rejections: Sequence[Rejection]) -> None:
        topic = self._config.dead_letters
        keys, values, headers = dead_letter_columns(
            rejections, self._config.name, self._run.id, await self._limit(topic)
        )
        await self._producer.send_batch(topic, values, keys=keys, headers=headers)

    async def _send_offsets(self, parts: Sequence[SourcePart]) -> None:
        """Only the newest offset of each source partition: the topic is compacted anyway."""
        newest: dict[bytes, bytes | None] = {}
        for part in parts:
            if part.end is not None:
                key, value = offset_record(self._config.name, part.source_partition, part.end)
                newest[key] = value
        if newest:
            await self._producer.send_batch(OFFSETS_TOPIC, list(newest.values()), keys=list(newest))

    async def _limit(self, topic: str) -> int:
        """The topic's max.message.bytes; the topic is created when it is not there."""
        limit = self._size_bytes_max.get(topic)
        if limit is None:
            description = await self._log.create_topic(
                topic, config=EVENT_TIME_TOPIC, exist_ok=True
            )
            limit = self._size_bytes_max[topic] = int(description.config["max.message.bytes"])
        return limit


def _index_of(rejection: Rejection) -> int:
    return rejection.index
