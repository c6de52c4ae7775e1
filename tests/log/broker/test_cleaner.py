"""Work behind an open log: retention and compaction, by time, on request, stopped at any moment."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from millstream.log import LogError, TopicPartition, UnknownTopicError
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.storage.compaction import Compaction
from millstream.log.storage.files import RealFiles
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.storage.partition import Partition
from millstream.log.testing.fake_clock import FakeClock
from shared.logs import read_all, settled, values, with_log

T0 = TopicPartition("t", 0)
SMALL = {"segment.bytes": 1024}
COMPACTED = {**SMALL, "cleanup.policy": "compact", "min.cleanable.dirty.ratio": 0.01}


async def fill(log: EmbeddedLog, topic: str, count: int, *, keys: int = 5) -> None:
    """Records of 100 bytes, ten to a batch, with few keys."""
    async with log.producer() as producer:
        for start in range(0, count, 10):
            rows = range(start, min(start + 10, count))
            await producer.send_batch(
                topic,
                [b"%05d" % row + b"." * 95 for row in rows],
                keys=[b"k%d" % (row % keys) for row in rows],
            )
        await producer.flush()


def in_folder(
    folder: str, body: Callable[[EmbeddedLog], Awaitable[None]], **config: int | bool
) -> None:
    async def main() -> None:
        async with open_log_on(RealFiles(), folder, config=config, durability="os") as log:
            await asyncio.wait_for(body(log), 30)

    asyncio.run(main())


def cleaner_of(log: EmbeddedLog):
    return log._broker.cleaner


async def numbers(log: EmbeddedLog, *partitions: TopicPartition) -> list[int]:
    return [int((value or b"").rstrip(b".")) for value in await values(log, *partitions)]


# What a round does


def test_a_round_on_request() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("sized", config={**SMALL, "retention.bytes": 2000})
        await log.create_topic("kept", config={**SMALL, "retention.ms": -1})
        await log.create_topic("compacted", partitions=2, config=COMPACTED)
        for topic in ("sized", "kept", "compacted"):
            await fill(log, topic, 60)
        done = await cleaner_of(log).run_once()
        assert done.segments_dropped > 3
        assert done.partitions_compacted >= 1
        assert done.failures == 0
        assert (await log.beginning_offsets([TopicPartition("sized", 0)])).popitem()[1] > 20
        assert await numbers(log, TopicPartition("kept", 0)) == list(range(60))
        left = await read_all(log, *[TopicPartition("compacted", at) for at in (0, 1)])
        assert len(left) < 40
        newest = {record.key: record.value for record in left}
        assert {int((value or b"")[:5]) for value in newest.values()} == set(range(55, 60))
        assert await cleaner_of(log).run_once() == (0, 0, 0)

    with_log(body)


def test_what_was_cleaned_stays_clean(tmp_path) -> None:
    async def clean(log: EmbeddedLog) -> None:
        await log.create_topic("t", config=COMPACTED)
        await fill(log, "t", 100)
        assert (await cleaner_of(log).run_once()).partitions_compacted == 1
        kept.extend(await numbers(log, T0))

    async def look(log: EmbeddedLog) -> None:
        assert await numbers(log, T0) == kept
        assert (await cleaner_of(log).run_once()).partitions_compacted == 0

    kept: list[int] = []
    in_folder(str(tmp_path), clean)
    in_folder(str(tmp_path), look)


def test_nothing_is_compacted_when_it_is_off() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config=COMPACTED)
        await fill(log, "t", 60)
        assert (await cleaner_of(log).run_once()).partitions_compacted == 0
        assert await numbers(log, T0) == list(range(60))

    with_log(body, config={"log.cleaner.enable": "false"})


def test_the_dirtiest_partition_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    planned: list[str] = []
    plan = Partition.plan_compaction

    def noted(self: Partition, now_ms: int, *, dedupe_buffer_bytes: int):
        planned.append(self.topic_partition.topic)
        return plan(self, now_ms, dedupe_buffer_bytes=dedupe_buffer_bytes)

    async def body(log: EmbeddedLog) -> None:
        for topic in ("a", "b"):
            await log.create_topic(topic, config=COMPACTED)
            await fill(log, topic, 100, keys=50)
        await cleaner_of(log).run_once()
        await fill(log, "a", 30)
        await fill(log, "b", 90)
        monkeypatch.setattr(Partition, "plan_compaction", noted)
        await cleaner_of(log).run_once()
        assert planned[0] == "b"

    with_log(body)


# Time


def test_time_alone_makes_it_work() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config={**SMALL, "retention.ms": 1000})
        await log.create_topic("c", config=COMPACTED)
        await fill(log, "t", 60)
        await fill(log, "c", 60)
        await settled()
        clock.advance(14_999)
        await settled()
        assert await numbers(log, TopicPartition("c", 0)) == list(range(60))
        clock.advance(46_000)  # a checkpoint says how far compaction may go
        await settled()
        clock.advance(15_000)
        await settled()
        assert len(await numbers(log, TopicPartition("c", 0))) < 30
        assert await numbers(log, T0) == list(range(60))
        clock.advance(224_001)
        await settled()
        assert await numbers(log, T0) == []

    with_log(body, clock=clock)


def test_producers_are_forgotten() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        await fill(log, "t", 10)
        partition = log._broker.partitions.partition(T0)
        assert len(partition.describe_producers()) == 1
        clock.advance(3_000)
        await settled()
        assert len(partition.describe_producers()) == 1
        clock.advance(600_000)
        await settled()
        assert partition.describe_producers() == []

    with_log(body, clock=clock, config={"producer.id.expiration.ms": 5_000})


# Failures


def test_one_partition_that_fails_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    retention, run = Partition.apply_retention, Compaction.run

    def fail_retention(self: Partition, now_ms: int) -> int:
        if self.topic_partition.topic == "bad":
            raise LogError("no retention today")
        return retention(self, now_ms)

    def fail_compaction(self: Compaction) -> None:
        if "bad" in self.plan.folder:
            raise OSError("no compaction today")
        run(self)

    async def body(log: EmbeddedLog) -> None:
        both = {**COMPACTED, "cleanup.policy": "compact,delete", "retention.bytes": 5000}
        for topic in ("bad", "good"):
            await log.create_topic(topic, config=both)
            await fill(log, topic, 60)
        done = await cleaner_of(log).run_once()
        assert (done.partitions_compacted, done.failures) == (1, 2)
        assert done.segments_dropped > 0
        assert await numbers(log, TopicPartition("bad", 0)) == list(range(60))
        assert len(await numbers(log, TopicPartition("good", 0))) < 30

    monkeypatch.setattr(Partition, "apply_retention", fail_retention)
    monkeypatch.setattr(Compaction, "run", fail_compaction)
    with_log(body)
    assert "Retention of bad-0 failed" in caplog.text
    assert "no compaction today" in caplog.text


# Stopped in the middle: the thread is held inside the compaction


class Held:
    """Compaction that begins and does not go on before it is let go, or stopped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began = threading.Event()
        self.go = threading.Event()
        self.stopped = 0
        run, stop = Compaction.run, Compaction.stop

        def held(compaction: Compaction) -> None:
            self.began.set()
            assert self.go.wait(20)
            run(compaction)

        def stopping(compaction: Compaction) -> None:
            self.stopped += 1
            stop(compaction)
            self.go.set()

        monkeypatch.setattr(Compaction, "run", held)
        monkeypatch.setattr(Compaction, "stop", stopping)


