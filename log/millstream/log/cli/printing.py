"""Reads topics and prints them, poll by poll: what `millstream consume` does.

What was printed is committed, and nothing else: an output that breaks off, a count that is reached
in the middle of a batch, a signal, all leave the group behind the last record that was written out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Literal, NamedTuple

from millstream.log.errors import OffsetOutOfRangeError, UnknownTopicError
from millstream.log.record import RecordBatch, TopicPartition

from .pipes import StdoutWriter
from .record_formats import Format
from .when import Start

if TYPE_CHECKING:
    from millstream.log.interface import Consumer, Log
    from millstream.log.reading_end import ReadingEnd

__all__ = ["Request", "print_records"]

COMMIT_INTERVAL_S = 1.0
POLL_MS = 500
SHORT_POLL_MS = 50


class Request(NamedTuple):
    """What to print."""

    log_url: str
    topics: tuple[str, ...]
    partitions: tuple[int, ...]
    start: Start | None
    group: str | None
    isolation: Literal["read_committed", "read_uncommitted"]
    until_end: bool
    count_max: int | None
    form: Format


async def print_records(request: Request, stop: asyncio.Event) -> None:
    """Print until the end that was asked for, `stop`, or nobody reads the output any more.

    Raises:
        LogError: the log could not be opened or read.
    """
    from millstream.log import open_log

    async with open_log(request.log_url) as log:
        await _check_topics(log, request.topics)
        start = request.start or Start("beginning")
        consumer = log.consumer(
            *(request.topics if request.group is not None else ()),
            group=request.group,
            auto_offset_reset="latest" if start.kind == "end" else "earliest",
            isolation=request.isolation,
            config={"enable.auto.commit": "false"},
        )
        async with consumer:
            if request.group is None:
                await _assign(log, consumer, request, start)
            with suppress(BrokenPipeError):  # who read the output has left: that is an end, too
                await _Printing(request, log, consumer, stop).run()


async def _check_topics(log: Log, topics: Collection[str]) -> None:
    there = await log.topics()
    for topic in topics:
        if topic not in there:
            raise UnknownTopicError(
                f"Topic {topic!r} does not exist. `millstream topics list` names those there are."
            )


async def _assign(log: Log, consumer: Consumer, request: Request, start: Start) -> None:
    """All partitions, or those that were named, from where they are to begin."""
    chosen: list[TopicPartition] = []
    for topic in request.topics:
        count = (await log.describe_topic(topic)).partitions
        for number in request.partitions or range(count):
            if number >= count:
                raise UnknownTopicError(
                    f"Topic {topic} has no partition {number}; it has {count}, numbered from 0."
                )
            chosen.append(TopicPartition(topic, number))
    await consumer.assign(chosen)
    if start.kind == "beginning":
        await consumer.seek_to_beginning()
    elif start.kind == "end":
        await consumer.seek_to_end()
    elif start.kind == "time":
        await consumer.seek_to_time(start.value)
    else:
        first = await log.beginning_offsets(chosen)
        end = await log.end_offsets(chosen, request.isolation)
        for each in chosen:
            if not first[each] <= start.value <= end[each]:
                raise OffsetOutOfRangeError(
                    f"Partition {each} has offsets {first[each]} to {end[each]}, not "
                    f"{start.value}. Choose one of these, or one partition with --partition."
                )
            await consumer.seek(each, start.value)


class _Printing:
    """One run of the command."""

    def __init__(self, request: Request, log: Log, consumer: Consumer, stop: asyncio.Event) -> None:
        self._request = request
        self._log = log
        self._consumer = consumer
        self._stop = stop
        self._output = StdoutWriter()
        self._left = request.count_max
        self._printed: dict[TopicPartition, int] = {}
        """Next offsets that are not committed yet."""
        self._end: ReadingEnd | None = None
        self._committed_s = time.monotonic()

    async def run(self) -> None:
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            while not self._stop.is_set():
                polling = asyncio.ensure_future(self._step())
                await asyncio.wait({polling, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not polling.done():
                    polling.cancel()
                    with suppress(asyncio.CancelledError):
                        await polling
                    return
                if polling.result():
                    return
        finally:
            stopping.cancel()
            await self._commit()

    async def _step(self) -> bool:
        """Poll and print once; returns whether that was the end."""
        is_bounded = self._request.until_end
        if is_bounded and await self._is_at_the_end():
            return True
        batches = await self._consumer.poll_batches(SHORT_POLL_MS if is_bounded else POLL_MS)
        if batches and await self._print(batches):
            return True
        if time.monotonic() - self._committed_s >= COMMIT_INTERVAL_S:
            await self._commit()
        return False

    async def _is_at_the_end(self) -> bool:
        """Whether all that there was when partitions were assigned has been read."""
        assigned = self._consumer.assignment()
        if not assigned:
            return False
        if self._end is None or self._end.offsets.keys() != assigned:
            from millstream.log.reading_end import ReadingEnd

            self._end = await ReadingEnd.now(self._log, assigned)
        return await self._end.is_reached(self._consumer.position())

    async def _print(self, batches: list[RecordBatch]) -> bool:
        """Print; returns whether the count is reached."""
        lines: list[bytes] = []
        reached: dict[TopicPartition, int] = {}
        for batch in batches:
            wanted = batch if self._left is None else batch.slice(0, self._left)
            if self._left is not None:
                self._left -= len(wanted)
            if len(wanted):
                lines += self._request.form(wanted)
                reached[TopicPartition(batch.topic, batch.partition)] = wanted.next_offset
        await self._output.write(b"".join(lines))
        self._printed.update(reached)
        if self._left == 0:
            return True
        if self._request.group is not None:
            self._printed.update(self._consumer.position())  # past markers and aborted records
        return False

    async def _commit(self) -> None:
        self._committed_s = time.monotonic()
        if self._request.group is not None and self._printed:
            printed, self._printed = self._printed, {}
            await self._consumer.commit(printed)
