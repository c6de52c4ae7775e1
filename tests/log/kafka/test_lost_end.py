"""A consumer whose topic has lost its end, as when it was deleted and made anew: it is read again
from its beginning, and that is where the consumer stands."""

from __future__ import annotations

import asyncio

from millstream.log import Log, Record, TopicPartition, open_log
from millstream.log.open import open_log_on
from millstream.log.storage.memory_files import MemoryFiles
from shared.kafka_log import records

T0 = TopicPartition("t", 0)


async def write(log: Log, count: int) -> None:
    await log.create_topic("t", exist_ok=True)
    async with log.producer() as producer:
        await producer.send_batch("t", [b"%d" % number for number in range(count)])


def offsets(found: list[Record]) -> list[int]:
    return [each.offset for each in found]


def test_what_is_committed_is_what_was_read() -> None:
    async def main() -> None:
        async with (
            open_log_on(MemoryFiles(), "log") as log,
            log.serve("127.0.0.1:0") as server,
            open_log(f"kafka://{server.address}?metadata.max.age.ms=500") as remote,
            asyncio.timeout(50),
        ):
            await write(log, 20)
            async with remote.consumer("t", group="g") as consumer:
                await records(consumer, 20)
                await log.delete_topic("t")
                await write(log, 5)
                assert offsets(await records(consumer, 5)) == [0, 1, 2, 3, 4]
                assert consumer.position() == {T0: 5}
                assert await consumer.poll(200) == []
                assert consumer.position() == {T0: 5}
                await write(log, 3)
                assert offsets(await records(consumer, 3)) == [5, 6, 7]
                assert await consumer.poll(200) == []
            assert (await remote.group_offsets("g"))[T0].offset == 8

    asyncio.run(main())
