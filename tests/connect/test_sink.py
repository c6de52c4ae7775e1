"""Sinks: delivery at least once for functions, exactly once with own offsets; dead letters once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest

from millstream.connect import (
    FatalConnectError,
    PartitionState,
    RetriableConnectError,
    SinkBatch,
    SinkConfig,
    SinkConnector,
    SinkContext,
    SinkTask,
    TaskConfig,
    sink,
)
from millstream.log import Log, TopicPartition, open_log
from shared.told import told_by
from shared.topics import errors_in, fill, records_of


async def run(connector: Any, log: Log) -> None:
    await connector.run(log, until_end=True)


def json_values(count: int, start: int = 0) -> list[bytes | None]:
    return [orjson.dumps({"n": n}) for n in range(start, start + count)]


def test_a_function_is_a_sink_and_stays_a_function() -> None:
    seen: list[int] = []

    @sink("numbers")
    async def collect_all(records: SinkBatch) -> None:
        """Collects."""
        seen.extend(record.value["n"] for record in records)

    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "numbers", json_values(5))
            done: list[tuple[int, int | None]] = []
            await collect_all.run(log, until_end=True, progress=lambda *counts: done.append(counts))
            assert seen == list(range(5))
            assert done[-1] == (5, 5)
            await fill(log, "numbers", json_values(2, start=5))
            await run(collect_all, log)
            assert seen == list(range(7))
            committed = await log.group_offsets("connect-collect-all")
            assert committed[TopicPartition("numbers", 0)].offset == 7

    assert collect_all.name == "collect-all"
    asyncio.run(check())


def test_records_have_key_timestamp_and_headers() -> None:
    async def check() -> None:
        seen = []

        @sink("t", name="see", value="string", key_converter="json")
        async def see(records: SinkBatch) -> None:
            seen.extend(records)

        async with open_log("memory:") as log:
            await log.create_topic("t")
            async with log.producer() as producer:
                headers = (("h", b"1"), ("h", None))
                await producer.send("t", b"v", key=b'["k"]', timestamp=7, headers=headers)
                await producer.send("t", None, timestamp=8)
            await run(see, log)
        first, second = seen
        assert (first.key, first.value, first.timestamp, first.headers) == (["k"], "v", 7, headers)
        assert (second.key, second.value, second.offset, second.headers) == (None, None, 1, ())

    asyncio.run(check())


def test_until_end_stops_at_what_was_there_and_reads_committed_only() -> None:
    async def check() -> None:
        seen: list[Any] = []

        async with open_log("memory:") as log, log.producer(transactional_id="x") as producer:
            await fill(log, "numbers", json_values(3), partitions=1)
            await producer.begin_transaction()
            await producer.send("numbers", b'{"n": "aborted"}')
            await producer.abort_transaction()

            @sink("numbers")
            async def growing(records: SinkBatch) -> None:
                seen.extend(record.value["n"] for record in records)
                await fill(log, "numbers", json_values(1, start=100))

            await run(growing, log)
            assert seen == [0, 1, 2]

    asyncio.run(check())


def test_until_end_waits_for_a_transaction_that_is_open() -> None:
    """On Apache Kafka one is, for a moment after its commit has returned."""

    async def check() -> None:
        seen: list[Any] = []

        @sink("numbers")
        async def collect(records: SinkBatch) -> None:
            seen.extend(record.value["n"] for record in records)

        async with open_log("memory:") as log, log.producer(transactional_id="x") as producer:
            await fill(log, "numbers", json_values(3), partitions=1)
            await producer.begin_transaction()
            await producer.send("numbers", b'{"n": 3}')
            await producer.flush()
            running = asyncio.create_task(run(collect, log))
            done, _ = await asyncio.wait([running], timeout=0.5)
            assert not done, "it did not wait for the transaction"
            await producer.commit_transaction()
            await running
            assert seen == [0, 1, 2, 3]

    asyncio.run(check())


def test_a_crash_before_the_commit_delivers_again() -> None:
    seen: list[int] = []
    crash = True

    @sink("numbers", name="crashing", offset_flush_interval_ms=1)
    async def crashing(records: SinkBatch) -> None:
        seen.extend(record.value["n"] for record in records)
        if crash:
            raise ZeroDivisionError("a bug")

    async def check() -> None:
        nonlocal crash
        async with open_log("memory:") as log:
            await fill(log, "numbers", json_values(3))
            with pytest.raises(FatalConnectError, match="ZeroDivisionError: a bug"):
                await run(crashing, log)
            crash = False
            await run(crashing, log)
            await run(crashing, log)
            assert seen == [0, 1, 2, 0, 1, 2]

    asyncio.run(check())


def test_a_retriable_failure_redelivers_the_batch() -> None:
    tries = 0
    seen: list[int] = []

    @sink("numbers", errors_retry_delay_max_ms=1)
    async def flaky(records: SinkBatch) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise RetriableConnectError("busy")
        seen.extend(record.value["n"] for record in records)

    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "numbers", json_values(3))
            await run(flaky, log)

    asyncio.run(check())
    assert (tries, seen) == (4, [0, 1, 2])


VALUES: list[bytes | None] = [
    b'{"n": 0}',
    b"{",
    b'{"n": 2}',
    b'"\xff"',
    b'{"n": "odd"}',
    b'{"n": 5}',
]


def careful(seen: list[int], **more: Any) -> Any:
    @sink("numbers", name="careful", **more)
    async def keep(records: SinkBatch) -> None:
        for i, record in enumerate(records):
            if isinstance(record.value["n"], int):
                seen.append(record.value["n"])
            else:
                records.reject(i, "n must be a number")

    return keep


def test_what_cannot_be_used_goes_to_the_dead_letter_topic_with_its_origin() -> None:
    async def check() -> None:
        seen: list[int] = []
        async with open_log("memory:") as log:
            keys: list[bytes | None] = [b"a", b"b", b"c", b"d", b"e", b"\xff"]
            await fill(log, "numbers", VALUES, keys=keys)
            await run(careful(seen), log)
            assert seen == [0, 2]
            letters = await records_of(log, "careful-dead-letter")
            found = {int(errors_in(letter)["offset"]): letter for letter in letters}
            assert sorted(found) == [1, 3, 4, 5]
            assert found[1].key == b"b"
            assert found[1].value == b"{"
            first = errors_in(found[1])
            assert first["topic"] == "numbers"
            assert first["partition"] == "0"
            assert first["connector.name"] == "careful"
            assert first["task.id"] == "0"
            assert first["stage"] == "VALUE_CONVERTER"
            assert first["exception.class.name"] == "millstream.connect.errors.ConversionError"
            assert "not valid JSON" in first["exception.message"]
            assert "ConversionError" in first["exception.stacktrace"]
            assert "not UTF-8: byte 0xff at position 1" in errors_in(found[3])["exception.message"]
            assert errors_in(found[4])["stage"] == "TASK_PUT"
            assert errors_in(found[4])["exception.message"] == "n must be a number"
            assert errors_in(found[5])["stage"] == "KEY_CONVERTER"
            assert found[5].key == b"\xff"

    asyncio.run(check())


def test_without_tolerance_it_stops_and_names_the_record() -> None:
    async def check() -> None:
        seen: list[int] = []
        async with open_log("memory:") as log:
            await fill(log, "numbers", VALUES)
            strict = careful(seen, errors_tolerance="none")
            with pytest.raises(FatalConnectError, match="numbers partition 0 offset 1: not valid"):
                await run(strict, log)
            assert await records_of(log, "careful-dead-letter") == []
            await run(careful(seen), log)
            assert seen == [0, 2, 5]

    asyncio.run(check())


class Ledger(SinkConnector[SinkConfig]):
    """An exactly-once sink: rows and next offsets are one dict, changed at once or not at all."""

    config_class = SinkConfig

    def __init__(self, name: str, **more: Any) -> None:
        super().__init__(name, **more)
        self.rows: list[Any] = []
        self.next_offsets: dict[TopicPartition, int] = {}
        self.tasks: dict[int, set[TopicPartition]] = {}
        self.crash_before_commit = 0

    def create_task(self, task_config: TaskConfig) -> LedgerTask:
        return LedgerTask(self)


class LedgerTask(SinkTask):
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def start(self, context: SinkContext) -> None:
        self._context = context

    async def open(
        self, partitions: Mapping[TopicPartition, PartitionState]
    ) -> Mapping[TopicPartition, int]:
        self._ledger.tasks[self._context.task_id] = set(partitions)
        return {
            partition: self._ledger.next_offsets.get(partition, state.start_offset)
            for partition, state in partitions.items()
        }

    async def put(self, batches: Sequence[SinkBatch]) -> None:
        rows, rejections = [], []
        for batch in batches:
            for i, value in enumerate(batch.values):
                if isinstance(value["n"], int):
                    rows.append((batch.topic_partition, value["n"]))
                else:
                    rejections.append(batch.rejection(i, ValueError("odd")))
        await self._context.dead_letter(rejections)
        if self._ledger.crash_before_commit:
            self._ledger.crash_before_commit -= 1
            raise RuntimeError("killed")
        self._ledger.rows += rows
        for batch in batches:
            self._ledger.next_offsets[batch.topic_partition] = batch.next_offset

    async def stop(self) -> None: ...


def test_dead_letters_are_written_once_though_the_sink_dies_behind_them() -> None:
    async def check() -> None:
        ledger = Ledger("ledger", topic="numbers", errors_retry_delay_max_ms=1)
        ledger.crash_before_commit = 3
        async with open_log("memory:") as log:
            await fill(log, "numbers", VALUES, partitions=3)
            for _ in range(3):
                with pytest.raises(FatalConnectError, match="killed"):
                    await run(ledger, log)
                assert len(await records_of(log, "ledger-dead-letter")) == 3
            for _ in range(2):
                await run(ledger, log)
                assert sorted(n for _, n in ledger.rows) == [0, 2, 5]
                assert len(await records_of(log, "ledger-dead-letter")) == 3

    asyncio.run(check())


def test_letters_of_other_connectors_and_older_offsets_do_not_count() -> None:
    """Two sinks share a dead-letter topic; each writes its own letters for the same records."""

    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "numbers", VALUES)
            for name in ("one", "two"):
                ledger = Ledger(name, topic="numbers", dead_letter_topic="shared")
                await run(ledger, log)
            letters = [errors_in(letter) for letter in await records_of(log, "shared")]
            origins = [(letter["connector.name"], letter["offset"]) for letter in letters]
            assert sorted(origins) == [(n, o) for n in ("one", "two") for o in ("1", "3", "4")]

    asyncio.run(check())


def test_partitions_are_dealt_out_to_tasks() -> None:
    async def check() -> None:
        ledger = Ledger("ledger", topics="numbers,more", tasks_max=3)
        async with open_log("memory:") as log:
            await fill(log, "numbers", json_values(50), partitions=4)
            await fill(log, "more", json_values(50, start=50), partitions=1)
            await run(ledger, log)
        assert sorted(n for _, n in ledger.rows) == list(range(100))
        assert sorted(len(owned) for owned in ledger.tasks.values()) == [1, 2, 2]
        assert len(set.union(*ledger.tasks.values())) == 5

    asyncio.run(check())


def test_more_tasks_than_partitions_is_no_fault() -> None:
    async def check() -> None:
        ledger = Ledger("ledger", topic="numbers", tasks_max=3)
        async with open_log("memory:") as log:
            await fill(log, "numbers", json_values(5))
            await run(ledger, log)
        assert len(ledger.rows) == 5

    asyncio.run(check())


def test_a_run_to_the_end_needs_its_topic() -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            with pytest.raises(FatalConnectError, match=r"later.*Create the topic"):
                await run(careful([], topics=["later"]), log)

    asyncio.run(check())


def test_a_run_for_ever_waits_for_its_topic_and_commits_when_cancelled() -> None:
    async def check() -> None:
        delivered = asyncio.Event()

        @sink("later", offset_flush_interval_ms=3_600_000)
        async def waiting(records: SinkBatch) -> None:
            delivered.set()

        async with open_log("memory:") as log:
            with told_by("millstream.connect") as told:
                job = asyncio.create_task(waiting.run(log, until_end=False))
                await told.event.wait()
            await fill(log, "later", json_values(2))
            await delivered.wait()
            job.cancel()
            await asyncio.gather(job, return_exceptions=True)
            offsets = await log.group_offsets("connect-waiting")
        assert "connector waiting waits" in told.messages[0]
        assert offsets[TopicPartition("later", 0)].offset == 2

    asyncio.run(asyncio.wait_for(check(), 60))
