"""Topics: created, described, deleted, kept over restarts; and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from millstream.log import (
    ConfigError,
    InvalidTopicError,
    OffsetAndMetadata,
    StorageError,
    TopicExistsError,
    TopicPartition,
    UnknownTopicError,
    open_log,
)
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.testing.sim_files import Operation, SimFiles, disk_error
from shared.logs import values, with_log

T0 = TopicPartition("t", 0)


def reopened(files, body):
    async def main():
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            return await body(log)

    return asyncio.run(main())


def test_describe() -> None:
    async def body(log: EmbeddedLog) -> None:
        created = await log.create_topic(
            "t", partitions=3, config={"retention.ms": 5, "cleanup.policy": "compact"}
        )
        assert created == await log.describe_topic("t")
        assert (created.name, created.partitions, created.internal) == ("t", 3, False)
        assert len(created.topic_id) == 22
        assert created.config["retention.ms"] == "5"
        assert created.config["cleanup.policy"] == "compact"
        assert created.config["segment.bytes"] == str(1 << 30)
        assert await log.topics() == ["t"]
        assert await log.beginning_offsets([T0]) == {T0: 0}

    with_log(body)


def test_internal_topics_are_called_so() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        await log.alter_group_offsets("g", {T0: 0})
        assert (await log.describe_topic("__consumer_offsets")).internal
        assert await log.topics() == ["__consumer_offsets", "t"]

    with_log(body)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "ä", "x" * 250, "a b"])
def test_names_kafka_refuses(name: str) -> None:
    async def body(log: EmbeddedLog) -> None:
        with pytest.raises(InvalidTopicError):
            await log.create_topic(name)
        assert await log.topics() == []

    with_log(body)


def test_what_is_refused() -> None:
    async def body(log: EmbeddedLog) -> None:
        with pytest.raises(ConfigError, match="10001 partitions"):
            await log.create_topic("t", partitions=10_001)
        with pytest.raises(ConfigError, match="0 partitions"):
            await log.create_topic("t", partitions=0)
        with pytest.raises(ConfigError, match=r"Topic t: unknown setting 'retention.hours'.*ms"):
            await log.create_topic("t", config={"retention.hours": 1})
        await log.create_topic("t")
        with pytest.raises(TopicExistsError, match="exist_ok"):
            await log.create_topic("t", partitions=5)
        assert (await log.create_topic("t", partitions=5, exist_ok=True)).partitions == 1
        with pytest.raises(UnknownTopicError, match="'u'"):
            await log.describe_topic("u")
        with pytest.raises(UnknownTopicError):
            await log.delete_topic("u")

    with_log(body)


def test_topics_outlive_the_process() -> None:
    files = MemoryFiles()

    async def create(log: EmbeddedLog):
        await log.create_topic("t", partitions=2, config={"max.message.bytes": 2000})
        async with log.producer() as producer:
            await producer.send("t", b"kept", partition=1)
        return await log.describe_topic("t")

    async def look(log: EmbeddedLog):
        assert await values(log, TopicPartition("t", 1)) == [b"kept"]
        return await log.describe_topic("t")

    assert reopened(files, create) == reopened(files, look)


def test_a_deleted_topic_can_be_made_again() -> None:
    files = MemoryFiles()

    async def delete(log: EmbeddedLog) -> None:
        async with log.producer() as producer:
            await producer.send("t", b"old")
            await log.alter_group_offsets("g", {T0: 1})
            await log.delete_topic("t")
            assert await log.topics() == ["__consumer_offsets"]
            await log.create_topic("t")
            assert (await producer.send("t", b"new")).offset == 0
        assert await log.group_offsets("g") == {}

    async def look(log: EmbeddedLog) -> None:
        assert await values(log, T0) == [b"new"]
        assert await log.group_offsets("g") == {}

    reopened(files, delete)
    reopened(files, look)


def test_concurrent_creation() -> None:
    async def body(log: EmbeddedLog) -> None:
        made = await asyncio.gather(*[log.create_topic("t", exist_ok=True) for _ in range(5)])
        assert len({each.topic_id for each in made}) == 1
        refused = await asyncio.gather(
            *[log.create_topic("u") for _ in range(3)], return_exceptions=True
        )
        assert sum(isinstance(each, TopicExistsError) for each in refused) == 2

    with_log(body)


def test_a_damaged_table_is_not_guessed_at() -> None:
    files = MemoryFiles()

    async def create(log: EmbeddedLog) -> None:
        await log.create_topic("t")

    reopened(files, create)
    good = files.read_whole("log/topics.json")
    for bad in (b"{", b"[]", b'{"version": 1, "topics": {"t": {}}}', b'{"version": 2}'):
        handle = files.open("log/topics.json")
        handle.truncate(0)
        handle.append(bad)
        with pytest.raises(StorageError, match=r"topics\.json"):
            reopened(files, create)
    handle = files.open("log/topics.json")
    handle.truncate(0)
    handle.append(good)

    async def look(log: EmbeddedLog) -> None:
        assert await log.topics() == ["t"]

    reopened(files, look)  # the lock was given back each time


def test_a_disk_that_refuses_leaves_no_topic() -> None:
    files = SimFiles()

    async def body(log: EmbeddedLog) -> None:
        files.on_operation = lambda operation: (
            disk_error("ENOSPC", operation.path) if operation.kind == "make_dir" else None
        )
        with pytest.raises(StorageError, match=r"t could not be created|No space"):
            await log.create_topic("t")
        files.on_operation = None
        assert await log.topics() == []
        await log.create_topic("t")
        async with log.producer() as producer:
            await producer.send("t", b"x")

    reopened(files, body)


def test_delete_records() -> None:
    files = MemoryFiles()

    async def delete(log: EmbeddedLog) -> None:
        async with log.producer() as producer:
            await producer.send_batch("t", [b"%d" % number for number in range(10)])
        await log.delete_records({T0: 4})
        assert await log.beginning_offsets([T0]) == {T0: 4}
        assert await values(log, T0) == [b"%d" % number for number in range(4, 10)]

    async def look(log: EmbeddedLog) -> None:
        assert await values(log, T0) == [b"%d" % number for number in range(4, 10)]
        await log.delete_records({T0: -1})
        assert await values(log, T0) == []

    reopened(files, delete)
    reopened(files, look)


def test_a_deletion_that_was_cut_short_leaves_no_offsets_for_a_topic_of_the_same_name() -> None:
    files = MemoryFiles()
    partition = TopicPartition("orders", 0)

    async def main() -> None:
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            await log.create_topic("orders")
            await log.create_topic("kept")
            for topic in ("orders", "kept"):
                await log.alter_group_offsets("billing", {TopicPartition(topic, 0): 7})
            await log._broker.partitions.delete_topic("orders")  # and the process is killed here
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            kept = {TopicPartition("kept", 0): OffsetAndMetadata(7)}
            assert await log.group_offsets("billing") == kept
            await log.create_topic("orders")
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            assert partition not in await log.group_offsets("billing")

    asyncio.run(main())


def test_a_cancelled_deletion_forgets_the_offsets_too() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            await log.create_topic("orders")
            await log.alter_group_offsets("billing", {TopicPartition("orders", 0): 7})
            deleting = asyncio.get_running_loop().create_task(log.delete_topic("orders"))
            await asyncio.sleep(0)
            deleting.cancel()
            await asyncio.wait([deleting])
            await log.create_topic("orders")
            assert await log.group_offsets("billing") == {}

    asyncio.run(main())


def test_a_deletion_that_the_disk_did_not_let_end_forgets_the_offsets_too() -> None:
    files = SimFiles()

    def full(operation: Operation) -> OSError | None:
        due = operation.kind == "append" and "recovery-point" in operation.path
        return disk_error("ENOSPC", operation.path) if due else None

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("orders")
        await log.alter_group_offsets("billing", {TopicPartition("orders", 0): 7})
        files.on_operation = full
        with pytest.raises(StorageError):
            await log.delete_topic("orders")
        assert await log.topics() == ["__consumer_offsets"]
        files.on_operation = None
        await log.create_topic("orders")
        assert await log.group_offsets("billing") == {}

    reopened(files, body)


def test_those_who_follow_topics_hear_of_a_change_whose_owner_was_cancelled() -> None:
    async def body(log: EmbeddedLog) -> None:
        loop = asyncio.get_running_loop()

        async def cancelled(change: Coroutine[None, None, object]) -> None:
            changing = loop.create_task(change)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            changing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await changing

        await log.create_topic("logs-1")
        async with log.consumer("^logs-", group="g") as consumer, log.consumer("logs-1") as whole:
            await consumer.poll(0)
            await whole.poll(0)
            for change, expected in (
                (log.create_topic("logs-2"), {("logs-1", 0), ("logs-2", 0)}),
                (
                    log.alter_topic("logs-1", partitions=2),
                    {("logs-1", 0), ("logs-1", 1), ("logs-2", 0)},
                ),
                (log.delete_topic("logs-2"), {("logs-1", 0), ("logs-1", 1)}),
            ):
                await cancelled(change)
                for _ in range(3):
                    await consumer.poll(0)
                assert consumer.assignment() == expected
            await whole.poll(0)
            assert whole.assignment() == {("logs-1", 0), ("logs-1", 1)}

    with_log(body, config={"flush.threads": 1})
