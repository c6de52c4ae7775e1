"""Transactions of clients that know KIP-890: nothing is announced, each end raises the epoch."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

import pytest

from millstream.log import TopicPartition
from millstream.log.broker.broker import Broker
from millstream.log.broker.partitions import FetchRequest
from millstream.log.clock import SystemClock
from millstream.log.config import BrokerConfig
from millstream.log.format.codec import encode_batch
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.storage.results import ReadResult
from shared.asking import ask

OUT_OF_ORDER, OLD_EPOCH, NOT_IN_TRANSACTION, FENCED = 45, 47, 48, 90
PRODUCE, INIT, ADD_PARTITIONS, END, COMMIT_OFFSETS = 0, 22, 24, 26, 28


class Client:
    """A producer of transactional id x on topic t, partition 0."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.producer_id, self.epoch = -1, -1

    @property
    def identity(self) -> dict[str, int]:
        return {"producer_id": self.producer_id, "producer_epoch": self.epoch}

    async def start(self) -> None:
        request = {"transactional_id": "x", "transaction_timeout": dt.timedelta(seconds=60)}
        made = await ask(self.broker, INIT, 5, **request, producer_id=-1, producer_epoch=-1)
        self.producer_id, self.epoch = made.producer_id, made.producer_epoch

    async def produce(self, sequence: int, *, version: int = 12, epoch: int | None = None) -> int:
        """The error of it."""
        batch = encode_batch(
            *([None], [b"value"], [1], None, 0, 1),
            producer_id=self.producer_id,
            producer_epoch=self.epoch if epoch is None else epoch,
            base_sequence=sequence,
            transactional=True,
        )
        topic = {"name": "t", "partition_data": [{"index": 0, "records": batch}]}
        answer = await ask(
            *(self.broker, PRODUCE, version),
            transactional_id="x",
            acks=-1,
            timeout=dt.timedelta(seconds=1),
            topic_data=[topic],
        )
        code: int = answer.responses[0].partition_responses[0].error_code
        return code

    async def commit_offset(self, offset: int, *, version: int = 5) -> int:
        partition = {"partition_index": 0, "committed_offset": offset}
        answer = await ask(
            *(self.broker, COMMIT_OFFSETS, version),
            transactional_id="x",
            group_id="g",
            generation_id=-1,
            topics=[{"name": "t", "partitions": [partition]}],
            **self.identity,
        )
        code: int = answer.topics[0].partitions[0].error_code
        return code

    async def end(self, *, committed: bool, version: int = 5, epoch: int | None = None) -> Any:
        request = {**self.identity, "producer_epoch": self.epoch if epoch is None else epoch}
        return await ask(
            self.broker, END, version, transactional_id="x", committed=committed, **request
        )

    async def announce(self) -> int:
        answer = await ask(
            *(self.broker, ADD_PARTITIONS, 3),
            v3_and_below_transactional_id="x",
            v3_and_below_producer_id=self.producer_id,
            v3_and_below_producer_epoch=self.epoch,
            v3_and_below_topics=[{"name": "t", "partitions": [0]}],
        )
        code: int = (
            answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
        )
        return code


async def opened(files: MemoryFiles) -> Broker:
    return await Broker.open(
        files, "/log", durability="os", config=BrokerConfig(), clock=SystemClock()
    )


async def client(broker: Broker) -> Client:
    await broker.create_topic("t", 1)
    made = Client(broker)
    await made.start()
    return made


def test_the_server_says_that_it_knows_transactions_of_version_2() -> None:
    async def body() -> None:
        broker = await opened(MemoryFiles())
        software = {"client_software_name": "c", "client_software_version": "1"}
        features = [("group.version", 0, 1), ("transaction.version", 0, 2)]
        for version, supported in ((3, []), (4, features)):
            told = await ask(broker, 18, version, **software)
            assert [
                (each.name, each.min_version, each.max_version) for each in told.supported_features
            ] == supported
            assert [(each.name, each.max_version_level) for each in told.finalized_features] == [
                ("group.version", 1),
                ("transaction.version", 2),
            ]
            assert told.finalized_features_epoch == 0
        await broker.close()

    asyncio.run(body())


def test_an_end_answers_the_next_epoch_and_what_is_late_is_refused() -> None:
    async def body() -> None:
        broker = await opened(MemoryFiles())
        one = await client(broker)
        assert await one.produce(0) == 0
        assert await one.commit_offset(5) == 0
        ended = await one.end(committed=True)
        assert (ended.error_code, ended.producer_id) == (0, one.producer_id)
        assert ended.producer_epoch == one.epoch + 1
        assert broker.offsets.of_group("g")[TopicPartition("t", 0)].offset == 5

        assert await one.produce(1) == OLD_EPOCH
        again = await one.end(committed=True)
        assert (again.error_code, again.producer_epoch) == (0, ended.producer_epoch)
        assert (await one.end(committed=False)).error_code == NOT_IN_TRANSACTION

        one.epoch = ended.producer_epoch
        nothing = await one.end(committed=False)
        assert (nothing.error_code, nothing.producer_epoch) == (0, one.epoch + 1)
        one.epoch = nothing.producer_epoch
        assert (await one.end(committed=True)).error_code == NOT_IN_TRANSACTION
        assert (await one.end(committed=True, epoch=one.epoch - 2)).error_code == FENCED
        await broker.close()

    asyncio.run(body())


