"""A topic goes while a transaction that wrote to it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from millstream.log import TopicPartition, UnknownTopicError
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.storage.partition import Partition
from shared.logs import values, with_log

T0, U0 = TopicPartition("t", 0), TopicPartition("u", 0)


def test_a_transaction_ends_though_one_of_its_topics_goes() -> None:
    """While its markers were flushed: its producer was told UnknownTopicError of a transaction that
    was decided, and the next one of its id that it could not be finished."""

    async def body(log: EmbeddedLog) -> None:
        for topic in "tu":
            await log.create_topic(topic)
        flusher = log._broker.partitions.flusher
        flush = flusher.flush
        calls = 0

        async def deleted_meanwhile(partitions: Iterable[Partition]) -> None:
            nonlocal calls
            calls += 1
            waiting = asyncio.create_task(flush(partitions))
            await asyncio.sleep(0)
            if calls == 2:  # the first is of the data
                flusher.forget(T0, UnknownTopicError("Topic t was deleted."))
            await waiting

        async with log.producer(transactional_id="x") as producer:
            await producer.begin_transaction()
            for topic in "tu":
                await producer.send(topic, b"1")
            flusher.flush = deleted_meanwhile
            await producer.commit_transaction()
            assert calls == 3, "what is left is flushed all the same"
            flusher.flush = flush
            async with producer.transaction():
                await producer.send("u", b"2")
        assert await values(log, U0) == [b"1", b"2"]

    with_log(body)
