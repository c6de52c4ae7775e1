"""Many producers and consumers on one log for a long simulated time, and what must not grow.

Clients come and go: idempotent producers (each with a new id), transactional ones that commit and
abort, members of groups that leave and join, consumers on their own. Retention, compaction,
checkpoints and expiry run as they do in life. Once a simulated minute everything that could pile up
is counted.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random
from statistics import median
from types import FunctionType, MethodType, ModuleType
from typing import NamedTuple

from millstream.log import Log, TopicPartition
from millstream.log.config import INTERNAL_TOPICS
from millstream.log.errors import ConcurrentTransactionsError
from millstream.log.open import open_log_on
from millstream.log.storage.files import FileHandle
from millstream.log.storage.memory_files import MemoryFile, MemoryFiles, MemoryFolder, MemoryHandle
from millstream.log.testing.sim_loop import SimClock, SimDiskThreads

PARTITIONS = 4
GROUPS = 5
MINUTE_S = 60
CONFIG = {
    "log.retention.check.interval.ms": 30_000,
    "producer.id.expiration.ms": 120_000,
    "producer.id.expiration.check.interval.ms": 30_000,
    "transactional.id.expiration.ms": 240_000,
    "offsets.topic.segment.bytes": 1 << 17,
    "transaction.state.log.segment.bytes": 1 << 17,
    "log.cleaner.backoff.ms": 15_000,
}
SMALL = {"segment.bytes": 1 << 12, "index.interval.bytes": 512, "file.delete.delay.ms": 0}
TOPICS = {
    "events": {**SMALL, "retention.ms": 120_000},
    "payments": {**SMALL, "retention.bytes": 1 << 13, "retention.ms": -1},
    "state": {
        **SMALL,
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": 0.3,
        "delete.retention.ms": 1000,
        "segment.ms": 60_000,
    },
}
INTERNAL_SEGMENT_BYTES = 1 << 16
KEYS = 50
LIFE_S = 150
"""A client lives this long at most, then another takes its place."""


class CountedHandle(MemoryHandle):
    """An open file, counted."""

    __slots__ = ("_open",)

    def __init__(self, file: MemoryFile, is_open: set[int]) -> None:
        super().__init__(file)
        self._open = is_open
        is_open.add(id(self))

    def close(self) -> None:
        self._open.discard(id(self))


class CountedFiles(MemoryFiles):
    """A disk in memory that knows how many files are open, and how much is in them."""

    def __init__(self) -> None:
        super().__init__()
        self.open_handles: set[int] = set()

    def _new_handle(self, path: str, file: MemoryFile) -> FileHandle:
        handle = CountedHandle(file, self.open_handles)
        if path.endswith(".lock"):
            handle.close()  # held by its name
        return handle

    def size_bytes(self, *, internal: bool) -> int:
        """Bytes in the folders of the log's own topics, or of all others."""
        folders = self.root.entries["log"]
        return sum(
            len(file.content)
            for name, folder in folders.entries.items()
            if isinstance(folder, MemoryFolder) and name.startswith("__") == internal
            for file in folder.entries.values()
        )


class Load:
    """The clients, and what they have done."""

    def __init__(self, log: Log, seed: int, pause_s: float, poll_ms: int = 10_000) -> None:
        self.log = log
        self.chance = Random(seed)
        self.stopping = asyncio.Event()
        self.sent = self.read = self.committed = self.aborted = 0
        self._pause_s = pause_s
        self._poll_ms = poll_ms

    async def pause(self) -> None:
        """A random while, or until the end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self.chance.random() * 2 * self._pause_s):
                await self.stopping.wait()

    async def live(self, life: Callable[[int], Awaitable[None]], number: int) -> None:
        """One client after the other, until the end."""
        while not self.stopping.is_set():
            await life(number)

    def ends(self) -> Callable[[], bool]:
        """Whether this client's time is over."""
        loop = asyncio.get_running_loop()
        end = loop.time() + LIFE_S * (0.5 + self.chance.random() / 2)
        return lambda: self.stopping.is_set() or loop.time() >= end

    async def send(self, number: int) -> None:
        """An idempotent producer."""
        is_over = self.ends()
        async with self.log.producer() as producer:
            while not is_over():
                key = b"%d" % self.chance.randrange(KEYS)
                value = None if self.chance.random() < 0.1 else b"%d" % number * 20
                await producer.send("state", value, key=key)
                await producer.send("events", b"%d" % number * 30)
                self.sent += 2
                await self.pause()

    async def transact(self, number: int) -> None:
        """A transactional one; half of them are replaced in the middle of a transaction."""
        is_over = self.ends()
        async with self.log.producer(transactional_id=f"app-{number}") as producer:
            while not is_over():
                with suppress(ConcurrentTransactionsError):
                    await producer.begin_transaction()
                await producer.send_batch("payments", [b"%d" % number * 30] * 3)
                await producer.send_offsets(
                    {TopicPartition("events", 0): number}, group=f"offsets-{number % GROUPS}"
                )
                if self.chance.random() < 0.2:
                    await producer.abort_transaction()
                    self.aborted += 1
                else:
                    await producer.commit_transaction()
                    self.committed += 1
                self.sent += 3
                await self.pause()

    async def read_in_group(self, number: int) -> None:
        """A member of a group."""
        is_over = self.ends()
        topic = sorted(TOPICS)[number % len(TOPICS)]
        async with self.log.consumer(topic, group=f"group-{number % GROUPS}") as consumer:
            while not is_over():
                records = await consumer.poll(self._poll_ms)
                self.read += len(records)
                await consumer.commit()

    async def read_alone(self, number: int) -> None:
        """A consumer of one partition."""
        is_over = self.ends()
        topic = sorted(TOPICS)[number % len(TOPICS)]
        async with self.log.consumer(auto_offset_reset="latest") as consumer:
            await consumer.assign([TopicPartition(topic, number % PARTITIONS)])
            while not is_over():
                offsets = [record.offset for record in await consumer.poll(self._poll_ms)]
                assert offsets == sorted(set(offsets))
                self.read += len(offsets)


