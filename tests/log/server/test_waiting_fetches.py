"""Fetches that have something, and wait for more: they read what comes, and the rest once."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from millstream.log import open_log
from millstream.log.broker.broker import Broker
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.clock import SystemClock
from millstream.log.config import BrokerConfig
from millstream.log.format.codec import encode_batch
from millstream.log.record import TopicPartition
from millstream.log.server.dispatch import call_of, respond
from millstream.log.server.handler import Context, Identity, Peer
from millstream.log.storage.memory_files import MemoryFiles
from shared.asking import ask, request_frame, response_of

FETCH = 1
MIB = 1 << 20
T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
SMALL, LARGE = (encode_batch(None, [bytes(size)], [0], None, 0, 1) for size in (100, 100_000))


def broker_test(test: Callable[[Broker], Awaitable[None]]) -> None:
    """Run a test on a log with a topic of two partitions, ten large batches in the first."""

    async def run() -> None:
        config = BrokerConfig.parse({"flush.threads": 0})
        broker = await Broker.open(
            MemoryFiles(), "/log", durability="os", config=config, clock=SystemClock()
        )
        try:
            await broker.create_topic("t", 2)
            for _ in range(10):
                broker.append(T0, LARGE)
            await test(broker)
        finally:
            await broker.close()

    asyncio.run(asyncio.wait_for(run(), 30))


def fetch(
    broker: Broker, *, least: int, most: int = 50 * MIB, offset: int = 0, **values: Any
) -> asyncio.Task[Any]:
    """Of all partitions; has looked once when others had their turn."""
    one = {"fetch_offset": offset, "current_leader_epoch": -1, "partition_max_bytes": most}
    count = broker.partitions.topic("t").partitions
    partitions = [one | {"partition": number} for number in range(count)]
    return asyncio.create_task(
        ask(
            broker, FETCH, 12, session_id=0, max_wait=dt.timedelta(seconds=25), min_bytes=least,
            max_bytes=50 * MIB, topics=[{"topic": "t", "partitions": partitions}], **values,
        )
    )  # fmt: skip


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def sizes(waiting: asyncio.Task[Any]) -> list[int]:
    return [len(each.records) for each in (await waiting).responses[0].partitions]


def test_what_was_read_is_not_read_again_for_each_batch_that_comes() -> None:
    async def test(broker: Broker) -> None:
        have = 10 * len(LARGE)
        waiting = fetch(broker, least=have + 50 * len(SMALL))
        for number in range(50):
            await turns()
            assert not waiting.done()
            broker.append(T1 if number % 2 else T0, SMALL)
        assert await sizes(waiting) == [have + 25 * len(SMALL), 25 * len(SMALL)]
        assert broker.partitions.stats().fetched_bytes < 3 * have

    broker_test(test)


def test_a_partition_that_has_more_than_was_asked_for_ends_the_waiting() -> None:
    async def test(broker: Broker) -> None:
        have = 10 * len(LARGE)
        waiting = fetch(broker, least=2**31 - 1, most=have + 2 * len(SMALL))
        for _ in range(3):
            await turns()
            assert not waiting.done()
            broker.append(T0, SMALL)
        assert await sizes(waiting) == [have + 2 * len(SMALL), 0]

    broker_test(test)


def test_a_topic_that_goes_ends_the_waiting() -> None:
    async def test(broker: Broker) -> None:
        waiting = fetch(broker, least=2**31 - 1)
        await turns()
        broker.append(T0, SMALL)
        await turns()
        assert not waiting.done()
        await broker.delete_topic("t")
        found = (await waiting).responses[0].partitions
        assert [each.error_code for each in found] == [3, 3]

    broker_test(test)


def test_what_is_not_committed_is_not_counted() -> None:
    """Nor what is below the offset that is asked for."""

    async def main() -> None:
        async with open_log("memory:") as log:
            assert isinstance(log, EmbeddedLog)
            await log.create_topic("t")
            async with log.serve("127.0.0.1:0") as server, log.producer() as plain:
                broker = server.broker
                await plain.send("t", bytes(1000))
                async with log.producer(transactional_id="x") as producer:
                    await producer.begin_transaction()
                    for _ in range(3):
                        await producer.send("t", bytes(1000))
                        await producer.flush()
                    committed = {"isolation_level": 1, "least": 2000}
                    waiting = [fetch(broker, **committed), fetch(broker, offset=3, **committed)]
                    for _ in range(2):
                        await turns()
                        await plain.send("t", bytes(10))
                        await turns()
                    assert not any(each.done() for each in waiting)
                    await producer.commit_transaction()
                    assert (await sizes(waiting[0]))[0] > 4000
                    await turns()
                    assert not waiting[1].done()
                    await plain.send("t", bytes(1000))
                    assert 2000 < (await sizes(waiting[1]))[0] < 3000

    asyncio.run(asyncio.wait_for(main(), 30))


@pytest.mark.parametrize(("version", "code"), [(12, 0), (13, 100), (18, 100)])
def test_an_id_never_means_the_topic_that_came_after_it(version: int, code: int) -> None:
    """Though the fetch waited for room while its topic was deleted and made again."""

    async def test(broker: Broker) -> None:
        topic_id = broker.partitions.topic("t").topic_id
        head = {"topic": "t", "topic_id": uuid.UUID(bytes=urlsafe_b64decode(topic_id + "=="))}
        one = {"partition": 0, "partition_max_bytes": MIB, "current_leader_epoch": -1}
        frame = request_frame(
            FETCH, version, session_id=0, min_bytes=1, max_bytes=MIB,
            topics=[head | {"partitions": [one]}],
        )  # fmt: skip

        async def room() -> int:
            await broker.delete_topic("t")
            await broker.create_topic("t", 1)
            broker.append(T0, SMALL)
            return MIB

        identity = Identity("cluster", "localhost", 9092)
        context = Context(broker, identity, Peer("test"), "tests", FETCH, version, room)
        buffers = await respond(call_of(frame), context)
        assert buffers is not None
        (topic,) = response_of(FETCH, version, b"".join(buffers)[4:]).responses
        (found,) = topic.partitions
        assert (found.error_code, len(found.records)) == (code, 0 if code else len(SMALL))

    broker_test(test)
