"""What `describe_partitions` says of a topic."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import PartitionDescription, TopicPartition, open_log
from millstream.log.errors import UnknownTopicError


def test_offsets_size_and_segments() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await log.create_topic("orders", partitions=2, config={"segment.bytes": 1024})
            async with log.producer(transactional_id="t") as producer:
                for _ in range(3):
                    async with producer.transaction():
                        await producer.send("orders", b"." * 700, partition=1)
                await producer.begin_transaction()
                await producer.send("orders", b"open", partition=1)
                await log.delete_records({TopicPartition("orders", 1): 2})
                empty, full = await log.describe_partitions("orders")
                await producer.abort_transaction()
            assert empty == PartitionDescription(0, 0, 0, 0, 0, 0, 1)
            assert full[:5] == (1, 2, 6, 7, 7)
            assert full.segments == 2
            assert 700 * 2 < full.size_bytes < 700 * 3
            with pytest.raises(UnknownTopicError):
                await log.describe_partitions("absent")

    asyncio.run(main())
