"""A transaction that is decided and meets a full disk ends by itself once there is room."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from millstream.log import StorageError, TopicPartition
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.limits import STUCK_RETRY_MS_MAX, TIMED_WORK_RETRY_MS
from millstream.log.open import open_log_on
from millstream.log.testing.fake_clock import FakeClock
from millstream.log.testing.sim_files import Operation, SimFiles, disk_error
from shared.logs import settled, values

T0, U0 = TopicPartition("t", 0), TopicPartition("u", 0)
Refused = Callable[[Operation], bool]
FINISHED = Operation(-1, -1, "none", "")


class Disk(SimFiles):
    """Refuses what it is told to, and counts that."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals = 0

    def refuse(self, kind: str, is_due: Refused) -> None:
        def full(operation: Operation) -> OSError | None:
            if not is_due(operation):
                return None
            self.refusals += 1
            return disk_error(kind, operation.path)

        self.on_operation = full


def grows(*folders: str) -> Refused:
    """Batches of these partitions."""
    return lambda each: (
        each.kind == "append"
        and each.path.endswith(".log")
        and any(f"/{folder}/" in each.path for folder in folders)
    )


async def written(log: EmbeddedLog, value: bytes, *, timeout_ms: int = 5_000):
    """A producer whose open transaction is written to both topics."""
    producer = log.producer(
        transactional_id="x", config={"transaction.timeout.ms": timeout_ms, "linger.ms": 0}
    )
    await producer.begin_transaction()
    for topic in ("t", "u"):
        await producer.send_batch(topic, [value])
    await producer.flush()
    return producer


def with_disk(body: Callable[[EmbeddedLog, Disk, FakeClock], object], disk: Disk) -> None:
    async def main() -> None:
        clock = FakeClock()
        async with open_log_on(disk, "log", config={"flush.threads": 0}, clock=clock) as log:
            await log.create_topic("t")
            await log.create_topic("u")
            await body(log, disk, clock)

    asyncio.run(main())


async def pass_time(clock: FakeClock, duration_ms: int) -> None:
    clock.advance(duration_ms)
    await settled()


@pytest.mark.parametrize(
    ("at", "is_due"),
    [
        ("the first marker", grows("t-0")),
        ("a later marker", grows("u-0")),
        ("the completion", lambda each: False),
    ],
)
@pytest.mark.parametrize("commit", [True, False])
def test_it_ends_when_there_is_room(
    at: str, is_due: Refused, commit: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "millstream.log")

    async def body(log: EmbeddedLog, disk: Disk, clock: FakeClock) -> None:
        producer = await written(log, b"1")
        steps: list[Operation] = []

        def second_step(each: Operation) -> bool:
            if grows("__transaction_state-0")(each):
                steps.append(each)
            return len(steps) > 1 and steps[-1] is each

        disk.refuse("ENOSPC", second_step if at == "the completion" else is_due)
        with pytest.raises(StorageError, match="disk is full"):
            await (producer.commit_transaction() if commit else producer.abort_transaction())
        refused = disk.refusals
        assert refused > 0
        with pytest.raises(StorageError, match="tried again by itself"):
            await log.producer(transactional_id="x").__aenter__()
        await pass_time(clock, TIMED_WORK_RETRY_MS)
        assert disk.refusals > refused, "it was tried again"
        disk.on_operation = None
        assert log._broker.transactions.stats().stuck == 1
        await pass_time(clock, 2 * TIMED_WORK_RETRY_MS)
        stats = log._broker.transactions.stats()
        assert (stats.stuck, stats.committed, stats.aborted) == (0, int(commit), int(not commit))
        first = [b"1"] if commit else []
        for where in (T0, U0):
            assert await values(log, where) == first
            assert (await log.end_offsets([where]))[where] == 2, "one record and one marker"
        again = await written(log, b"2")
        await again.commit_transaction()
        assert await values(log, T0) == [*first, b"2"]

    with_disk(body, Disk())
    told = [record.event for record in caplog.records if hasattr(record, "event")]
    assert told.count("transaction stuck") == 2
    assert told.count("stuck transaction ended") == 1


