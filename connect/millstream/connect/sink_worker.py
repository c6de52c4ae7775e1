"""Runs one sink task: read committed records, convert, put; dead letters before offsets.

Order of one round, and what a crash after each step leaves behind:
1. records that cannot be converted are written to the dead-letter topic, durably. A restart reads
   that topic and does not write them again.
2. `put` delivers the rest. A sink that keeps its offsets with its data commits both here, so a
   restart goes on behind them: exactly once.
3. now and then the group `connect-NAME` commits its offsets in the log. For other sinks a restart
   goes on there: at least once. For exactly-once sinks they only show the lag.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from millstream.log import Consumer, Log, RecordBatch, TopicPartition, UnknownTopicError
from millstream.log.reading_end import ReadingEnd

from .api import PartitionState, SinkConfig, SinkConnector, SinkContext, SinkTask, TaskConfig
from .dead_letter import SinkDeadLetters
from .errors import ConversionError, FatalConnectError
from .reading import partitions_of
from .records import Progress, Rejection, SinkBatch, reject_raw
from .retry import DELAY_FIRST_MS, run_with_retries
from .status import State, TaskRun

__all__ = ["SinkTaskWorker", "convert"]

_POLL_TIMEOUT_MS = 500
_POLL_TIMEOUT_TO_END_MS = 20
"""Short when there is an end: the last offsets may hold only markers, which no poll returns."""

_SLICE_RECORDS = 500
"""Records converted between two turns of the event loop: about half a millisecond of work."""

logger = logging.getLogger("millstream.connect")


class SinkTaskWorker:
    """One sink task in this event loop; it owns every `tasks_count`-th partition."""

    def __init__(
        self,
        connector: SinkConnector[SinkConfig],
        task_config: TaskConfig,
        log: Log,
        run: TaskRun,
        *,
        tasks_count: int,
        until_end: bool,
        progress: Progress,
    ) -> None:
        self._connector = connector
        self._config = connector.config
        self._task_config = task_config
        self._log = log
        self._run = run
        self._tasks_count = tasks_count
        self._until_end = until_end
        self._progress = progress
        self._end: ReadingEnd | None = None
        self._flushed_at = 0.0

    async def run(self) -> None:
        """Run until the end there is now (`until_end`), cancelled, or failed for good."""
        partitions = await self._await_partitions()
        if self._until_end:
            self._end = await ReadingEnd.now(self._log, partitions)
        if partitions:
            await run_with_retries(lambda: self._attempt(partitions), self._config, self._run)

    async def _await_partitions(self) -> list[TopicPartition]:
        """This task's partitions; without `until_end` it waits for topics still to be created."""
        delay_ms = DELAY_FIRST_MS
        while True:
            try:
                found = [
                    partition
                    for topic in sorted(self._config.topics)
                    for partition in await partitions_of(self._log, topic)
                ]
                return found[self._run.id :: self._tasks_count]
            except UnknownTopicError as error:
                if self._until_end:
                    raise FatalConnectError(
                        f"connector {self._config.name!r} cannot read: {error}. "
                        "Create the topic, or mend its name in `topics`."
                    ) from error
                logger.warning("connector %s waits: %s", self._config.name, error)
                await asyncio.sleep(delay_ms / 1000)
                delay_ms = min(2 * delay_ms, self._config.errors_retry_delay_max_ms)

    async def _attempt(self, partitions: Sequence[TopicPartition]) -> None:
        config, run = self._config, self._run
        transactional_id = f"connect-{config.name}-{run.id}"
        async with (
            self._log.producer(transactional_id=transactional_id) as producer,
            self._log.consumer(
                group=f"connect-{config.name}",
                config={**config.consumer_override, "enable.auto.commit": "false"},
            ) as consumer,
        ):
            dead_letters = SinkDeadLetters(
                self._log,
                producer,
                topic=config.dead_letters,
                connector=config.name,
                task_id=run.id,
                tolerant=config.errors_tolerance == "all",
                run=run,
            )
            context = SinkContext(
                config.name, run, until_end=self._until_end, dead_letters=dead_letters
            )
            task = self._connector.create_task(self._task_config)
            try:
                await task.start(context)
                positions = await self._open(task, consumer, partitions)
                await dead_letters.recall(positions)
                run.state = State.RUNNING
                await self._deliver(task, consumer, context)
            finally:
                await task.stop()

    async def _open(
        self, task: SinkTask, consumer: Consumer, partitions: Sequence[TopicPartition]
    ) -> Mapping[TopicPartition, int]:
        """Take the partitions over and go to where delivery goes on."""
        states = await self._partition_states(partitions)
        positions = await task.open(states)
        if positions is None:
            committed = await consumer.committed(partitions)
            positions = {
                partition: found.offset if found is not None else states[partition].start_offset
                for partition, found in committed.items()
            }
        await consumer.assign(partitions)
        for partition, offset in positions.items():
            start_offset = states[partition].start_offset
            if offset < start_offset:
                logger.warning(
                    "connector %s: offsets %d to %d of %s were deleted before they were delivered",
                    self._config.name,
                    offset,
                    start_offset - 1,
                    partition,
                )
            await consumer.seek(partition, max(offset, start_offset))
        if self._end is not None:
            left = [max(0, end - positions[part]) for part, end in self._end.offsets.items()]
            self._run.total = self._run.records + sum(left)
        return positions

    async def _partition_states(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, PartitionState]:
        starts = await self._log.beginning_offsets(partitions)
        ends = await self._log.end_offsets(partitions, "read_uncommitted")
        ids = {
            topic: (await self._log.describe_topic(topic)).topic_id
            for topic in {partition.topic for partition in partitions}
        }
        return {
            part: PartitionState(ids[part.topic], starts[part], ends[part]) for part in partitions
        }

    async def _deliver(self, task: SinkTask, consumer: Consumer, context: SinkContext) -> None:
        clock = asyncio.get_running_loop().time
        timeout_ms = _POLL_TIMEOUT_MS if self._end is None else _POLL_TIMEOUT_TO_END_MS
        delivered = consumer.position()
        self._flushed_at = clock()
        try:
            while self._end is None or not await self._end.is_reached(consumer.position()):
                batches = await consumer.poll_batches(timeout_ms)
                if batches:
                    await self._put(task, batches, context)
                delivered = consumer.position()
                if (clock() - self._flushed_at) * 1000 >= self._config.offset_flush_interval_ms:
                    await self._commit(task, consumer, delivered)
                    self._flushed_at = clock()
        except asyncio.CancelledError:
            await self._commit(task, consumer, delivered)
            raise
        await self._commit(task, consumer, delivered)
        self._progress(self._run.records, self._run.records)

    async def _put(
        self, task: SinkTask, batches: Sequence[RecordBatch], context: SinkContext
    ) -> None:
        converted = [await convert(batch, self._config) for batch in batches]
        for batch in converted:
            await context.dead_letter(batch.rejections)
            batch.rejections = []
        await task.put(converted)
        for batch in converted:
            await context.dead_letter(batch.rejections)
        self._run.records += sum(len(batch) for batch in batches)
        self._progress(self._run.records, self._run.total)

    async def _commit(
        self, task: SinkTask, consumer: Consumer, delivered: Mapping[TopicPartition, int]
    ) -> None:
        offsets = await task.flush()
        await consumer.commit(delivered if offsets is None else offsets)


async def convert(raw: RecordBatch, config: SinkConfig) -> SinkBatch:
    """A batch as read, converted; what cannot be converted is in `rejections` and left out."""
    keys: list[object] = []
    values: list[object] = []
    indexes: list[int] = []
    rejections: list[Rejection] = []
    to_key, to_value = config.key_converter.from_log, config.value_converter.from_log
    for start in range(0, len(raw), _SLICE_RECORDS):
        for i in range(start, min(start + _SLICE_RECORDS, len(raw))):
            try:
                key = to_key(raw.keys[i])
            except ConversionError as error:
                rejections.append(reject_raw(raw, i, error, "KEY_CONVERTER"))
                continue
            try:
                value = to_value(raw.values[i])
            except ConversionError as error:
                rejections.append(reject_raw(raw, i, error, "VALUE_CONVERTER"))
                continue
            keys.append(key)
            values.append(value)
            indexes.append(i)
        await asyncio.sleep(0)
    return SinkBatch(raw, keys, values, indexes, raw.next_offset, rejections)
