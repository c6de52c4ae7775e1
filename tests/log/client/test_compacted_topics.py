"""Reading compacted topics: gaps between offsets, empty batches, markers whose records are gone."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import TopicPartition
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.storage.memory_files import MemoryFiles
from shared.logs import read_all, with_log

T0 = TopicPartition("t", 0)
COMPACTED = {
    "segment.bytes": 1024,
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": 0.01,
    "delete.retention.ms": 0,
}


async def compact(log: EmbeddedLog) -> None:
    done = await log._broker.cleaner.run_once()
    assert done.failures == 0
    assert done.partitions_compacted >= 1


async def write(log: EmbeddedLog, count: int) -> dict[bytes, bytes]:
    """Records in transactions, every other of which is aborted. The table that is committed."""
    table: dict[bytes, bytes] = {}
    async with log.producer(transactional_id="writer") as producer:
        for number in range(count):
            key, value = b"k%d" % (number % 3), b"%d" % number * 20
            await producer.begin_transaction()
            await producer.send("t", value, key=key)
            if number % 2:
                await producer.abort_transaction()
            else:
                await producer.commit_transaction()
                table[key] = value
    return table


def test_a_reader_from_the_start_gets_the_committed_table() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config=COMPACTED)
        table = await write(log, 60)
        for _ in range(3):
            await compact(log)
            records = await read_all(log, T0)
            assert {record.key: record.value for record in records} == table
            offsets = [record.offset for record in records]
            assert offsets == sorted(set(offsets))
            assert len(records) < 60
            table |= await write(log, 20)

    with_log(body)


@pytest.mark.parametrize("read_before", [1, 17, 40])
def test_a_reader_goes_on_wherever_it_was(read_before: int) -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config=COMPACTED)
        async with log.producer() as producer:
            for number in range(60):
                await producer.send("t", b"%d" % number * 20, key=b"k%d" % (number % 3))
                await producer.flush()
        async with log.consumer() as consumer:
            await consumer.assign([T0])
            before = []
            while len(before) < read_before:
                before += await consumer.poll(0, read_before - len(before))
            await compact(log)
            position = consumer.position()[T0]
            wanted = [each for each in await read_all(log, T0) if each.offset >= position]
            after = []
            while consumer.position()[T0] < 60:
                after += await consumer.poll(0, 3)
            # What was fetched before the compaction is returned all the same.
            assert [each for each in after if each in wanted] == wanted
            assert [each.offset for each in before] == list(range(read_before))

    with_log(body)


def test_every_position_in_a_gap_can_be_read_from() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config=COMPACTED)
        await write(log, 40)
        await compact(log)
        everything = await read_all(log, T0)
        end = (await log.end_offsets([T0]))[T0]
        async with log.consumer() as consumer:
            await consumer.assign([T0])
            for offset in range(end):
                await consumer.seek(T0, offset)
                found = []
                while consumer.position()[T0] < end:
                    found += await consumer.poll(0)
                assert found == [each for each in everything if each.offset >= offset]

    with_log(body)


def test_committed_offsets_survive_their_compaction() -> None:
    files = MemoryFiles()
    config = {"offsets.topic.segment.bytes": 1024}

    async def write_offsets() -> None:
        async with open_log_on(files, "log", config=config) as log:
            await log.create_topic("t")
            await write(log, 3)
            for offset in range(60):
                await log.alter_group_offsets(f"g{offset % 3}", {T0: offset % 5})
            before = await offsets(log)
            await compact(log)
            assert await offsets(log) == before

    async def read_offsets() -> None:
        async with open_log_on(files, "log", config=config) as log:
            assert await offsets(log) == {"g0": 2, "g1": 3, "g2": 4}
            async with log.producer(transactional_id="writer") as producer:
                await producer.begin_transaction()
                await producer.send("t", b"goes on")
                await producer.commit_transaction()

    async def offsets(log: EmbeddedLog) -> dict[str, int]:
        found = {}
        for group in ("g0", "g1", "g2"):
            found[group] = (await log.group_offsets(group))[T0].offset
        return found

    asyncio.run(write_offsets())
    asyncio.run(read_offsets())