def test_a_time_out_that_cannot_even_be_written_down_is_tried_again() -> None:
    async def body(log: EmbeddedLog, disk: Disk, clock: FakeClock) -> None:
        await written(log, b"open", timeout_ms=5_000)
        disk.refuse("ENOSPC", grows("__transaction_state-0"))
        await pass_time(clock, 5_000)
        assert log._broker.transactions.stats().stuck == 1
        assert (await log.end_offsets([T0]))[T0] == 0
        disk.on_operation = None
        await pass_time(clock, TIMED_WORK_RETRY_MS)
        stats = log._broker.transactions.stats()
        assert (stats.stuck, stats.aborted, stats.timed_out) == (0, 1, 1)
        assert (await log.end_offsets([T0, U0])) == {T0: 2, U0: 2}

    with_disk(body, Disk())


def test_a_disk_that_stays_full_is_asked_more_and_more_seldom() -> None:
    async def body(log: EmbeddedLog, disk: Disk, clock: FakeClock) -> None:
        producer = await written(log, b"1")
        disk.refuse("ENOSPC", grows("t-0"))
        with pytest.raises(StorageError):
            await producer.commit_transaction()
        for _ in range(3_600):  # an hour
            await pass_time(clock, 1_000)
        assert 60 <= disk.refusals <= 3_600_000 // STUCK_RETRY_MS_MAX + 10
        disk.on_operation = None
        await pass_time(clock, STUCK_RETRY_MS_MAX)
        assert await values(log, T0) == [b"1"]

    with_disk(body, Disk())


def test_a_full_disk_can_be_opened_though_an_id_is_to_be_forgotten() -> None:
    clock, disk = FakeClock(), Disk()

    async def opened(body: Callable[[EmbeddedLog], Awaitable[None]]) -> None:
        async with open_log_on(disk, "log", config={"flush.threads": 0}, clock=clock) as log:
            await body(log)

    async def commit(log: EmbeddedLog) -> None:
        async with log.producer(transactional_id="x") as producer, producer.transaction():
            await producer.send_batch("t", [b"1"])

    async def look(log: EmbeddedLog) -> None:
        assert await values(log, T0) == [b"1"]
        await settled()
        assert disk.refusals == 1
        assert [each.transactional_id for each in await log.transactions()] == ["x"]
        disk.on_operation = None

    async def forgotten(log: EmbeddedLog) -> None:
        await settled()
        assert await log.transactions() == []

    asyncio.run(opened(commit))
    clock.advance(8 * 86_400_000)
    disk.refuse("ENOSPC", grows("__transaction_state-0"))
    asyncio.run(opened(look))
    asyncio.run(opened(forgotten))


def test_a_partition_that_failed_is_not_asked_again() -> None:
    disk, tries = Disk(), list[Operation]()
    readable, stuck = list[bytes | None](), list[int]()

    async def body(log: EmbeddedLog, disk: Disk, clock: FakeClock) -> None:
        producer = await written(log, b"1")
        disk.refuse("EIO", grows("t-0"))
        with pytest.raises(StorageError, match="open the log again"):
            await producer.commit_transaction()
        readable.extend(await values(log, U0))
        disk.on_operation = lambda each: tries.append(each) if grows("t-0", "u-0")(each) else None
        for _ in range(120):
            await pass_time(clock, 1_000)
        stuck.append(log._broker.transactions.stats().stuck)
        with pytest.raises(StorageError, match="Opening the log again finishes it"):
            await log.producer(transactional_id="x").__aenter__()
        disk.on_operation = None
        tries.append(FINISHED)

    with pytest.raises(StorageError):  # so does closing the log, whatever the body raised
        with_disk(body, disk)
    assert tries == [FINISHED]
    assert stuck == [1]
    assert readable == [b"1"], "who reads other partitions does not wait for this one"

    async def reopened() -> None:
        async with open_log_on(disk.restart(), "log", config={"flush.threads": 0}) as log:
            assert await values(log, T0) == [b"1"]

    asyncio.run(reopened())