class Counts(NamedTuple):
    """Everything that could pile up."""

    tasks: int
    handles: int
    disk_bytes: int
    internal_bytes: int
    entries: int
    blocks: int
    producers: int
    waiting_fetches: int


def counted(log: Log, files: CountedFiles) -> Counts:
    gc.collect()
    return Counts(
        len(asyncio.all_tasks()),
        len(files.open_handles),
        files.size_bytes(internal=False),
        files.size_bytes(internal=True),
        entries_below(log),
        sys.getallocatedblocks(),
        sum(len(each._producers.producers) for each in log._broker.partitions),
        log.stats().waiting_fetches,
    )


OUTSIDE = (type, ModuleType, FunctionType, MethodType, MemoryFile, asyncio.AbstractEventLoop)


def entries_below(root: object) -> int:
    """Entries of all containers that can be reached from here, but not through code, files or the
    event loop: what an object keeps, however deep."""
    seen: set[int] = set()
    waiting: deque[object] = deque([root])
    count = 0
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, OUTSIDE):
            continue
        seen.add(id(item))
        if isinstance(item, dict | list | set | frozenset | deque | tuple):
            count += len(item)
        if gc.is_tracked(item):
            waiting.extend(gc.get_referents(item))
    return count


async def make_internal_topics_small(log: Log) -> None:
    """Their segments have 16 MiB: too much to see in half an hour that old ones go."""
    async with log.producer(transactional_id="first") as producer, producer.transaction():
        await producer.send_batch("payments", [b"first"])
        await producer.send_offsets({TopicPartition("events", 0): 0}, group="first")
    for name in INTERNAL_TOPICS:
        await log.alter_topic(name, config={"segment.bytes": INTERNAL_SEGMENT_BYTES})


async def soak(
    *, producers: int, consumers: int, minutes: int, seed: int, pause_s: float = 5
) -> tuple[list[Counts], Load]:
    """Run on simulated time; what was counted at the end of each minute."""
    files, found = CountedFiles(), []
    log = open_log_on(files, "log", config=CONFIG, clock=SimClock(), threads=SimDiskThreads)
    async with log:
        for name, config in TOPICS.items():
            await log.create_topic(name, partitions=PARTITIONS, config=config)
        await make_internal_topics_small(log)
        load = Load(log, seed, pause_s)
        loop = asyncio.get_running_loop()
        kinds = [(load.send, load.transact), (load.read_in_group, load.read_alone)]
        clients = [
            loop.create_task(load.live(kind[number % 2], number))
            for kind, count in zip(kinds, (producers, consumers), strict=True)
            for number in range(count)
        ]
        for _ in range(minutes):
            await asyncio.sleep(MINUTE_S)
            failed = [each for each in clients if each.done()]
            assert not failed, failed[0].exception()
            found.append(counted(log, files))
        load.stopping.set()
        await asyncio.gather(*clients)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks are left: {left}"
    assert not files.open_handles, "files are open"
    assert not files._locks, "the folder is locked"
    return found, load


def assert_steady(found: list[Counts], *, warm_up: int, slack: float) -> None:
    """The second half after the warm-up needs no more than the first."""
    steady = found[warm_up:]
    half = len(steady) // 2
    for name in Counts._fields:
        before = [getattr(each, name) for each in steady[:half]]
        after = [getattr(each, name) for each in steady[half:]]
        course = [getattr(each, name) for each in found]
        assert median(after) <= median(before) * slack + 10, f"{name} grows: {course}"
        assert max(after) <= 2 * max(before) + 10, f"{name} has a peak: {course}"