async def while_compacting(log: EmbeddedLog, held: Held) -> asyncio.Task:
    """Fill a topic and begin to compact it."""
    await log.create_topic("t", config=COMPACTED)
    await fill(log, "t", 100)
    task = asyncio.get_running_loop().create_task(cleaner_of(log).run_once())
    while not held.began.is_set():
        await asyncio.sleep(0.001)
    return task


def leftovers(folder: str) -> list[str]:
    files = RealFiles()
    return [
        name
        for each in files.list_dir(folder)
        if files.is_dir(f"{folder}/{each}")
        for name in files.list_dir(f"{folder}/{each}")
        if name.endswith((".cleaned", ".swap", ".deleted"))
    ]


def test_closing_gives_a_compaction_up(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)

    async def body(log: EmbeddedLog) -> None:
        task = await while_compacting(log, held)
        await log.close()
        assert (await task).partitions_compacted == 0

    async def look(log: EmbeddedLog) -> None:
        assert await numbers(log, T0) == list(range(100))

    in_folder(str(tmp_path), body)
    assert held.stopped
    assert leftovers(str(tmp_path)) == []
    in_folder(str(tmp_path), look)


def test_a_cancelled_round_waits_for_its_thread(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)

    async def body(log: EmbeddedLog) -> None:
        task = await while_compacting(log, held)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert held.stopped == 1
        assert leftovers(str(tmp_path)) == []
        assert (await cleaner_of(log).run_once()).partitions_compacted == 1

    in_folder(str(tmp_path), body)


