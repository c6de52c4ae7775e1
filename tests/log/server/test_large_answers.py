"""Small requests that would have large answers: what is named twice is answered once."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from millstream.log.broker.broker import Broker
from millstream.log.clock import SystemClock
from millstream.log.config import BrokerConfig
from millstream.log.format.codec import encode_batch
from millstream.log.storage.memory_files import MemoryFiles
from shared.asking import ask

PRODUCE, FETCH, METADATA = 0, 1, 3
TIMES = 100
SECOND = dt.timedelta(seconds=1)


def broker_test(test: Callable[[Broker, uuid.UUID], Awaitable[None]]) -> None:
    """Run a test on a log with a topic "t"; it is told the topic's id."""

    async def run() -> None:
        config = BrokerConfig.parse({"flush.threads": 0})
        broker = await Broker.open(
            MemoryFiles(), "/log", durability="os", config=config, clock=SystemClock()
        )
        try:
            topic = await broker.create_topic("t", 2)
            await test(broker, uuid.UUID(bytes=urlsafe_b64decode(topic.topic_id + "==")))
        finally:
            await broker.close()

    asyncio.run(asyncio.wait_for(run(), 30))


@pytest.mark.parametrize("version", range(14))
def test_a_topic_is_described_once(version: int) -> None:
    """By whatever names and ids it is asked for."""

    async def test(broker: Broker, topic_id: uuid.UUID) -> None:
        topics: list[dict[str, Any]] = [{"name": "t"}] * TIMES
        if version >= 10:
            topics += [{"name": "t", "topic_id": uuid.UUID(int=i)} for i in range(TIMES)]
        if version >= 12:
            topics = [{"name": f"no{i}", "topic_id": topic_id} for i in range(TIMES)]
            topics += [{"name": None, "topic_id": topic_id}]
        answer = await ask(broker, METADATA, version, topics=topics)
        assert [(each.name, len(each.partitions)) for each in answer.topics] == [("t", 2)]

    broker_test(test)


@pytest.mark.parametrize("version", [4, 12, 13, 18])
def test_a_partition_is_read_once(version: int) -> None:
    """As often as a small request can name it, its records would fill all the room for answers."""

    async def test(broker: Broker, topic_id: uuid.UUID) -> None:
        batch = encode_batch(None, [bytes(100_000)], [0], None, 0, 1)
        partition = {"index": 0, "records": batch}
        data = [{"name": "t", "partition_data": [partition]}]
        await ask(broker, PRODUCE, 9, acks=-1, timeout=SECOND, topic_data=data)
        head: dict[str, Any] = {"topic_id": topic_id} if version >= 13 else {"topic": "t"}
        one = {"fetch_offset": 0, "current_leader_epoch": -1}
        zero = one | {"partition": 0, "partition_max_bytes": 1}
        last = one | {"partition": 0, "partition_max_bytes": 1 << 20}
        other = one | {"partition": 1, "partition_max_bytes": 1 << 20}
        answer = await ask(
            broker, FETCH, version, session_id=0, min_bytes=1, max_bytes=1 << 20,
            topics=[
                head | {"partitions": [zero] * TIMES},
                head | {"partitions": [other, zero, last]},
            ],
        )  # fmt: skip
        (topic,) = answer.responses
        assert [each.partition_index for each in topic.partitions] == [0, 1]
        assert [len(each.records) for each in topic.partitions] == [len(batch), 0]
        assert broker.partitions.stats().fetched_bytes < 3 * len(batch)

    broker_test(test)
