"""A topic whose last records are compacted away still has its end, which readers come to."""

from __future__ import annotations

import asyncio

from millstream.log import RecordBatch, TopicPartition, open_log
from millstream.log.kafka.fetched_records import FetchedRecords
from millstream.log.open import open_log_on
from millstream.log.reading_end import ReadingEnd
from millstream.log.storage.memory_files import MemoryFiles
from shared.logs import values

T0 = TopicPartition("t", 0)
COMPACTED = {"cleanup.policy": "compact", "max.compaction.lag.ms": 1}


def test_the_end_is_behind_the_last_record() -> None:
    async def main() -> None:
        async with (
            open_log_on(MemoryFiles(), "log") as log,
            log.serve("127.0.0.1:0") as server,
            asyncio.timeout(30),
        ):
            await log.create_topic("t")
            async with log.producer() as producer:
                await producer.send("t", b"kept", key=b"k")
                await producer.send_batch("t", [b"without a key"] * 3)
            await log.alter_topic("t", config=COMPACTED)
            while await values(log, T0) != [b"kept"]:
                await log._broker.cleaner.run_once()  # the first may be within the millisecond
            async with (
                open_log(f"kafka://{server.address}") as remote,
                remote.consumer() as consumer,
            ):
                end = await ReadingEnd.now(remote, [T0])
                await consumer.assign([T0])
                found = []
                while not await end.is_reached(consumer.position()):
                    found += await consumer.poll(20, 1)
                assert [each.value for each in found] == [b"kept"]
                assert consumer.position() == {T0: 4}
                await consumer.poll(20)
                assert consumer.position() == {T0: 4}
                await consumer.seek(T0, 0)
                assert consumer.position() == {T0: 0}

    asyncio.run(main())


def test_an_end_that_the_log_has_lost() -> None:
    """As when an out-of-date leader was elected: what is left is read from its beginning."""
    records = FetchedRecords()
    records.add([RecordBatch("t", 0, range(8, 10), [None] * 2, [b""] * 2, [0] * 2)], {T0: 12})
    assert len(records.take_batches()) == 1
    assert records.position(T0) == 12
    records.add([], {T0: 10})  # librdkafka has not seen what is behind the last record
    assert records.position(T0) == 12
    records.add([RecordBatch("t", 0, range(3), [None] * 3, [b""] * 3, [0] * 3)], {T0: 3})
    assert len(records.take_batches()) == 1
    assert records.position(T0) == 3
