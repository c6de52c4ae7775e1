"""A whole log on a simulated disk: stopped at any operation, opened again, held to its promises.

The workload goes through the public interface: an idempotent producer, a transactional one that
writes to two partitions and commits offsets in the same transaction, plain offset commits, aborts,
a producer that is replaced in the middle of its transaction, and small segments that roll.

What must hold on every disk that a power loss allows:
    acknowledged records are there, in order; nothing is there that was not sent
    of every transaction all is visible or nothing: records of both partitions and the offsets
    a transaction whose commit returned is visible, an aborted one never
    a committed offset that was acknowledged counts
    the log can be written to again, by a producer of the same transactional id
    a second recovery, after another crash, changes nothing
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from millstream.log import Log, TopicPartition
from millstream.log.errors import LogError
from millstream.log.open import open_log_on
from millstream.log.testing.sim_files import (
    CONTENTS,
    Contents,
    Crash,
    Entries,
    Operation,
    SimFiles,
    disk_error,
)
from shared.sweeping import distinct, noting

FOLDER = "log"
IN = TopicPartition("in", 0)
OUT = [TopicPartition("out", 0), TopicPartition("out", 1)]
TRANSACTIONS = 7
CONFIG = {"flush.threads": 0}
SMALL_SEGMENTS = {"segment.bytes": 1024}


@dataclass
class Promises:
    """What the workload was told, and what it tried."""

    sent: list[bytes] = field(default_factory=list)
    acknowledged: list[bytes] = field(default_factory=list)
    tried: list[int] = field(default_factory=list)
    committed: list[int] = field(default_factory=list)
    offsets_tried: list[int] = field(default_factory=list)
    offsets_committed: list[int] = field(default_factory=list)


def values_of(transaction: int, partition: int) -> list[bytes]:
    """What transaction number `transaction` writes to a partition."""
    return [b"%d/%d" % (transaction, row) + b"." * 60 for row in range(2 + partition)]


async def workload(log: Log, promises: Promises) -> None:
    await log.create_topic("in", config=SMALL_SEGMENTS)
    await log.create_topic("out", partitions=2, config=SMALL_SEGMENTS)
    producer = log.producer(transactional_id="app")
    for number in range(TRANSACTIONS):
        await produce(log, promises, number)
        if number == 3:
            zombie, producer = producer, log.producer(transactional_id="app")
            await begin(zombie, number)
            await producer.begin_transaction()  # fences the zombie and aborts what it began
            await producer.abort_transaction()
        await begin(producer, number)
        if number % 3 == 1:
            await producer.abort_transaction()
            continue
        promises.tried.append(number)
        await producer.commit_transaction()
        promises.committed.append(number)
        promises.offsets_tried.append(number)
        await log.alter_group_offsets("plain", {IN: number})
        promises.offsets_committed.append(number)


async def begin(producer, number: int) -> None:
    await producer.begin_transaction()
    for partition in OUT:
        await producer.send_batch(
            "out", values_of(number, partition.partition), partition=partition.partition
        )
    await producer.send_offsets({IN: number + 1}, group="app")


async def produce(log: Log, promises: Promises, number: int) -> None:
    async with log.producer(config={"linger.ms": 0}) as producer:
        for row in range(2):
            value = b"%d-%d" % (number, row) + b"." * 100
            promises.sent.append(value)
            await producer.send("in", value)
            promises.acknowledged.append(value)


def open_sim(files: SimFiles, *, durability: str = "fsync"):
    return open_log_on(files, FOLDER, durability=durability, config=CONFIG)


def run_until_crash(files: SimFiles, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work`; when the disk stops, everything stops."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        failures: list[BaseException] = []

        def noticed(_loop: asyncio.AbstractEventLoop, context: dict) -> None:
            error = context.get("exception")
            if not isinstance(error, Crash | asyncio.CancelledError):
                failures.append(error or RuntimeError(context["message"]))
            stopped.set()

        loop.set_exception_handler(noticed)
        task = loop.create_task(work())
        watch = loop.create_task(stopped.wait())
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not files.crashed:
            await task
        others: set[asyncio.Task] = set()
        while running := asyncio.all_tasks() - {asyncio.current_task()}:
            others |= running
            for other in running:
                other.cancel()  # again: what waits while it closes waits for a dead disk
            await asyncio.sleep(0)
        results = await asyncio.gather(*others, task, return_exceptions=True)
        for error in [*failures, *results]:
            if isinstance(error, BaseException) and not isinstance(
                error, Crash | asyncio.CancelledError | LogError
            ):
                raise error

    with suppress(Crash):
        asyncio.run(main())


@dataclass(frozen=True)
class Visible:
    """What readers see."""

    records: dict[TopicPartition, tuple[tuple[int, bytes], ...]]
    offsets: dict[str, int | None]


async def contents_of(log: Log) -> Visible:
    """Everything read_committed readers and groups see."""
    names = [name for name in await log.topics() if not name.startswith("__")]
    records: dict[TopicPartition, tuple[tuple[int, bytes], ...]] = {}
    for name in names:
        count = (await log.describe_topic(name)).partitions
        for partition in [TopicPartition(name, number) for number in range(count)]:
            records[partition] = tuple(await read_all(log, partition))
    offsets = {
        group: getattr((await log.group_offsets(group)).get(IN), "offset", None)
        for group in ("app", "plain")
    }
    return Visible(records, offsets)


async def read_all(log: Log, partition: TopicPartition) -> list[tuple[int, bytes]]:
    consumer = log.consumer()
    await consumer.assign([partition])
    end = (await log.end_offsets([partition]))[partition]
    found: list[tuple[int, bytes]] = []
    while consumer.position().get(partition, 0) < end:
        for batch in await consumer.poll_batches(0):
            found += [(record.offset, record.value or b"") for record in batch]
    await consumer.close()
    return found


def check(contents: Visible, promises: Promises) -> None:
    """Hold what is there against what was promised."""
    found = [value for _, value in contents.records.get(IN, ())]
    assert found[: len(promises.acknowledged)] == promises.acknowledged, "an acknowledged record"
    assert found == promises.sent[: len(found)], "invented or out of order"
    visible = visible_transactions(contents, 0)
    assert visible == visible_transactions(contents, 1), "half a transaction"
    assert visible[: len(promises.committed)] == promises.committed, "a committed transaction"
    assert visible == promises.tried[: len(visible)], "an aborted or unfinished transaction"
    last = visible[-1] + 1 if visible else None
    assert contents.offsets["app"] == last, "records and offsets of one transaction"
    plain = contents.offsets["plain"]
    if promises.offsets_committed:
        assert plain is not None, "a committed offset"
        assert plain >= promises.offsets_committed[-1], "a committed offset"
    assert plain is None or plain in promises.offsets_tried
    for records in contents.records.values():
        offsets = [offset for offset, _ in records]
        assert offsets == sorted(set(offsets))


def visible_transactions(contents: Visible, partition: int) -> list[int]:
    values = [value for _, value in contents.records.get(OUT[partition], ())]
    found: list[int] = []
    while values:
        number = int(values[0].split(b"/")[0])
        expected = values_of(number, partition)
        assert values[: len(expected)] == expected, "half a transaction in one partition"
        del values[: len(expected)]
        found.append(number)
    return found


def disks_after(files: SimFiles, seed: int, *, all_of_them: bool) -> Iterator[SimFiles]:
    """Disks that a power loss at this moment allows, each once: two, or one of every kind."""
    modes: list[tuple[Contents, Entries]] = [
        (CONTENTS[seed % len(CONTENTS)], "mixed"),
        ("dropped", "dropped"),
    ]
    if all_of_them:
        modes = [*((each, "mixed") for each in CONTENTS), ("kept", "kept"), modes[1]]
        modes.append(("zeroed", "kept"))
    return distinct(files.after_crash(*mode, seed=seed) for mode in modes)


def recovered(disk: SimFiles, promises: Promises, *, durability: str = "fsync") -> None:
    """Open what is left, check it, crash again, open again, write."""

    async def first() -> Visible:
        async with open_sim(disk, durability=durability) as log:
            return await contents_of(log)

    async def again_and_write(files: SimFiles, expected: Visible) -> None:
        async with open_sim(files, durability=durability) as log:
            assert await contents_of(log) == expected, "the second recovery changed something"
            await write_more(log)

    expected = asyncio.run(first())
    check(expected, promises)
    asyncio.run(again_and_write(disk.after_crash("dropped", "dropped"), expected))


async def write_more(log: Log) -> None:
    """The log works: whatever was cut off, the same producers go on."""
    await log.create_topic("in", config=SMALL_SEGMENTS, exist_ok=True)
    await log.create_topic("out", partitions=2, config=SMALL_SEGMENTS, exist_ok=True)
    before = await contents_of(log)
    async with log.producer(transactional_id="app") as producer:
        await begin(producer, 98)
        await producer.abort_transaction()
        await begin(producer, 99)
        await producer.commit_transaction()
    more = [b"more-%d" % row for row in range(2)]
    async with log.producer(config={"linger.ms": 0}) as producer:
        for value in more:
            await producer.send("in", value)
    after = await contents_of(log)
    expected = {IN: more, **{each: values_of(99, each.partition) for each in OUT}}
    for partition, values in expected.items():
        old, new = before.records[partition], after.records[partition]
        assert new[: len(old)] == old
        assert [value for _, value in new[len(old) :]] == values
    assert after.offsets["app"] == 100
    assert after.offsets["plain"] == before.offsets["plain"]


def crash_points(*, durability: str = "fsync") -> int:
    """How many write operations the workload has."""
    files, promises = SimFiles(), Promises()
    run_workload(files, promises, durability=durability)
    assert not files.crashed
    assert promises.acknowledged == promises.sent
    assert promises.committed == promises.tried
    recovered(files.after_crash("dropped", "dropped"), promises)
    return files.writes


def run_workload(files: SimFiles, promises: Promises, *, durability: str = "fsync") -> None:
    async def work() -> None:
        async with open_sim(files, durability=durability) as log:
            await workload(log, promises)

    run_until_crash(files, work)


def sweep(*, step: int = 1, offset: int = 0, all_of_them: bool = False) -> int:
    """Stop at every `step`-th write operation; returns the number of disks that were checked."""
    checked = 0
    for point in range(offset, crash_points(), step):
        files, promises = SimFiles(crash_at=point), Promises()
        run_workload(files, promises)
        assert files.crashed
        for number, disk in enumerate(disks_after(files, point, all_of_them=all_of_them)):
            with noting(f"crash at write {point}, disk {number}: {files.operations[-1]}"):
                recovered(disk, promises)
            checked += 1
    return checked


def sweep_kills(*, step: int = 1) -> int:
    """With durability "os": the process is killed at every `step`-th operation."""
    checked = 0
    for point in range(0, crash_points(durability="os"), step):
        files, promises = SimFiles(crash_at=point), Promises()
        run_workload(files, promises, durability="os")
        with noting(f"killed at write {point}: {files.operations[-1]}"):
            recovered(files.restart(), promises, durability="os")
        checked += 1
    return checked


def failing_at(kind: Literal["EIO", "ENOSPC"], point: int) -> SimFiles:
    """A disk whose write operation with this number fails, once."""

    def fail(operation: Operation) -> OSError | None:
        due = operation.is_write and operation.write_number == point
        return disk_error(kind, operation.path) if due else None

    return SimFiles(on_operation=fail)


def sweep_errors(kind: Literal["EIO", "ENOSPC"], *, step: int = 1) -> int:
    """Every `step`-th write fails, once. It must surface as a LogError or do no harm; what was
    acknowledged before and after it holds, also when the power fails next."""
    checked = 0
    for point in range(0, crash_points(), step):
        files, promises = failing_at(kind, point), Promises()

        async def work(files: SimFiles = files, promises: Promises = promises) -> None:
            with suppress(LogError):
                async with asyncio.timeout(5), open_sim(files) as log:
                    await workload(log, promises)

        run_until_crash(files, work)
        files.on_operation = None
        for disk in distinct((files.after_crash("dropped", "dropped"), files.restart())):
            with noting(f"{kind} at write {point}"):
                recovered(disk, promises)
        checked += 1
    return checked


def sweep_recovery(*, step: int = 1, inner_step: int = 1) -> int:
    """Stop the recovery too, at every operation of it, and recover from that."""
    checked = 0
    for point in range(0, crash_points(), step):
        files, promises = SimFiles(crash_at=point), Promises()
        run_workload(files, promises)
        damaged = files.after_crash("mixed", "mixed", seed=point)
        inner = 0
        while True:
            disk = damaged.after_crash("kept", "kept")
            disk.crash_at = inner

            async def only_open(disk: SimFiles = disk) -> None:
                async with open_sim(disk):
                    pass

            run_until_crash(disk, only_open)
            if not disk.crashed:
                break
            with noting(f"crash at write {point}, and at write {inner} of the recovery"):
                recovered(disk.after_crash("mixed", "mixed", seed=inner), promises)
            checked += 1
            inner += inner_step
    return checked