def test_what_a_partition_lost_of_a_transaction_is_missed() -> None:
    async def body() -> None:
        broker = await opened(MemoryFiles())
        one = await client(broker)
        assert await one.produce(1) == OUT_OF_ORDER, "where is the first?"
        assert await one.produce(0) == 0
        assert await one.produce(1) == 0
        await broker.delete_topic("t")
        await broker.create_topic("t", 1)
        assert await one.produce(2) == OUT_OF_ORDER, "the topic is another one"
        one.epoch = (await one.end(committed=False)).producer_epoch
        assert await one.produce(0) == 0
        assert await one.produce(1, epoch=one.epoch - 1) == OLD_EPOCH
        assert (await one.end(committed=True)).error_code == 0
        assert broker.partitions.end_offset(TopicPartition("t", 0), "read_committed") == 3
        await broker.close()

    asyncio.run(body())


def test_half_of_a_producers_identity_is_none() -> None:
    async def body() -> None:
        broker = await opened(MemoryFiles())
        request = {"transactional_id": "x", "transaction_timeout": dt.timedelta(seconds=60)}
        for producer_id, epoch in ((5, -1), (-1, 5)):
            identity = {"producer_id": producer_id, "producer_epoch": epoch}
            assert (await ask(broker, INIT, 5, **request, **identity)).error_code == 42
        await broker.close()

    asyncio.run(body())


@pytest.mark.parametrize("clean", [True, False])
def test_its_transaction_goes_on_after_the_server(clean: bool) -> None:
    async def body() -> None:
        files = MemoryFiles()
        broker = await opened(files)
        one = await client(broker)
        assert await one.produce(0) == 0
        assert await one.commit_offset(5) == 0
        if clean:
            await broker.close()
        else:
            await broker.partitions.close(clean=False)
        one.broker = await opened(files)
        assert await one.produce(1) == 0
        ended = await one.end(committed=True)
        assert (ended.error_code, ended.producer_epoch) == (0, one.epoch + 1)
        assert one.broker.partitions.end_offset(TopicPartition("t", 0), "read_committed") == 3
        assert one.broker.offsets.of_group("g")[TopicPartition("t", 0)].offset == 5
        await one.broker.close()

    asyncio.run(body())


def test_what_was_aborted_is_not_committed_with_what_goes_on() -> None:
    """With durability="os" a power loss takes the end of a partition: the marker of an abort, and
    what the next transaction wrote there. The coordinator may know of that one all the same."""

    async def body() -> None:
        files = MemoryFiles()
        broker = await opened(files)
        one = await client(broker)
        assert await one.produce(0) == 0
        path = "/log/t-0/00000000000000000000.log"
        kept = len(files.read_whole(path))
        one.epoch = (await one.end(committed=False)).producer_epoch
        assert await one.produce(0) == 0
        await broker.partitions.close(clean=False)
        handle = files.open(path)
        handle.truncate(kept)
        handle.close()
        one.broker = broker = await opened(files)
        assert (await one.end(committed=True)).error_code == FENCED
        everything = FetchRequest(TopicPartition("t", 0), 0, 1 << 20)
        read = broker.partitions.read(everything, "read_committed")
        assert isinstance(read, ReadResult)
        assert read.aborted == ((one.producer_id, 0),)
        await broker.close()

    asyncio.run(body())


def test_an_offset_of_a_topic_that_is_gone_is_not_committed_after_a_restart() -> None:
    """The topic was forgotten, and the log killed before what was committed for it was."""

    async def body() -> None:
        files = MemoryFiles()
        broker = await opened(files)
        one = await client(broker)
        assert await one.commit_offset(5) == 0
        await broker.partitions.delete_topic("t")
        await broker.partitions.close(clean=False)
        one.broker = broker = await opened(files)
        assert (await one.end(committed=True)).error_code == 0
        assert broker.offsets.of_group("g") == {}
        await broker.close()

    asyncio.run(body())


def test_who_speaks_version_1_has_to_announce() -> None:
    async def body() -> None:
        broker = await opened(MemoryFiles())
        one = await client(broker)
        assert await one.produce(0, version=11) == NOT_IN_TRANSACTION
        assert await one.commit_offset(5, version=4) == NOT_IN_TRANSACTION
        assert await one.produce(0) == 0
        one.epoch = (await one.end(committed=True)).producer_epoch
        assert await one.produce(0, version=11) == NOT_IN_TRANSACTION
        assert (await one.end(committed=False, version=4)).error_code == NOT_IN_TRANSACTION

        assert await one.announce() == 0
        assert await one.produce(0, version=11) == 0
        assert await one.commit_offset(5) == NOT_IN_TRANSACTION
        assert (await one.end(committed=True, version=4)).error_code == 0
        assert await one.announce() == 0
        assert await one.produce(1, version=11) == 0, "it keeps its epoch"
        assert (await one.end(committed=True, version=4)).error_code == 0
        assert await one.produce(2) == 0
        ended = await one.end(committed=True)
        assert (ended.error_code, ended.producer_epoch) == (0, one.epoch + 1)
        await broker.close()

    asyncio.run(body())
