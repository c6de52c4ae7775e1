"""Metrics: the text parses, the numbers are true, and the labels are bounded."""

from __future__ import annotations

import asyncio
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from millstream.log import StorageError, TopicPartition
from millstream.log.broker.counting import FLUSH_BUCKETS_S, Histogram
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.metrics import FAMILIES
from millstream.log.metrics_text import Family, histogram_text, metric_text
from millstream.log.open import open_log_on
from millstream.log.server.metrics_http import serve_metrics
from millstream.log.stats import FlusherStats
from millstream.log.storage.partition import Partition
from millstream.log.testing.fake_clock import FakeClock
from millstream.log.testing.sim_files import Operation, SimFiles, disk_error
from shared.logs import values, with_log

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
Found = dict[tuple[str, tuple[str, ...]], float]


def parsed(text: str) -> Found:
    """Sample name and values of its labels -> number; every family once, with help and type."""
    families = list(text_string_to_metric_families(text))
    assert len({each.name for each in families}) == len(families)
    assert all(each.documentation and each.type != "unknown" for each in families)
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for each in families
        for sample in each.samples
    }


def metrics(log: EmbeddedLog) -> Found:
    return parsed(log.metrics())


def test_every_family_is_there_and_well_named() -> None:
    async def body(log: EmbeddedLog) -> None:
        text = log.metrics()
        for family in FAMILIES:
            assert text.count(f"# TYPE {family.name} {family.kind}\n") == 1
            assert re.fullmatch(r"(millstream_[a-z_]+|process_open_fds)", family.name)
            assert family.name.endswith("_total") is (family.kind == "counter")
            assert not family.name.endswith(("_ms", "_kb"))

    with_log(body)


def test_what_is_written_and_read() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=2, config={"segment.bytes": 1024})
        async with log.producer(transactional_id="x") as producer:
            for number in range(3):
                async with producer.transaction():
                    await producer.send_batch("t", [b"." * 600, b"!"], partition=0)
                    await producer.send_offsets({T0: number, T1: 0}, group="g")
            await producer.begin_transaction()
            await producer.send_batch("t", [b"open"], partition=0)
            await producer.send_batch("t", [b"gone"], partition=1)
            await producer.flush()
            assert await values(log, T0) == [b"." * 600, b"!"] * 3
            found = metrics(log)
            assert found["millstream_transactions", ("Ongoing",)] == 1
            assert found["millstream_log_last_stable_offset", ("t", "0")] == 9
            assert found["millstream_log_high_watermark", ("t", "0")] == 10
            assert found["millstream_producers", ()] == 1
            assert found["millstream_group_committed_offset", ("g", "t", "0")] == 2
            assert found["millstream_group_lag_records", ("g", "t", "0")] == 7
            await producer.abort_transaction()
        found = metrics(log)
        assert found["millstream_log_end_offset", ("t", "0")] == 11
        assert found["millstream_log_appended_records_total", ("t", "0")] == 7
        assert found["millstream_log_appended_batches_total", ("t", "0")] == 4
        partition = log._broker.partitions.partition(T0)
        assert found["millstream_log_size_bytes", ("t", "0")] == partition.size_bytes
        assert found["millstream_log_segments", ("t", "0")] == partition.segment_count > 1
        assert 0 < found["millstream_log_fetched_bytes_total", ("t", "0")] <= partition.size_bytes
        assert found["millstream_log_fetched_bytes_total", ("t", "1")] == 0
        assert found["millstream_transactions_committed_total", ()] == 3
        assert found["millstream_transactions_aborted_total", ()] == 1
        assert found["millstream_log_flush_seconds_count", ()] > 3
        assert found["millstream_producers", ()] == 0
        assert found["millstream_producer_sent_records_total", ()] == 8
        assert found["millstream_consumer_returned_records_total", ()] == 6
        await log.delete_records({T0: 4})
        assert metrics(log)["millstream_log_start_offset", ("t", "0")] == 4
        await log.delete_topic("t")
        assert ("millstream_log_end_offset", ("t", "0")) not in metrics(log)
        await log.create_topic("t")
        assert metrics(log)["millstream_log_appended_records_total", ("t", "0")] == 0

    with_log(body)


