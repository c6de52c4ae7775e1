"""Group commit: all who wait for a partition share one fsync.

Appends go to the page cache at once. A flush covers everything appended before it began; what is
appended while it runs is covered by the next one, which begins as soon as the first has ended. So
under load every fsync carries as many batches as arrived during the last, and an idle partition
flushes at once. Partitions are flushed in parallel.

Owner: the event loop. Only `Flush.run` is called in a thread, and it touches nothing but files.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from millstream.log.errors import LogError, StorageError, UnknownTopicError
from millstream.log.events import event
from millstream.log.record import TopicPartition
from millstream.log.storage.partition import Flush, Partition

from .counting import FLUSH_BUCKETS_S, Histogram
from .disk_threads import DiskThreads

if TYPE_CHECKING:
    from millstream.log.stats import FlusherStats

__all__ = ["Flusher"]


class Flusher:
    """Makes partitions durable and tells those who wait.

    Args:
        threads: where fsync is called.
        on_readable: called with a partition whose high watermark moved.
    """

    def __init__(self, threads: DiskThreads, on_readable: Callable[[Partition], None]) -> None:
        self._threads = threads
        self._on_readable = on_readable
        self._waiters: dict[TopicPartition, list[tuple[int, asyncio.Future[None]]]] = {}
        self._wanted: dict[TopicPartition, Partition] = {}
        self._running: set[TopicPartition] = set()
        self._settling: list[asyncio.Future[None]] = []
        self._timers: dict[TopicPartition, asyncio.TimerHandle] = {}
        self._durations = Histogram(FLUSH_BUCKETS_S)
        self._failures = 0

    def want(self, partition: Partition) -> None:
        """Flush this partition soon: after the current turn of the event loop."""
        topic_partition = partition.topic_partition
        if topic_partition not in self._wanted and topic_partition not in self._running:
            asyncio.get_running_loop().call_soon(self._start, topic_partition)
        self._wanted[topic_partition] = partition  # if one runs, it goes again at its end

    def want_within(self, partition: Partition, delay_ms: int) -> None:
        """With durability "os": have all of this partition on the disk by then (flush.ms)."""

        def due() -> None:
            del self._timers[partition.topic_partition]
            partition.ask_for_flush()
            if partition.unflushed:
                self.want(partition)

        if partition.topic_partition not in self._timers:
            timer = asyncio.get_running_loop().call_later(delay_ms / 1000, due)
            self._timers[partition.topic_partition] = timer

    def stop_timers(self) -> None:
        """The log is being closed, which flushes everything."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def durable(self, partition: Partition, offset: int) -> asyncio.Future[None]:
        """A future that ends when everything below `offset` is durable and readable.

        It fails with StorageError when the disk does. Cancelling it harms nobody else.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if partition.high_watermark >= offset:
            future.set_result(None)
            return future
        self._waiters.setdefault(partition.topic_partition, []).append((offset, future))
        self.want(partition)
        return future

    async def flush(self, partitions: Iterable[Partition]) -> None:
        """Wait until all that these partitions hold now is durable.

        Raises:
            StorageError: the disk failed under at least one of them.
        """
        waiting = [
            self.durable(partition, partition.log_end_offset)
            for partition in partitions
            if partition.high_watermark < partition.log_end_offset
        ]
        if len(waiting) == 1:
            await waiting[0]
        elif waiting:
            for result in await asyncio.gather(*waiting, return_exceptions=True):
                if isinstance(result, BaseException):
                    raise result

    def forget(self, topic_partition: TopicPartition, error: Exception) -> None:
        """The partition is gone: those who wait for it get `error`."""
        self._wanted.pop(topic_partition, None)
        timer = self._timers.pop(topic_partition, None)
        if timer is not None:
            timer.cancel()
        for _, future in self._waiters.pop(topic_partition, []):
            if not future.done():
                future.set_exception(error)
        self._changed()

    async def settle(self, only: set[TopicPartition] | None = None) -> None:
        """Wait until no flush runs and none is wanted, of these partitions or of all."""
        while True:
            busy = self._running | self._wanted.keys()
            if not (busy if only is None else busy & only):
                return
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._settling.append(changed)
            await changed

    async def until_recovery_point(self, wanted: Mapping[Partition, int]) -> None:
        """Wait until the recovery point of each partition is there and no segment that was dropped
        waits for a flush, or nothing is under way that could bring it there: the disk failed, or
        the partition is gone."""
        while any(
            (partition.recovery_point < offset or partition.is_dropping)
            and (
                partition.topic_partition in self._running
                or partition.topic_partition in self._wanted
            )
            for partition, offset in wanted.items()
        ):
            changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._settling.append(changed)
            await changed

    def stats(self) -> FlusherStats:
        """What is under way, and what the flushes took so far."""
        from millstream.log.stats import FlusherStats  # when it is used

        return FlusherStats(
            len(self._running),
            len(self._wanted),
            sum(map(len, self._waiters.values())),
            self._durations.count,
            self._failures,
            self._durations.seconds,
            tuple(self._durations.counts),
        )

    def _changed(self) -> None:
        settling, self._settling = self._settling, []
        for changed in settling:
            if not changed.done():
                changed.set_result(None)

    def _start(self, topic_partition: TopicPartition) -> None:
        partition = self._wanted.get(topic_partition)
        if partition is None or topic_partition in self._running:
            return  # forgotten, or started when the one before it ended
        del self._wanted[topic_partition]
        with self._told(topic_partition):
            flush = partition.start_flush()
            if flush is None:
                self._settle_waiters(partition)
                self.forget(topic_partition, _nothing_to_flush(partition))
            elif self._threads.inline:
                timed = _Timed(flush)
                self._finish(partition, timed, _run(timed))
            else:
                self._start_in_thread(partition, flush)

    def _start_in_thread(self, partition: Partition, flush: Flush) -> None:
        topic_partition = partition.topic_partition
        timed = _Timed(flush)

        def ended(error: BaseException | None) -> None:
            self._running.discard(topic_partition)
            with self._told(topic_partition):
                if error is not None and not isinstance(error, OSError):
                    raise error
                self._finish(partition, timed, error)
            # Now, not after those who were told have run: what they write next is written while
            # the disk works.
            self._start(topic_partition)

        self._running.add(topic_partition)
        self._threads.start(timed.run, ended)

    @contextmanager
    def _told(self, topic_partition: TopicPartition) -> Iterator[None]:
        """Whoever waits for this partition, or for all, hears of an unforeseen error, too."""
        try:
            yield
        except BaseException as error:
            self.forget(
                topic_partition,
                StorageError(
                    f"Partition {topic_partition}: its flush ended by {error!r}. What was not yet "
                    "acknowledged may be lost; open the log again, and report this."
                ),
            )
            raise
        finally:
            self._changed()

    def _finish(self, partition: Partition, timed: _Timed, error: OSError | None) -> None:
        before = partition.high_watermark
        self._durations.note(timed.seconds)
        partition.finish_flush(timed.flush, error)
        if error is None:
            self._settle_waiters(partition)
            if partition.high_watermark != before:
                self._on_readable(partition)
            return
        self._failures += 1
        event("disk failed", logging.ERROR, partition=partition.topic_partition, error=error)
        self.forget(partition.topic_partition, _failed(partition, f"fsync failed ({error})"))

    def _settle_waiters(self, partition: Partition) -> None:
        waiters = self._waiters.get(partition.topic_partition)
        if not waiters:
            return
        left = []
        for offset, future in waiters:
            if partition.high_watermark < offset:
                left.append((offset, future))
            elif not future.done():
                future.set_result(None)
        if left:
            self._waiters[partition.topic_partition] = left
            self.want(partition)
        else:
            del self._waiters[partition.topic_partition]


def _nothing_to_flush(partition: Partition) -> LogError:
    if partition.failed:
        return _failed(partition, "a write failed before")
    return UnknownTopicError(
        f"Topic {partition.topic_partition.topic} was deleted and created again: what was sent to "
        "it before is gone. Send it again if the new topic is to have it."
    )


def _failed(partition: Partition, what: str) -> StorageError:
    return StorageError(
        f"Partition {partition.topic_partition}: {what}. What was not yet acknowledged may be "
        "lost; it takes no more writes until the log is opened again."
    )


class _Timed:
    """A flush, and how long it ran: without the wait for a thread."""

    __slots__ = ("flush", "seconds")

    def __init__(self, flush: Flush) -> None:
        self.flush = flush
        self.seconds = 0.0

    def run(self) -> None:
        started = time.perf_counter()
        try:
            self.flush.run()
        finally:
            self.seconds = time.perf_counter() - started


def _run(timed: _Timed) -> OSError | None:
    try:
        timed.run()
    except OSError as error:
        return error
    return None
