"""A worker on a log over the network goes on after its group, its transaction or its partition went
on without it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from millstream.log import Log, open_log
from millstream.log.kafka.kafka_consumer import KafkaConsumer
from millstream.log.kafka.kafka_producer import KafkaProducer
from millstream.log.open import open_log_on
from millstream.log.storage.memory_files import MemoryFiles
from millstream.streams import App
from millstream.streams.journal import Journal
from millstream.streams.run_context import RunContext
from millstream.streams.worker import Worker
from shared.running import feed, last_integers, records

KEYS = 40
Hook = Callable[[], Awaitable[None]]


def counter() -> App:
    app = App("counter", commit_interval_ms=20)
    events = app.topic("events", key=str, value=dict, partitions=4)

    @app.table(events)
    def count(total: int, event: dict[str, Any]) -> int:
        return total + 1

    count.changes().to("counts")
    return app


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, Hook], None]:
    """Have something happen once, before the next call of this method of a producer."""
    monkeypatch.chdir(tmp_path)  # where state lies

    def hook(method: str, happen: Hook) -> None:
        original = getattr(KafkaProducer, method)

        async def hooked(self: KafkaProducer, *arguments: Any, **named: Any) -> Any:
            monkeypatch.setattr(KafkaProducer, method, original)
            await happen()
            return await original(self, *arguments, **named)

        monkeypatch.setattr(KafkaProducer, method, hooked)

    return hook


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Log, Log]]:
    """A log, and the same as one on the network."""
    settings = {"group.initial.rebalance.delay.ms": 0}
    async with open_log_on(MemoryFiles(), "log", config=settings) as log:
        async with log.serve("127.0.0.1:0") as server:
            async with open_log(f"kafka://{server.address}") as remote:
                yield log, remote


@asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop=stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def write(log: Log) -> None:
    await feed(log, "events", [(f"k{n}", {}, n) for n in range(KEYS)], partitions=4)


async def counted(log: Log, times: int) -> None:
    """Wait until every key has come so often, and see that none has come twice."""
    expected = {f"k{n}": times for n in range(KEYS)}
    await log.create_topic("counts", partitions=4, exist_ok=True)
    async with asyncio.timeout(60):
        while await last_integers(log, "counts") != expected:
            await asyncio.sleep(0.02)  # asked again
    assert len(await records(log, "counts")) == KEYS * times


def test_the_group_has_moved_on_when_a_worker_commits(
    before: Callable[[str, Hook], None],
) -> None:
    """It keeps some of its partitions over the rebalance: those it reads again."""

    async def main() -> None:
        async with served() as (log, remote), asyncio.timeout(60):
            await write(log)
            settings: dict[str, str | int] = {
                "partition.assignment.strategy": "cooperative-sticky",
                "enable.auto.commit": "false",
                "heartbeat.interval.ms": 200,
            }
            async with remote.consumer("events", group="counter", config=settings) as other:
                stop = asyncio.Event()

                async def poll() -> None:
                    while not stop.is_set():
                        await other.poll(50)

                async def join() -> None:
                    polling.append(asyncio.create_task(poll()))
                    while other.group_metadata().generation < 0:
                        await asyncio.sleep(0.01)  # it is polled

                polling: list[asyncio.Task[None]] = []
                worker = Worker(RunContext.of(counter(), remote))
                async with running(worker):
                    await counted(log, 1)
                    before("send_offsets", join)
                    await write(log)
                    while len(other.assignment()) < 2 or len(worker.parts("count")) != 2:
                        await asyncio.sleep(0.01)  # it is polled
                    stop.set()
                    await polling[0]
                    await other.close()
                    await counted(log, 2)

    asyncio.run(main())


@pytest.mark.parametrize("call", ["send_offsets", "commit_transaction"])
def test_its_transaction_was_ended_by_the_coordinator(
    before: Callable[[str, Hook], None], call: str
) -> None:
    """As happens to one that stood still for longer than a transaction may last."""

    async def main() -> None:
        async with served() as (log, remote):
            await write(log)
            async with running(Worker(RunContext.of(counter(), remote))):
                await counted(log, 1)

                async def end() -> None:
                    assert await log.terminate_transaction("counter-0")

                before(call, end)
                await write(log)
                await counted(log, 2)

    asyncio.run(main())


def test_a_worker_that_sleeps_after_its_commit_has_not_what_others_wrote_then(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """When its partitions come back, it reads that from the changelog."""
    monkeypatch.chdir(tmp_path)

    async def main() -> None:
        async with served() as (log, remote):
            await write(log)
            elsewhere = counter()
            elsewhere.state_dir = tmp_path / "elsewhere"
            original = KafkaProducer.commit_transaction
            slept = False

            async def sleepy(self: KafkaProducer) -> None:
                nonlocal slept
                await original(self)
                if not slept:
                    slept = True
                    await remove_member(log)
                    await write(log)
                    async with running(Worker(RunContext.of(elsewhere, log_of_another), name="1")):
                        await counted(log, 2)

            async with open_log(remote.url) as log_of_another:
                monkeypatch.setattr(KafkaProducer, "commit_transaction", sleepy)
                async with running(Worker(RunContext.of(counter(), remote))):
                    await counted(log, 2)
                    await write(log)
                    await counted(log, 3)

    async def remove_member(log: Log) -> None:
        """As at the end of its session."""
        await log.remove_group_members("counter")

    asyncio.run(main())


@pytest.mark.parametrize("gone", ["transaction", "member"])
def test_it_is_told_to_stop_when_it_cannot_commit_any_more(
    before: Callable[[str, Hook], None], gone: str
) -> None:
    """That is no failure: who comes next reads what it read."""

    async def main() -> None:
        async with served() as (log, remote):
            await write(log)
            app = counter()
            app.commit_interval_ms = 3_600_000
            worker = Worker(RunContext.of(app, remote))

            async def end() -> None:
                if gone == "member":
                    await log.remove_group_members("counter")
                else:
                    assert await log.terminate_transaction("counter-0")

            async with asyncio.timeout(60), running(worker):
                while worker.stats().records < KEYS:
                    await asyncio.sleep(0.01)  # asked again
                before("send_offsets", end)
            async with running(Worker(RunContext.of(counter(), remote))):
                await counted(log, 1)

    asyncio.run(main())


def test_a_worker_that_does_not_know_who_it_is_commits_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As when the group has put it out before it hears of its first partitions: what nobody commits
    the group does not check."""
    monkeypatch.chdir(tmp_path)
    generations: list[int] = []
    begun_again: list[Journal] = []
    know, send, reset = KafkaConsumer._know, KafkaProducer.send_offsets, Journal.reset

    def know_later(self: KafkaConsumer, member: Any) -> None:
        if begun_again:
            know(self, member)

    async def noted(self: KafkaProducer, offsets: Any, *, group: Any) -> None:
        generations.append(group.generation)
        await send(self, offsets, group=group)

    async def begin_again(self: Journal) -> None:
        begun_again.append(self)
        await reset(self)

    monkeypatch.setattr(KafkaConsumer, "_know", know_later)
    monkeypatch.setattr(KafkaProducer, "send_offsets", noted)
    monkeypatch.setattr(Journal, "reset", begin_again)

    async def main() -> None:
        async with served() as (log, remote):
            await write(log)
            async with running(Worker(RunContext.of(counter(), remote))):
                await counted(log, 1)

    asyncio.run(main())
    assert min(generations) > 0
    assert len(begun_again) == 1