def test_a_duplicate_is_not_counted() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with log.producer() as producer:
            await producer.send("t", b"once")
            broker = log._broker
            batch = broker.partitions.partition(T0).read(0, size_bytes_max=1000).data
            assert broker.append(T0, batch).duplicate
        found = metrics(log)
        assert found["millstream_log_appended_records_total", ("t", "0")] == 1
        assert found["millstream_log_appended_bytes_total", ("t", "0")] == len(batch)

    with_log(body)


def test_a_disk_that_fails_is_seen() -> None:
    def fail(operation: Operation) -> OSError | None:
        due = operation.kind == "fsync" and "/t-0/" in operation.path
        return disk_error("EIO", operation.path) if due else None

    async def main() -> None:
        files = SimFiles()
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            await log.create_topic("t")
            files.on_operation = fail
            async with log.producer() as producer:
                with pytest.raises(StorageError, match="fsync failed"):
                    await producer.send("t", b"lost")
            found.append((metrics(log), log._broker.partitions.flusher.stats()))

    found: list[tuple[Found, FlusherStats]] = []
    with pytest.raises(StorageError, match="takes no more writes"):  # from closing the log
        asyncio.run(main())
    ((seen, flusher),) = found
    assert seen["millstream_log_failed_partitions", ()] == 1
    assert seen["millstream_log_flush_failures_total", ()] == 1
    assert flusher.failed == 1


def test_the_size_is_told_without_opening_files(monkeypatch: pytest.MonkeyPatch) -> None:
    files = SimFiles()
    opened: list[str] = []

    async def main() -> None:
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            await log.create_topic("t", config={"segment.bytes": 1024})
            async with log.producer() as producer:
                for _ in range(5):
                    await producer.send("t", b"." * 800)
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            monkeypatch.setattr(
                files,
                "on_operation",
                lambda operation: (
                    opened.append(operation.path)
                    if operation.kind == "exists" and operation.path.endswith(".log")
                    else None
                ),
            )
            found = metrics(log)
            assert found["millstream_log_segments", ("t", "0")] == 5
            assert found["millstream_log_size_bytes", ("t", "0")] > 4000
            assert opened == []

    asyncio.run(main())


def test_a_disk_that_does_not_tell_sizes() -> None:
    def fail(operation: Operation) -> OSError | None:
        due = operation.kind == "size" and "/t-0/" in operation.path
        return disk_error("EIO", operation.path) if due else None

    async def main() -> None:
        files = SimFiles()
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            await log.create_topic("t", config={"segment.bytes": 1024})
            async with log.producer() as producer:
                for _ in range(5):
                    await producer.send("t", b"." * 800)
        async with open_log_on(files, "log", config={"flush.threads": 0}) as log:
            files.on_operation = fail
            async with serve_metrics([log.metrics], "127.0.0.1:0") as address:
                reader, writer = await asyncio.open_connection(*address.rsplit(":", 1))
                writer.write(b"GET /metrics HTTP/1.1\r\n\r\n")
                answer = await reader.read()
                writer.close()
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Partition t-0" in answer
            files.on_operation = None

    asyncio.run(main())


