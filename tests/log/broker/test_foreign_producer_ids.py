"""Somebody writes under the producer id of another, who is in a transaction."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import InvalidProducerEpochError, TopicPartition
from millstream.log.broker.transactions import EPOCH_MAX
from millstream.log.broker.txn_records import BY_OLD_PRODUCER, BY_PRODUCER
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.format.codec import encode_batch
from millstream.log.open import open_log_on
from millstream.log.storage.memory_files import MemoryFiles
from shared.logs import values, with_log

T0, U0 = TopicPartition("t", 0), TopicPartition("u", 0)


def batch(value: bytes, producer_id: int, epoch: int, *, transactional: bool = True) -> bytes:
    identity = {"producer_id": producer_id, "producer_epoch": epoch, "base_sequence": 0}
    return encode_batch([None], [value], [1], None, 0, 1, transactional=transactional, **identity)


@pytest.mark.parametrize("version", [BY_OLD_PRODUCER, BY_PRODUCER])
@pytest.mark.parametrize("commit", [True, False])
def test_a_transaction_ends_in_all_its_other_partitions(commit: bool, version: int) -> None:
    """An epoch above its own, in a partition it has not written to yet: its marker was refused
    there, and the partitions after that one never got theirs."""

    async def body(log: EmbeddedLog) -> None:
        broker = log._broker
        for topic in "tu":
            await log.create_topic(topic)
        who = await broker.transactions.init_producer_id("x", 60_000, version=version)
        if version == BY_OLD_PRODUCER:
            await broker.transactions.announce_partitions("x", *who, (T0, U0))
        await broker.produce(T0, batch(b"foreign", who[0], EPOCH_MAX, transactional=False))
        for where in (T0, U0):
            broker.admit(where, batch(b"own", *who), "x", version)
        with pytest.raises(InvalidProducerEpochError):
            broker.partitions.append(T0, batch(b"own", *who))
        broker.partitions.append(U0, batch(b"own", *who))
        who = await broker.transactions.end_txn("x", *who, commit=commit, version=version)
        assert await values(log, U0) == ([b"own"] if commit else [])
        assert await log.end_offsets([T0, U0]) == {T0: 1, U0: 2}
        assert broker.transactions.stats().stuck == 0

        async with log.producer(transactional_id="x") as producer, producer.transaction():
            await producer.send_batch("u", [b"next"])
        assert (await values(log, U0))[-1] == b"next"

    with_log(body)


def test_what_is_written_in_another_topic_fences_nobody_when_the_log_is_opened() -> None:
    """Recovery looks for epochs that are higher than those it knows, and raises them."""
    files = MemoryFiles()
    who: list[tuple[int, int]] = []

    async def first(log: EmbeddedLog) -> None:
        broker = log._broker
        for topic in "tu":
            await log.create_topic(topic)
        who.append(await broker.transactions.init_producer_id("x", 60_000, version=BY_OLD_PRODUCER))
        await broker.transactions.announce_partitions("x", *who[0], (U0,))
        await broker.produce(U0, batch(b"own", *who[0]), transactional_id="x")
        await broker.produce(T0, batch(b"foreign", who[0][0], EPOCH_MAX, transactional=False))

    async def second(log: EmbeddedLog) -> None:
        coordinator = log._broker.transactions
        await coordinator.end_txn("x", *who[0], commit=True, version=BY_OLD_PRODUCER)
        assert await values(log, U0) == [b"own"]

    async def main() -> None:
        for body in (first, second):
            async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
                await body(log)

    asyncio.run(main())
