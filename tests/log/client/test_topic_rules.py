"""What a topic's settings mean to those who write and read: through the public interface."""

from __future__ import annotations

import asyncio

import pytest

from millstream.log import (
    InvalidRecordError,
    InvalidTimestampError,
    NotEnoughReplicasError,
    OffsetAndTimestamp,
    TopicPartition,
)
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.testing.fake_clock import FakeClock
from millstream.log.testing.sim_files import SimFiles
from shared.logs import read_all, values, with_log

T0 = TopicPartition("t", 0)
HOUR_MS = 3_600_000
NOW_MS = 1_700_000_000_000


def test_log_append_time_is_what_the_sender_hears() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config={"message.timestamp.type": "LogAppendTime"})
        async with log.producer() as producer:
            sent = await producer.send("t", b"a", timestamp=5)
            assert sent.timestamp == NOW_MS
        assert [record.timestamp for record in await read_all(log, T0)] == [NOW_MS]
        await log.alter_topic("t", config={"message.timestamp.type": None})
        async with log.producer() as producer:
            assert (await producer.send("t", b"b", timestamp=6)).timestamp == 6
        assert [record.timestamp for record in await read_all(log, T0)] == [NOW_MS, 6]

    with_log(body, clock=FakeClock(NOW_MS))


def test_a_time_outside_the_limits_reaches_its_sender_and_harms_nobody() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with log.producer() as producer:
            with pytest.raises(InvalidTimestampError, match=r"t-0: record 0 of 1"):
                await producer.send("t", b"late", timestamp=NOW_MS + HOUR_MS + 1)
            await producer.send("t", b"fine", timestamp=NOW_MS + HOUR_MS)
            with pytest.raises(InvalidTimestampError, match=r"record 1 of 2"):
                await producer.send_batch(
                    "t", [b"x", b"late"], timestamps=[NOW_MS, NOW_MS + 2 * HOUR_MS]
                )
            await producer.flush()
        assert await values(log, T0) == [b"fine"]
        await log.alter_topic("t", config={"message.timestamp.after.max.ms": 3 * HOUR_MS})
        async with log.producer() as producer:
            await producer.send("t", b"late", timestamp=NOW_MS + 2 * HOUR_MS)

    with_log(body, clock=FakeClock(NOW_MS))


def test_a_record_without_a_key_in_a_compacted_topic() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config={"cleanup.policy": "compact"})
        async with log.producer() as producer:
            with pytest.raises(InvalidRecordError, match="record 0 of 1"):
                await producer.send("t", b"no key")
            await producer.send("t", b"value", key=b"key")
        async with log.producer(transactional_id="app") as producer:
            await producer.begin_transaction()
            await producer.send("t", b"value", key=b"key")
            with pytest.raises(InvalidRecordError):
                await producer.send("t", b"no key")
            with pytest.raises(InvalidRecordError):
                await producer.commit_transaction()
            await producer.abort_transaction()
        assert await values(log, T0) == [b"value"]

    with_log(body)


def test_more_copies_than_one() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config={"min.insync.replicas": 2})
        async with log.producer() as producer:
            with pytest.raises(NotEnoughReplicasError, match=r"min\.insync\.replicas"):
                await producer.send("t", b"x")
        await log.alter_topic("t", config={"min.insync.replicas": 1})
        async with log.producer() as producer:
            await producer.send("t", b"x")

    with_log(body)


def test_the_latest_record() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=3)
        partitions = [TopicPartition("t", number) for number in range(3)]
        async with log.producer() as producer:
            await producer.send_batch("t", [b"x"] * 4, timestamps=[5, 9, 9, 1], partition=0)
            await producer.send_batch("t", [b"x"], timestamps=[-1], partition=1)
            await producer.flush()
        assert await log.max_timestamps(partitions) == {
            partitions[0]: OffsetAndTimestamp(1, 9),
            partitions[1]: None,
            partitions[2]: None,
        }

    with_log(body)


def test_the_topics_codec_and_level() -> None:
    """The producer writes in the topic's codec at once; nothing is compressed twice."""
    names = [b"the quick brown fox %d jumps over %d" % (i * 7919 % 1000, i) for i in range(3000)]

    def size(config: dict[str, str | int], sent: str = "none") -> int:
        async def body(log: EmbeddedLog) -> int:
            await log.create_topic("t", config=config)
            async with log.producer(config={"compression.type": sent}) as producer:
                await producer.send_batch("t", names)
                await producer.flush()
            assert await values(log, T0) == names
            return log._broker.partitions.partition(T0).size_bytes

        return with_log(body)

    plain = size({"compression.type": "uncompressed"}, "zstd")
    fast = size({"compression.type": "zstd", "compression.zstd.level": -5})
    small = size({"compression.type": "zstd", "compression.zstd.level": 19})
    assert plain == size({})
    assert small < fast < plain


def test_producers_expire_across_restarts() -> None:
    """Silence counts on while the log is closed; only what an open transaction needs is kept."""
    files, clock, day_ms = SimFiles(), FakeClock(NOW_MS), 24 * HOUR_MS

    async def known(*, write: bool) -> set[int]:
        config = {"flush.threads": 0}
        async with open_log_on(files, "log", config=config, clock=clock) as log:
            await log.create_topic("t", exist_ok=True)
            partition = log._broker.partitions.partition(T0)
            partition.expire_producers(clock.wall_ms() - day_ms)
            found = set(partition._producers.producers)
            if write:
                async with log.producer() as producer:
                    await producer.send("t", b"x", timestamp=5)  # whatever time the record has
            return found

    async def main() -> None:
        assert await known(write=True) == set()
        first = await known(write=False)
        assert len(first) == 1
        clock.advance(day_ms - 1000)
        assert await known(write=True) == first  # and a second one writes
        clock.advance(999)
        both = await known(write=False)
        assert len(both) == 2
        clock.advance(1)
        assert await known(write=False) == both - first
        clock.advance(day_ms)
        assert await known(write=False) == set()

    asyncio.run(main())
