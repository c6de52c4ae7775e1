"""Small requests that would have large answers: what is named twice is answered once, and texts
about what is not there stay short."""

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

PRODUCE, FETCH, METADATA, DESCRIBE_PRODUCERS = 0, 1, 3, 61
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


@pytest.mark.parametrize("version", [8, 9])
@pytest.mark.parametrize(
    "records", [None, encode_batch(None, [b"x"], [0], None, 0, 1)], ids=["none", "batch"]
)
def test_texts_about_a_name_that_no_topic_has(version: int, records: bytes | None) -> None:
    """One for each partition, in every version: strings of the old ones end at 32 KB."""

    async def test(broker: Broker, _topic_id: uuid.UUID) -> None:
        partitions = [{"index": number, "records": records} for number in range(TIMES)]
        for name in ("a" * 32_000, "\a" * 32_000):
            data = [{"name": name, "partition_data": partitions}]
            answer = await ask(broker, PRODUCE, version, acks=-1, timeout=SECOND, topic_data=data)
            found = answer.responses[0].partition_responses
            assert {each.error_code for each in found} == {87 if records is None else 3}
            assert max(len(each.error_message) for each in found) <= 1000

    broker_test(test)


def test_texts_about_topics_that_are_not_there_stay_short() -> None:
    async def test(broker: Broker, _topic_id: uuid.UUID) -> None:
        topics = [{"name": "\a" * 32_000, "partition_indexes": list(range(TIMES))}]
        answer = await ask(broker, DESCRIBE_PRODUCERS, 0, topics=topics)
        texts = [each.error_message for each in answer.topics[0].partitions]
        assert len(texts) == TIMES
        assert max(map(len, texts)) < 3000

    broker_test(test)
