"""Partitions with nothing to read must not keep others from being read."""

from __future__ import annotations

import asyncio

from millstream.log import open_log


def test_idle_partitions_take_no_room_from_busy_ones() -> None:
    """Found by an app with nine partitions: four idle ones filled up the fetch, for ever."""

    async def main() -> None:
        async with open_log("memory:") as log:
            await log.create_topic("a-idle", partitions=8)
            await log.create_topic("busy")
            async with log.producer() as producer:
                await producer.send("busy", b"v")
            config = {"fetch.max.bytes": 4 << 20, "max.partition.fetch.bytes": 1 << 20}
            async with log.consumer("a-idle", "busy", group="g", config=config) as consumer:
                batches = await consumer.poll_batches(5_000)
                assert [batch.topic for batch in batches] == ["busy"]

    asyncio.run(main())


def test_a_full_fetch_comes_back_to_the_others_first() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await log.create_topic("t", partitions=4)
            async with log.producer() as producer:
                for partition in range(4):
                    for _ in range(3):
                        await producer.send("t", b"v" * 2_000, partition=partition)
            config = {"fetch.max.bytes": 1_024, "max.partition.fetch.bytes": 1_024}
            async with log.consumer("t", group="g", config=config) as consumer:
                polls = [await consumer.poll_batches(5_000) for _ in range(8)]
                order = [batch.partition for batches in polls for batch in batches]
                assert order == [0, 1, 2, 3, 0, 1, 2, 3]

    asyncio.run(main())
