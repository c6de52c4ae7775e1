"""Producers, through the public interface."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from millstream.log import (
    BufferFullError,
    ConfigError,
    InvalidTopicError,
    InvalidTxnStateError,
    LogClosedError,
    LogTimeoutError,
    RecordTooLargeError,
    StorageError,
    TopicPartition,
    UnknownTopicError,
    open_log,
)
from millstream.log.broker.disk_threads import DiskThreads, Ended
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.format.codec import parse_header
from millstream.log.format.partitioner import partition_for_key
from millstream.log.open import open_log_on
from millstream.log.testing.sim_files import SimFiles, disk_error
from shared.logs import read_all, values, with_log

T0 = TopicPartition("t", 0)


def partitions(count: int) -> list[TopicPartition]:
    return [TopicPartition("t", number) for number in range(count)]


def test_metadata_says_where_the_record_lies() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=3)
        async with log.producer() as producer:
            first = await producer.send("t", b"a", partition=2, timestamp=1234)
            second = await producer.send("t", None, key=b"k", partition=2, headers=(("h", None),))
        assert (first.topic, first.partition, first.offset, first.timestamp) == ("t", 2, 0, 1234)
        assert second.offset == 1
        records = await read_all(log, *partitions(3))
        assert [(r.offset, r.key, r.value, r.headers) for r in records] == [
            (0, None, b"a", ()),
            (1, b"k", None, (("h", None),)),
        ]

    with_log(body)


def test_keys_go_where_kafka_puts_them() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=7)
        keys = [b"key-%d" % number for number in range(50)]
        async with log.producer() as producer:
            one_by_one = await asyncio.gather(*[producer.send("t", b"", key=key) for key in keys])
            await producer.send_batch("t", [b""] * 50, keys=keys)
        for key, metadata in zip(keys, one_by_one, strict=True):
            assert metadata.partition == partition_for_key(key, 7)
        for record in await read_all(log, *partitions(7)):
            assert record.partition == partition_for_key(record.key or b"", 7)

    with_log(body)


def test_null_keys_stay_for_a_batch_and_then_move() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=4)
        async with log.producer(config={"batch.size": 1000}) as producer:
            for _ in range(60):
                await producer.send_batch("t", [b"." * 300] * 2)
        runs = [len(await read_all(log, each)) for each in partitions(4)]
        assert sum(runs) == 120
        assert min(runs) > 0
        assert all(count % 4 == 0 for count in runs)  # two hand-overs reach batch.size

    with_log(body)


def test_order_per_partition_across_send_and_send_batch() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with log.producer(config={"linger.ms": 50}) as producer:
            first = asyncio.ensure_future(producer.send("t", b"1"))
            await asyncio.sleep(0)
            await producer.send_batch("t", [b"2", b"3"])
            last = asyncio.ensure_future(producer.send("t", b"4"))
            await asyncio.sleep(0)
            await producer.flush()
            assert (await first).offset == 0
            assert (await last).offset == 3
        assert await values(log, T0) == [b"1", b"2", b"3", b"4"]

    with_log(body)


def test_sends_that_wait_together_share_a_batch() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with log.producer() as producer:
            await asyncio.gather(*[producer.send("t", b"%d" % n) for n in range(100)])
            assert producer.stats().batches_sent == 1
        assert await values(log, T0) == [b"%d" % n for n in range(100)]

    with_log(body)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_compression(codec: str) -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with log.producer(config={"compression.type": codec}) as producer:
            await producer.send_batch("t", [b"x" * 100] * 50)
        assert await values(log, T0) == [b"x" * 100] * 50

    with_log(body)


def test_batches_respect_batch_size_and_max_message_bytes() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config={"max.message.bytes": 2000})
        async with log.producer() as producer:
            await producer.send_batch("t", [b"." * 300] * 30)
            assert producer.stats().batches_sent >= 5
            await asyncio.gather(*[producer.send("t", b"." * 300) for _ in range(30)])
        assert len(await values(log, T0)) == 60

    with_log(body)


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_a_record_too_large_writes_nothing(codec: str) -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config={"max.message.bytes": 5000})
        large = bytes(range(256)) * 40
        async with log.producer(config={"compression.type": codec}) as producer:
            if codec == "zstd":
                await producer.send("t", large)  # compressed it fits
                return
            with pytest.raises(RecordTooLargeError, match=r"t-0 .*max\.message\.bytes"):
                await producer.send("t", large)
            with pytest.raises(RecordTooLargeError, match="Nothing was written"):
                await producer.send_batch("t", [b"small"] * 100 + [large])
            await producer.send("t", b"goes on")
        assert await values(log, T0) == [b"goes on"]

    with_log(body)


def test_unknown_topics() -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer() as producer:
            with pytest.raises(UnknownTopicError, match=r"'nope'.*create_topic"):
                await producer.send("nope", b"")
            await log.create_topic("t", partitions=2)
            with pytest.raises(UnknownTopicError, match="no partition 2"):
                await producer.send("t", b"", partition=2)
            with pytest.raises(UnknownTopicError, match="no partition 9"):
                await producer.send_batch("t", [b""], partition=9)

    with_log(body, config={"auto.create.topics.enable": "false"})


def test_topics_are_created_by_writing() -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer() as producer:
            await producer.send("fresh", b"x")
        assert (await log.describe_topic("fresh")).partitions == 3

    with_log(body, config={"num.partitions": 3})


def test_what_is_not_bytes_harms_no_other_record() -> None:
    text: Any = "text"
    number: Any = 5

    async def body(log: EmbeddedLog) -> None:
        async with log.producer() as producer:
            results = await asyncio.gather(
                producer.send("t", b"good"),
                producer.send("t", text),
                producer.send("t", b"", key=number),
                return_exceptions=True,
            )
            assert [type(each).__name__ for each in results] == [
                "RecordMetadata",
                "TypeError",
                "TypeError",
            ]
            with pytest.raises(TypeError):
                await producer.send_batch("t", [b"", text])
        assert await values(log, T0) == [b"good"]

    with_log(body)


def test_a_topic_can_decide_about_compression() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config={"compression.type": "zstd"})
        await log.create_topic("u", config={"compression.type": "uncompressed"})
        async with log.producer(config={"compression.type": "gzip"}) as producer:
            for topic in "tu":
                await producer.send_batch(topic, [b"x" * 1000] * 10)
            await producer.flush()
        for topic, codec in (("t", 4), ("u", 0)):
            partition = log._broker.partitions.partition(TopicPartition(topic, 0))
            data = partition.read(0, size_bytes_max=1).data
            assert parse_header(data).compression == codec

    with_log(body)


def test_internal_topics_are_the_logs_own() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        await log.alter_group_offsets("g", {T0: 0})
        internal = TopicPartition("__consumer_offsets", 0)
        async with log.producer() as producer:
            for attempt in (
                log.create_topic("__transaction_state"),
                log.delete_topic("__consumer_offsets"),
                log.delete_records({internal: 1}),
                producer.send_batch("__consumer_offsets", [b""]),
            ):
                with pytest.raises(InvalidTopicError, match="its own state"):
                    await attempt
        assert len(await values(log, internal)) == 1

    with_log(body)


def test_columns_must_be_of_one_length() -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer() as producer:
            with pytest.raises(ValueError, match="2 values and 1 keys"):
                await producer.send_batch("t", [b"", b""], keys=[b""])

    with_log(body)


def test_wrong_settings() -> None:
    async def body(log: EmbeddedLog) -> None:
        with pytest.raises(ConfigError, match=r"linger.msec.*linger.ms"):
            log.producer(config={"linger.msec": 5})
        with pytest.raises(ConfigError, match=r"compression\.type is 'rar'"):
            log.producer(config={"compression.type": "rar"})
        with pytest.raises(ConfigError, match=r"transaction\.max\.timeout\.ms"):
            async with log.producer(transactional_id="x", config={"transaction.timeout.ms": 10**9}):
                pass

    with_log(body)


def test_log_append_time() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", config={"message.timestamp.type": "LogAppendTime"})
        async with log.producer() as producer:
            metadata = await producer.send("t", b"", timestamp=5)
        (record,) = await read_all(log, T0)
        assert record.timestamp == metadata.timestamp > 10**12

    with_log(body)


def test_closed() -> None:
    async def body(log: EmbeddedLog) -> None:
        producer = log.producer()
        await producer.send("t", b"")
        await producer.close()
        await producer.close()
        with pytest.raises(LogClosedError):
            await producer.send("t", b"")
        other = log.producer()
        await other.send("t", b"")
        await log.close()
        with pytest.raises(LogClosedError):
            await other.send("t", b"")

    with_log(body)


def test_not_transactional() -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer() as producer:
            with pytest.raises(InvalidTxnStateError, match="transactional_id"):
                await producer.begin_transaction()

    with_log(body)


def test_a_cancelled_send_harms_nobody() -> None:
    async def body(log: EmbeddedLog) -> None:
        async with log.producer() as producer:
            for number in range(30):
                sending = asyncio.ensure_future(producer.send("t", b"?"))
                for _ in range(number % 7):
                    await asyncio.sleep(0)
                sending.cancel()
                await asyncio.wait([sending])
            await producer.send("t", b"last")
        found = await values(log, T0)
        assert found[-1] == b"last"
        assert set(found) <= {b"?", b"last"}

    with_log(body)


def test_a_failed_fsync_reaches_those_who_wait_and_those_who_come_later() -> None:
    files = SimFiles()

    async def main() -> None:
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            await log.create_topic("t")
            producer = log.producer(config={"linger.ms": 0})
            await producer.send("t", b"fine")
            files.on_operation = lambda operation: (
                disk_error("EIO", operation.path) if operation.kind == "fsync" else None
            )
            with pytest.raises(StorageError, match=r"t-0.*opened again"):
                await producer.send("t", b"lost")
            files.on_operation = None
            with pytest.raises(StorageError, match="t-0"):
                await producer.send("t", b"refused")
            await producer.send_batch("other", [b"works"])
            await producer.flush()
            assert await values(log, T0) == [b"fine"]
            assert log.stats().failed_partitions == 1
            with pytest.raises(StorageError):
                await log.close()

    asyncio.run(main())


def test_the_buffer_is_bounded(tmp_path) -> None:
    """Appends that nobody flushed yet fill it; waiting for the disk makes room."""

    async def main() -> None:
        async with open_log(f"file:{tmp_path}") as log:
            await log.create_topic("t")
            producer = log.producer(config={"buffer.memory": 100_000})
            for _ in range(50):
                await producer.send_batch("t", [b"." * 1000] * 60)
                assert producer.stats().buffered_bytes < 200_000
            await producer.flush()
            assert producer.stats().buffered_bytes == 0
            assert len(await values(log, T0)) == 3000

    asyncio.run(main())


def hold_fsyncs(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Flushes start and do not end before they are let go."""
    held: list[Callable[[], None]] = []

    def start(_self: DiskThreads, work: Callable[[], None], ended: Ended) -> None:
        def let_go() -> None:
            work()
            ended(None)

        held.append(let_go)

    monkeypatch.setattr(DiskThreads, "start", start)
    monkeypatch.setattr(DiskThreads, "inline", property(lambda _self: False))
    return held


def test_a_stuck_disk_fills_the_buffer_and_times_sends_out(monkeypatch) -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        producer = log.producer(
            config={"buffer.memory": 65536, "max.block.ms": 30, "delivery.timeout.ms": 30}
        )
        await producer.send("t", b"first")
        held = hold_fsyncs(monkeypatch)
        await producer.send_batch("t", [b"." * 1000] * 70)
        with pytest.raises(BufferFullError, match=r"buffer\.memory"):
            await producer.send_batch("t", [b"more"])
        with pytest.raises(LogTimeoutError, match=r"delivery\.timeout\.ms"):
            await producer.flush()
        monkeypatch.undo()
        for let_go in held:
            let_go()
        await producer.flush()
        assert len(await values(log, T0)) == 71

    with_log(body)
