"""Topics that are changed while they are in use: settings, more partitions, names, ids."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from millstream.log import (
    ConfigError,
    InvalidTopicError,
    LogError,
    RecordTooLargeError,
    StorageError,
    TopicDescription,
    TopicPartition,
    UnknownTopicError,
)
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.storage.files import RealFiles
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.testing.sim_files import Operation, SimFiles, disk_error
from shared.logs import settled, values, with_log

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


def opened(files, body, **config):
    async def main():
        async with open_log_on(files, "log", config={"flush.threads": 0, **config}) as log:
            return await body(log)

    return asyncio.run(main())


def test_settings_change_and_are_reset() -> None:
    files = MemoryFiles()

    async def change(log: EmbeddedLog) -> None:
        made = await log.create_topic("t", config={"retention.ms": 5, "segment.bytes": 4096})
        assert made.overrides == {"retention.ms": "5", "segment.bytes": "4096"}
        changed = await log.alter_topic("t", config={"retention.ms": None, "segment.ms": "70"})
        assert changed == await log.describe_topic("t")
        assert changed.overrides == {"segment.bytes": "4096", "segment.ms": "70"}
        assert changed.config["retention.ms"] == "604800000"
        assert (changed.topic_id, changed.partitions) == (made.topic_id, 1)

    async def look(log: EmbeddedLog) -> None:
        found = await log.describe_topic("t")
        assert found.overrides == {"segment.bytes": "4096", "segment.ms": "70"}

    opened(files, change)
    opened(files, look)


def test_a_setting_holds_at_once_for_open_partitions() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with log.producer() as producer:
            await producer.send("t", b"x" * 3000)
            await log.alter_topic("t", config={"max.message.bytes": 2000})
            with pytest.raises(RecordTooLargeError, match=r"max\.message\.bytes"):
                await producer.send("t", b"x" * 3000)
            await log.alter_topic("t", config={"max.message.bytes": None})
            await producer.send("t", b"x" * 3000)
        assert len(await values(log, T0)) == 2

    with_log(body)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"segment.ms": 1000, "retention.hours": 1}, "unknown setting 'retention.hours'"),
        ({"segment.ms": 1000, "retention.hours": None}, "unknown setting 'retention.hours'"),
        ({"segment.ms": 1000, "retention.ms": -2}, "least is -1"),
        ({"min.compaction.lag.ms": 11}, "Lower the first"),
        ({"max.compaction.lag.ms": 3, "min.compaction.lag.ms": 4}, "Lower the first"),
    ],
)
def test_an_invalid_change_changes_nothing(config, message) -> None:
    async def body(log: EmbeddedLog) -> None:
        before = await log.create_topic("t", config={"max.compaction.lag.ms": 10})
        with pytest.raises(ConfigError, match=message):
            await log.alter_topic("t", config=config)
        with pytest.raises(ConfigError):
            await log.alter_topic("t", config={"segment.ms": 1000}, partitions=0)
        assert await log.describe_topic("t") == before

    with_log(body)


def test_partitions_are_added_never_taken_away() -> None:
    files = MemoryFiles()

    async def add(log: EmbeddedLog) -> None:
        made = await log.create_topic("t", partitions=2)
        async with log.producer() as producer:
            await producer.send("t", b"old", partition=1)
            with pytest.raises(UnknownTopicError, match="no partition 2"):
                await producer.send("t", b"early", partition=2)
            changed = await log.alter_topic("t", partitions=4)
            assert (changed.partitions, changed.topic_id) == (4, made.topic_id)
            await producer.send("t", b"new", partition=3)
            keys = [b"%d" % number for number in range(40)]
            await producer.send_batch("t", keys, keys=keys)
        for count, message in ((3, "not more"), (4, "not more"), (10_001, "1 to 10000")):
            with pytest.raises(ConfigError, match=message):
                await log.alter_topic("t", partitions=count)
        with pytest.raises(UnknownTopicError):
            await log.alter_topic("u", partitions=3)

    async def look(log: EmbeddedLog) -> None:
        assert (await log.describe_topic("t")).partitions == 4
        parts = [TopicPartition("t", number) for number in range(4)]
        assert all([await values(log, part) for part in parts])
        assert (await values(log, parts[1]))[0] == b"old"
        assert (await values(log, parts[3]))[0] == b"new"

    opened(files, add)
    opened(files, look)


def test_internal_topics_keep_their_partitions() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        await log.alter_group_offsets("g", {T0: 0})
        with pytest.raises(InvalidTopicError, match="log's own"):
            await log.alter_topic("__consumer_offsets", partitions=2)
        await log.alter_topic("__consumer_offsets", config={"segment.bytes": 1 << 20})
        found = await log.describe_topic("__consumer_offsets")
        assert found.overrides["segment.bytes"] == str(1 << 20)

    with_log(body)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a.b", "a_b"),
        ("a_b.c", "a.b_c"),
        (None, "__consumer.offsets"),
        (None, "__transaction.state"),
    ],
)
def test_names_that_look_alike(first: str | None, second: str) -> None:
    async def body(log: EmbeddedLog) -> None:
        if first is not None:
            await log.create_topic(first)
        with pytest.raises(InvalidTopicError, match="collides with"):
            await log.create_topic(second)
        await log.create_topic("a.bb")
        if first is not None:
            await log.delete_topic(first)
            await log.create_topic(second)

    with_log(body)


def test_an_id_is_never_used_again() -> None:
    async def body(log: EmbeddedLog) -> None:
        ids = set()
        for _ in range(3):
            made = await log.create_topic("t")
            altered = await log.alter_topic("t", partitions=2)
            assert altered.topic_id == made.topic_id
            ids.add(made.topic_id)
            await log.delete_topic("t")
        assert len(ids) == 3

    with_log(body)


def test_a_group_shares_added_partitions() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=1)
        members = [log.consumer("t", group="g") for _ in range(2)]
        other = log.consumer("u", group="other")
        await log.create_topic("u")

        async def poll_until(wanted: int) -> None:
            while sum(len(each.assignment()) for each in members) != wanted:
                await asyncio.gather(*[each.poll(10) for each in members])

        await poll_until(1)
        await other.poll(0)
        rebalances = other.stats().rebalances
        await log.alter_topic("t", partitions=4)
        await poll_until(4)
        assert {len(each.assignment()) for each in members} == {2}
        await other.poll(0)
        assert other.stats().rebalances == rebalances

    with_log(body)


def test_a_consumer_of_its_own_reads_added_partitions_at_once() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=1)
        found: list[bytes | None] = []

        async def read() -> None:
            async with log.consumer("t", auto_offset_reset="latest") as consumer:
                while not found:
                    found.extend(record.value for record in await consumer.poll(60_000))

        reading = asyncio.get_running_loop().create_task(read())
        await settled()
        await log.alter_topic("t", partitions=2)
        async with log.producer() as producer:
            await producer.send("t", b"there", partition=1)
        await settled()
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        assert found == [b"there"]

    with_log(body)


def test_a_disk_that_refuses_leaves_the_topic_as_it_was() -> None:
    """Every operation of a change fails in turn; the topic is as before, and can be changed."""
    failing, refused = 0, 0
    while True:
        files = SimFiles()

        async def change(log: EmbeddedLog, files: SimFiles = files, failing: int = failing) -> bool:
            before = await log.create_topic("t", config={"segment.ms": 7})
            start = files.writes

            def fail(operation: Operation) -> OSError | None:
                due = operation.is_write and operation.write_number == start + failing
                return disk_error("ENOSPC", operation.path) if due else None

            files.on_operation = fail
            try:
                await log.alter_topic("t", config={"segment.ms": None}, partitions=3)
                files.on_operation = None
            except StorageError:
                assert await log.describe_topic("t") == before
                with pytest.raises(UnknownTopicError):
                    await log.end_offsets([T1])
                await log.alter_topic("t", config={"segment.ms": 8}, partitions=3)
                return True
            return False

        async def look(log: EmbeddedLog) -> None:
            found = await log.describe_topic("t")
            assert (found.partitions, found.overrides) == (3, {"segment.ms": "8"})
            assert await log.end_offsets([TopicPartition("t", 2)])

        if not opened(files, change):
            break
        for disk in (files.restart(), files.after_crash("dropped", "dropped")):
            opened(disk, look)
        refused += 1
        failing += 1
    assert refused > 15


async def churn(log: EmbeddedLog, number: int) -> None:
    """Make, alter and delete two topics in turn, whatever others do to them."""
    for step in range(8):
        name = f"t{step % 2}"
        with suppress(LogError):
            await log.create_topic(name, partitions=1 + number % 3)
        with suppress(LogError):
            await log.alter_topic(
                name, config={"segment.ms": 1000 + number}, partitions=3 + number % 4
            )
        if number % 2:
            with suppress(LogError):
                await log.delete_topic(name)


async def write(log: EmbeddedLog) -> None:
    async with log.producer(config={"linger.ms": 0}) as producer:
        for row in range(200):
            with suppress(LogError):
                await producer.send("t0", b"%d" % row)


async def described(log: EmbeddedLog) -> list[TopicDescription]:
    """All topics, whose partitions are exactly those they say."""
    found = [await log.describe_topic(name) for name in await log.topics()]
    for topic in found:
        await log.end_offsets([TopicPartition(topic.name, at) for at in range(topic.partitions)])
        with pytest.raises(UnknownTopicError):
            await log.end_offsets([TopicPartition(topic.name, topic.partitions)])
    return found


@pytest.mark.parametrize("threads", [0, 3])
def test_changes_at_the_same_time(tmp_path, threads: int) -> None:
    """Topics are made, altered and deleted by several at once, some of them cancelled, while others
    write: each change happens whole, one after the other, and what is left is what is on disk."""
    files = RealFiles() if threads else MemoryFiles()
    folder = str(tmp_path) if threads else "log"
    config = {"flush.threads": threads}

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with open_log_on(files, folder, config=config, durability="os") as log:
            tasks = [loop.create_task(churn(log, number)) for number in range(6)]
            writing = loop.create_task(write(log))
            for turn in range(40):
                await asyncio.sleep(0)
                if turn % 10 == 9:
                    tasks[turn // 10].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await writing
            left = await described(log)
        async with open_log_on(files, folder, config=config, durability="os") as log:
            assert await described(log) == left
        folders = [each for each in files.list_dir(folder) if each.endswith(("-stray", "-delete"))]
        assert folders == []

    asyncio.run(main())
