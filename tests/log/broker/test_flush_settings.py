"""flush.messages and flush.ms: when a log with durability "os" reaches the disk by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from millstream.log import TopicPartition
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.testing.sim_files import SimFiles
from shared.logs import settled

T0 = TopicPartition("t", 0)


def fsyncs(files: SimFiles) -> int:
    """How often the topic's records were synced."""
    return sum(
        each.kind == "fsync" and each.path.endswith("t-0/00000000000000000000.log")
        for each in files.operations
    )


def counted(
    settings: Mapping[str, int],
    body: Callable[[EmbeddedLog, SimFiles], Awaitable[None]],
    durability: str = "os",
) -> None:
    async def main() -> None:
        files = SimFiles()
        config = {"flush.threads": 0}
        async with open_log_on(files, "log", durability=durability, config=config) as log:
            await log.create_topic("t", config=settings)
            await asyncio.wait_for(body(log, files), 30)

    asyncio.run(main())


def test_after_so_many_records() -> None:
    async def body(log: EmbeddedLog, files: SimFiles) -> None:
        async with log.producer() as producer:
            for number, expected in ((2, 0), (1, 1), (2, 1), (4, 2), (3, 3)):
                await producer.send_batch("t", [b"x"] * number)
                await settled()
                assert fsyncs(files) == expected
        left = files.after_crash("dropped", "dropped").read_whole(
            "log/t-0/00000000000000000000.log"
        )
        assert left == files.read_whole("log/t-0/00000000000000000000.log")

    counted({"flush.messages": 3}, body)


def test_after_so_long() -> None:
    async def body(log: EmbeddedLog, files: SimFiles) -> None:
        loop = asyncio.get_running_loop()
        async with log.producer() as producer:
            await producer.send_batch("t", [b"x"])
            begun = loop.time()
            await producer.send_batch("t", [b"x"])
            await settled()
            assert fsyncs(files) == 0
            while not fsyncs(files):
                await asyncio.sleep(0.005)
            assert loop.time() - begun > 0.03
            await asyncio.sleep(0.1)
            assert fsyncs(files) == 1  # nothing was written since
            await producer.send_batch("t", [b"x"])
            while fsyncs(files) == 1:
                await asyncio.sleep(0.005)

    counted({"flush.ms": 40}, body)


def test_at_once() -> None:
    async def body(log: EmbeddedLog, files: SimFiles) -> None:
        async with log.producer() as producer:
            for expected in (1, 2, 3):
                await producer.send_batch("t", [b"x"])
                await settled()
                assert fsyncs(files) == expected

    counted({"flush.messages": 1}, body)
    counted({"flush.ms": 0}, body)


def test_by_default_never_before_the_end() -> None:
    async def body(log: EmbeddedLog, files: SimFiles) -> None:
        async with log.producer() as producer:
            for _ in range(20):
                await producer.send_batch("t", [b"x"] * 50)
            await settled()
            assert fsyncs(files) == 0

    counted({}, body)


def test_a_topic_may_go_before_its_time_is_over() -> None:
    async def body(log: EmbeddedLog, files: SimFiles) -> None:
        async with log.producer() as producer:
            await producer.send_batch("t", [b"x"])
            await producer.flush()
        await log.delete_topic("t")
        await asyncio.sleep(0.05)
        assert log.stats().failed_partitions == 0

    counted({"flush.ms": 20}, body)


def test_with_fsync_every_acknowledgement_has_its_own() -> None:
    async def body(log: EmbeddedLog, files: SimFiles) -> None:
        async with log.producer(config={"linger.ms": 0}) as producer:
            for expected in (1, 2, 3):
                await producer.send("t", b"x")
                assert fsyncs(files) == expected

    counted({"flush.messages": 1000, "flush.ms": 1}, body, durability="fsync")