def test_a_topic_is_deleted_while_it_is_compacted(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)

    async def body(log: EmbeddedLog) -> None:
        task = await while_compacting(log, held)
        await log.delete_topic("t")
        assert held.stopped == 1
        assert (await task).failures == 0
        with pytest.raises(UnknownTopicError):
            await log.end_offsets([T0])
        await log.create_topic("t", config=COMPACTED)
        await fill(log, "t", 20)
        assert await numbers(log, T0) == list(range(20))

    in_folder(str(tmp_path), body)
    assert leftovers(str(tmp_path)) == []


def test_writing_and_altering_go_on_during_a_compaction(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with a single thread for fsyncs: a compaction has one of its own."""
    held = Held(monkeypatch)

    async def body(log: EmbeddedLog) -> None:
        task = await while_compacting(log, held)
        async with log.producer() as producer:
            await producer.send("t", b"00100", key=b"new")
        await log.alter_topic("t", config={"cleanup.policy": "delete"}, partitions=2)
        held.go.set()
        assert (await task).partitions_compacted == 1
        left = await numbers(log, T0)
        assert left[-1] == 100
        assert len(left) < 60
        assert (await log.describe_topic("t")).partitions == 2

    in_folder(str(tmp_path), body, **{"flush.threads": 1})


@pytest.mark.parametrize("turns", range(0, 60, 3))
def test_closed_at_any_moment(turns: int) -> None:
    """The background task, a round on request, and the closing itself are cancelled in turn."""
    files, clock = MemoryFiles(), FakeClock()

    async def main() -> None:
        config = {"flush.threads": 0, "log.cleaner.backoff.ms": 1}
        log = open_log_on(files, "log", config=config, clock=clock)
        async with log:
            await log.create_topic("t", partitions=3, config=COMPACTED)
            await fill(log, "t", 60)
            loop = asyncio.get_running_loop()
            rounds = loop.create_task(cleaner_of(log).run_once())
            clock.advance(1)
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns % 2:
                rounds.cancel()
            closing = loop.create_task(log.close())
            await asyncio.sleep(0)
            if turns % 4 == 3:
                closing.cancel()
                with suppress(asyncio.CancelledError):
                    await closing
                await log.close()
            await asyncio.wait([closing, rounds])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        async with open_log_on(files, "log", config={"flush.threads": 0}) as again:
            left = await read_all(again, *[TopicPartition("t", at) for at in range(3)])
            newest = {record.key: (record.value or b"")[:5] for record in left}
            assert sorted(newest.values()) == [b"%05d" % row for row in range(55, 60)]

    asyncio.run(main())