def test_nothing_is_counted_per_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at the counters for a batch of any size."""
    appends: list[int] = []
    original = Partition.append

    def append(self: Partition, batch: bytes, now_ms: int):
        appends.append(len(batch))
        return original(self, batch, now_ms)

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        looks = []
        traffic = log._broker.partitions.traffic
        monkeypatch.setattr(
            log._broker.partitions, "traffic", lambda each: looks.append(each) or traffic(each)
        )
        async with log.producer() as producer:
            await producer.send_batch("t", [b"x"] * 10_000)
            await producer.flush()
        assert len(looks) == len(appends) < 10

    monkeypatch.setattr(Partition, "append", append)
    with_log(body)


def test_groups_by_state_and_members() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with log.consumer("t", group="g") as consumer:
            await consumer.poll(100)
            found = metrics(log)
            assert found["millstream_groups", ("Stable",)] == 1
            assert found["millstream_group_members", ("g",)] == 1
            assert found["millstream_group_rebalances_total", ()] == 1
            assert found["millstream_consumers", ()] == 1
        assert metrics(log)["millstream_groups", ("Empty",)] == 1

    with_log(body)


def test_what_is_beyond_the_limit_is_added_up() -> None:
    family = Family("m", "gauge", "Meaning.", ("topic", "partition"))
    samples = [((f"t{number}", "0"), number) for number in range(10)]
    found = parsed("\n".join(metric_text(family, samples, series_max=4)) + "\n")
    assert found == {
        **{("m", (f"t{number}", "0")): number for number in range(4)},
        ("m", ("other", "other")): sum(range(4, 10)),
    }
    with_other = [(("other", "other"), 7.0), *samples]
    found = parsed("\n".join(metric_text(family, with_other, series_max=4)) + "\n")
    assert found["m", ("other", "other")] == 7 + sum(range(3, 10))
    assert len(found) == 4


@pytest.mark.parametrize("value", ['quo"te', "back\\slash", "new\nline", "\\n", "é 🙂", ""])
def test_labels_are_escaped(value: str) -> None:
    family = Family("m", "gauge", "With \\ and\nmore.", ("group",))
    text = "\n".join(metric_text(family, [((value,), 1)])) + "\n"
    assert text.count("\n") == 3
    assert parsed(text) == {("m", (value,)): 1}


def test_a_histogram() -> None:
    histogram = Histogram((0.5, 1.0))
    for seconds in (0.1, 0.5, 0.6, 3.0):
        histogram.note(seconds)
    assert histogram.counts == [2, 1, 1]
    family = Family("h_seconds", "histogram", "Meaning.")
    text = "\n".join(histogram_text(family, histogram.bounds, histogram.counts, histogram.seconds))
    assert parsed(text + "\n") == {
        ("h_seconds_bucket", ("0.5",)): 2,
        ("h_seconds_bucket", ("1.0",)): 3,
        ("h_seconds_bucket", ("+Inf",)): 4,
        ("h_seconds_sum", ()): pytest.approx(4.2),
        ("h_seconds_count", ()): 4,
    }
    assert list(FLUSH_BUCKETS_S) == sorted(set(FLUSH_BUCKETS_S))


def test_stats_of_every_part_are_frozen() -> None:
    async def body(log: EmbeddedLog) -> None:
        broker = log._broker
        async with log.producer() as producer, log.consumer() as consumer:
            for each in (
                log,
                producer,
                consumer,
                broker.partitions,
                broker.partitions.flusher,
                broker.cleaner,
                broker.transactions,
                broker.groups,
                broker.offsets,
            ):
                stats = each.stats()
                assert isinstance(stats, tuple)
                with pytest.raises(AttributeError):
                    setattr(stats, stats._fields[0], 1)
            assert (log.stats().producers, log.stats().consumers) == (1, 1)

    with_log(body)


def test_what_the_cleaner_did() -> None:
    clock = FakeClock()

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("old", config={"segment.bytes": 1024, "retention.ms": 1000})
        compact = {"cleanup.policy": "compact", "segment.bytes": 1024}
        await log.create_topic("keys", config={**compact, "min.cleanable.dirty.ratio": 0})
        async with log.producer(config={"linger.ms": 0}) as producer:
            for _ in range(5):
                await producer.send("old", b"." * 800)
                await producer.send("keys", b"." * 800, key=b"same")
        clock.advance(10_000)
        await log._broker.cleaner.run_once()
        found = metrics(log)
        assert found["millstream_retention_deleted_segments_total", ()] >= 4
        assert found["millstream_log_segments", ("old", "0")] == 1
        assert found["millstream_cleaner_runs_total", ()] == 1
        assert found["millstream_cleaner_removed_records_total", ()] == 3
        read = found["millstream_cleaner_read_bytes_total", ()]
        assert 0 < found["millstream_cleaner_written_bytes_total", ()] < read
        assert found["millstream_cleaner_failures_total", ()] == 0

    with_log(body, clock=clock)
