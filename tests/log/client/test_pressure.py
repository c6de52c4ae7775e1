"""Fast and slow, full and empty: nothing piles up in memory, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import StorageError, TopicPartition
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.testing.sim_files import Operation, SimFiles, disk_error
from shared.logs import values, with_log

PARTITIONS = 3
FETCH_BYTES = 20_000
RECORD = b"." * 1000
T0 = TopicPartition("t", 0)


def buffered_bytes(consumer) -> list[int]:
    """What a consumer holds of each partition and has not returned."""
    return [
        sum(len(value or b"") for batch in state.fetched for value in batch.values)
        for state in consumer._fetcher._positions.values()
    ]


def test_a_slow_consumer_holds_one_fetch_of_each_partition() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=PARTITIONS)
        async with log.producer(config={"batch.size": 5_000}) as producer:
            for partition in range(PARTITIONS):
                await producer.send_batch("t", [RECORD] * 500, partition=partition)
        config = {"max.partition.fetch.bytes": FETCH_BYTES, "max.poll.records": 1}
        most = 0
        async with log.consumer("t", config=config) as slow:
            for _ in range(100):
                assert len(await slow.poll(0)) == 1
                most = max(most, *buffered_bytes(slow))
        assert 0 < most <= FETCH_BYTES

    with_log(body)


def test_one_batch_is_held_even_when_it_is_larger() -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer() as producer:
            await producer.send_batch("t", [RECORD] * 100)
            await producer.send_batch("t", [RECORD] * 100)
        config = {"max.partition.fetch.bytes": 1, "max.poll.records": 1}
        async with log.consumer("t", config=config) as slow:
            await slow.poll(0)
            assert buffered_bytes(slow) == [100 * len(RECORD)]

    with_log(body)


@pytest.mark.parametrize("linger_ms", [0, 5])
def test_a_full_disk_is_told_to_the_producer_and_writing_goes_on_later(linger_ms: int) -> None:
    files = SimFiles()

    def full(operation: Operation) -> OSError | None:
        needs_room = operation.kind in {"append", "create"}
        return disk_error("ENOSPC", operation.path) if needs_room else None

    async def main() -> None:
        config = {"flush.threads": 0}
        async with open_log_on(files, "log", config=config) as log:
            await log.create_topic("t", config={"segment.bytes": 4096})
            producer = log.producer(config={"linger.ms": linger_ms})
            for number in range(6):
                await producer.send("t", b"%d" % number + RECORD)
            files.on_operation = full
            for _ in range(3):
                with pytest.raises(StorageError, match="disk is full"):
                    await producer.send("t", b"refused" + RECORD)
                with pytest.raises(StorageError, match="disk is full"):
                    await producer.send_batch("t", [b"refused" + RECORD])
                assert len(await values(log, T0)) == 6
            files.on_operation = None
            for number in range(6, 12):
                assert (await producer.send("t", b"%d" % number + RECORD)).offset == number
            await producer.close()
        async with open_log_on(
            files.after_crash("dropped", "dropped"), "log", config=config
        ) as log:
            expected = [b"%d" % number + RECORD for number in range(12)]
            assert await values(log, T0) == expected

    asyncio.run(main())


def test_a_transaction_that_met_a_full_disk_aborts_and_the_next_one_commits() -> None:
    files = SimFiles()

    async def main() -> None:
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            async with log.producer(transactional_id="x") as producer:
                await producer.begin_transaction()
                await producer.send_batch("t", [b"in doubt"])
                files.on_operation = lambda each: (
                    disk_error("ENOSPC", each.path) if each.kind == "append" else None
                )
                with pytest.raises(StorageError, match="disk is full"):
                    await producer.send_batch("t", [b"refused"])
                files.on_operation = None
                await producer.abort_transaction()
                async with producer.transaction():
                    await producer.send_batch("t", [b"there is room again"])
            assert await values(log, T0) == [b"there is room again"]

    asyncio.run(main())
