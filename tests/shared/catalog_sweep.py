"""Topics are made, altered, cleaned and deleted on a simulated disk that stops at any operation.

What must hold on every disk that a power loss allows:
    a change of a topic that returned is there; one that was under way, wholly or not at all
    a topic has the partitions it says, and what was acknowledged in them
    records of a deleted topic never show in the next one of its name, which has another id
    retention takes records from the beginning only; compaction leaves the newest of each key
    nothing is left of what is gone: no folder of a deleted topic, none put aside
    every topic takes writes again, and another crash changes nothing
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from millstream.log import Log, TopicPartition
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.errors import LogError
from millstream.log.open import open_log_on
from millstream.log.testing.fake_clock import FakeClock
from millstream.log.testing.sim_files import SimFiles
from shared.log_sweep import disks_after, failing_at, read_all, run_until_crash
from shared.sweeping import distinct, noting

FOLDER = "log"
SMALL: Mapping[str, str | int] = {"segment.bytes": 1024}
COMPACT = {**SMALL, "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"}
KEYS = 3


@dataclass(frozen=True)
class Shape:
    """What describes a topic."""

    partitions: int
    overrides: tuple[tuple[str, str], ...]


@dataclass
class Promise:
    """One topic, from its creation on. Of the two shapes the second may be there already."""

    shapes: list[Shape]
    sent: dict[int, list[bytes]] = field(default_factory=dict)
    acknowledged: dict[int, list[bytes]] = field(default_factory=dict)
    may_be_absent: bool = True
    is_deleted: bool = False


@dataclass
class Promises:
    """All topics there ever were, in the order of their creation."""

    made: dict[str, list[Promise]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def of(self, topic: str) -> Promise:
        return self.made[topic][-1]


def shape(partitions: int, config: Mapping[str, str | int]) -> Shape:
    return Shape(partitions, tuple(sorted((name, str(value)) for name, value in config.items())))


async def create(log: Log, promises: Promises, topic: str, partitions: int, config) -> None:
    promise = Promise([shape(partitions, config)])
    promises.made.setdefault(topic, []).append(promise)
    made = await log.create_topic(topic, partitions=partitions, config=config)
    assert promises.ids.get(topic) != made.topic_id
    promises.ids[topic] = made.topic_id
    promise.may_be_absent = False


async def alter(log: Log, promises: Promises, topic: str, partitions: int, config) -> None:
    promise = promises.of(topic)
    promise.shapes.append(shape(partitions, config))
    more = partitions if partitions > promise.shapes[0].partitions else None
    dropped = {name: None for name, _ in promise.shapes[0].overrides if name not in config}
    await log.alter_topic(topic, config={**config, **dropped}, partitions=more)
    del promise.shapes[0]


async def delete(log: Log, promises: Promises, topic: str) -> None:
    promises.of(topic).may_be_absent = True
    await log.delete_topic(topic)
    promises.of(topic).is_deleted = True


async def write(log: Log, promises: Promises, topic: str, partition: int, count: int) -> None:
    promise, incarnation = promises.of(topic), len(promises.made[topic])
    sent = promise.sent.setdefault(partition, [])
    acknowledged = promise.acknowledged.setdefault(partition, [])
    async with log.producer(config={"linger.ms": 0}) as producer:
        for _ in range(count):
            number = len(sent)
            value = b"%s#%d/%d/%03d" % (topic.encode(), incarnation, partition, number)
            sent.append(value + b"." * 200)
            await producer.send(topic, sent[-1], key=key_of(number), partition=partition)
            acknowledged.append(sent[-1])


def key_of(number: int) -> bytes:
    return b"k%d" % (number % KEYS)


async def workload(log: EmbeddedLog, promises: Promises) -> None:
    """Every kind of change, some of them twice under the same name."""
    await create(log, promises, "kept", 2, SMALL)
    await write(log, promises, "kept", 0, 2)
    await alter(log, promises, "kept", 4, {**SMALL, "segment.ms": "777"})
    await write(log, promises, "kept", 3, 2)
    await create(log, promises, "short", 1, {**SMALL, "retention.bytes": "1500"})
    await write(log, promises, "short", 0, 14)
    await create(log, promises, "newest", 1, COMPACT)
    await write(log, promises, "newest", 0, 14)
    await log._broker.cleaner.run_once()
    await delete(log, promises, "kept")
    await create(log, promises, "kept", 1, {"segment.ms": "5"})
    await write(log, promises, "kept", 0, 1)
    await alter(log, promises, "newest", 2, {**COMPACT, "retention.ms": "-1"})
    await write(log, promises, "newest", 0, 8)
    await write(log, promises, "newest", 1, 1)
    await log._broker.cleaner.run_once()
    await alter(log, promises, "kept", 3, {})
    await write(log, promises, "kept", 2, 1)
    await delete(log, promises, "newest")


def open_sim(files: SimFiles) -> EmbeddedLog:
    return open_log_on(files, FOLDER, config={"flush.threads": 0}, clock=FakeClock())


def run_workload(files: SimFiles, promises: Promises) -> None:
    async def work() -> None:
        async with open_sim(files) as log:
            await workload(log, promises)

    run_until_crash(files, work)


# What is found


Found = dict[str, tuple[Shape, dict[int, list[bytes]]]]


async def contents_of(log: Log) -> Found:
    found: Found = {}
    for name in await log.topics():
        topic = await log.describe_topic(name)
        records = {
            number: [value for _, value in await read_all(log, TopicPartition(name, number))]
            for number in range(topic.partitions)
        }
        found[name] = (shape(topic.partitions, topic.overrides), records)
    return found


def check(found: Found, files: SimFiles, promises: Promises) -> None:
    assert set(found) <= set(promises.made), "a topic nobody made"
    for topic in promises.made:
        promise = promises.of(topic)
        if topic not in found:
            assert promise.may_be_absent, f"{topic} is gone"
            continue
        assert not promise.is_deleted, f"{topic} is back"
        found_shape, records = found[topic]
        assert found_shape in promise.shapes, f"{topic} is {found_shape}"
        for partition, values in records.items():
            check_records(topic, partition, values, promise)
    folders = [name for name in files.list_dir(FOLDER) if files.is_dir(f"{FOLDER}/{name}")]
    expected = {f"{topic}-{at}" for topic, (_, records) in found.items() for at in records}
    assert set(folders) == expected, "folders of what is gone, or not there"


def check_records(topic: str, partition: int, values: list[bytes], promise: Promise) -> None:
    sent = promise.sent.get(partition, [])
    acknowledged = promise.acknowledged.get(partition, [])
    positions = [sent.index(value) for value in values]  # or of a topic that was deleted
    assert positions == sorted(set(positions)), f"{topic}-{partition}: order"
    if topic == "kept":
        assert positions == list(range(len(positions)))
        assert len(positions) >= len(acknowledged), f"{topic}-{partition}: acknowledged records"
    elif topic == "short":
        assert not positions or positions == list(range(positions[0], positions[-1] + 1))
        assert max(positions, default=-1) >= len(acknowledged) - 1, "acknowledged records"
        assert len(positions) >= min(len(acknowledged), 5), "retention.bytes are kept"
    else:
        newest = {number % KEYS: number for number in range(len(acknowledged))}
        kept = {number % KEYS: number for number in positions}
        assert all(kept.get(key, -1) >= number for key, number in newest.items()), "newest of a key"


async def write_more(log: EmbeddedLog, found: Found) -> None:
    for topic, (_, records) in found.items():
        async with log.producer(config={"linger.ms": 0}) as producer:
            for partition in records:
                await producer.send(topic, b"more", key=b"more", partition=partition)
                assert (await read_all(log, TopicPartition(topic, partition)))[-1][1] == b"more"
    await log._broker.cleaner.run_once()
    for topic in found:
        await log.delete_topic(topic)
        await log.create_topic(topic)
    assert all(not any(records.values()) for _, records in (await contents_of(log)).values())


def recovered(disk: SimFiles, promises: Promises) -> None:
    """Open what is left, check it, crash again, open again, write."""

    async def first() -> Found:
        async with open_sim(disk) as log:
            return await contents_of(log)

    async def again_and_write(files: SimFiles, expected: Found) -> None:
        async with open_sim(files) as log:
            assert await contents_of(log) == expected, "the second start changed something"
            await write_more(log, expected)

    found = _run(first)
    check(found, disk, promises)
    again = disk.after_crash("dropped", "dropped")
    _run(lambda: again_and_write(again, found))


def _run(work: Callable[[], Awaitable[Found | None]]) -> Found:
    async def main() -> Found:
        return await asyncio.wait_for(work(), 30) or {}

    return asyncio.run(main())


def crash_points() -> int:
    """How many write operations the workload has."""
    files, promises = SimFiles(), Promises()
    run_workload(files, promises)
    recovered(files.after_crash("dropped", "dropped"), promises)
    return files.writes


def sweep(*, step: int = 1, offset: int = 0, all_of_them: bool = False) -> int:
    """Stop at every `step`-th write operation; returns how many disks were checked."""
    checked = 0
    for point in range(offset, crash_points(), step):
        files, promises = SimFiles(crash_at=point), Promises()
        run_workload(files, promises)
        assert files.crashed
        disks = disks_after(files, point, all_of_them=all_of_them)
        for number, disk in enumerate([files.restart(), *disks]):
            with noting(f"crash at write {point}, disk {number}: {files.operations[-1]}"):
                recovered(disk, promises)
            checked += 1
    return checked


def sweep_errors(kind: Literal["EIO", "ENOSPC"], *, step: int = 1, offset: int = 0) -> int:
    """Every `step`-th write fails, once: what raises left everything as before or the log is opened
    again; what was acknowledged, before and after, is there."""
    checked = 0
    for point in range(offset, crash_points(), step):
        files, promises = failing_at(kind, point), Promises()

        async def work(files: SimFiles = files, promises: Promises = promises) -> None:
            with suppress(LogError):
                async with open_sim(files) as log:
                    await workload(log, promises)

        run_until_crash(files, work)
        files.on_operation = None
        for disk in distinct((files.after_crash("dropped", "dropped"), files.restart())):
            with noting(f"{kind} at write {point}"):
                recovered(disk, promises)
        checked += 1
    return checked
