"""Sources: records and positions in one transaction, bad records beside them, trying again."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest

from millstream.connect import (
    ConnectorFencedError,
    FatalConnectError,
    RetriableConnectError,
    SourceConfig,
    SourceConnector,
    SourceContext,
    SourceRecord,
    SourceTask,
    TaskConfig,
    setting,
    settings,
    source,
)
from millstream.log import Log, open_log
from shared.topics import errors_in, records_of, values_of

Numbers = AsyncIterator[tuple[Any, int]]


def counting(stop: int, **more: Any) -> Any:
    @source(topic="numbers", name="numbers", key="n", **more)
    async def numbers(position: int | None) -> Numbers:
        for n in range(position or 0, stop):
            yield {"n": n}, n + 1

    return numbers


async def run(connector: Any, log: Log) -> None:
    await connector.run(log, until_end=True)


def test_a_function_is_a_source_and_stays_a_function() -> None:
    @source(topic="letters", key=lambda letter: letter["letter"].upper(), partitions=3)
    async def all_letters(position: int | None) -> Numbers:
        """The alphabet."""
        for i, letter in enumerate("abc"):
            yield {"letter": letter}, i

    async def check() -> None:
        assert await anext(all_letters(None)) == ({"letter": "a"}, 0)
        async with open_log("memory:") as log:
            done: list[tuple[int, int | None]] = []
            await all_letters.run(log, until_end=True, progress=lambda *counts: done.append(counts))
            records = await records_of(log, "letters")
            assert sorted(record.key or b"" for record in records) == [b"A", b"B", b"C"]
            topic = await log.describe_topic("letters")
            assert topic.partitions == 3
            assert topic.config["retention.ms"] == "-1"  # whatever the event time of its records
            assert done[-1] == (3, None)

    assert all_letters.name == "all-letters"
    assert all_letters.__doc__ == "The alphabet."
    asyncio.run(check())


def test_it_goes_on_behind_the_last_committed_record() -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            for stop in (3, 3, 5):
                await run(counting(stop), log)
                assert await values_of(log, "numbers") == [{"n": n} for n in range(stop)]
            newest = (await records_of(log, "connect-offsets"))[-1]
            assert newest.key == b'["numbers",{"source":"numbers"}]'
            assert newest.value == b'{"position":5}'

    asyncio.run(check())


def test_records_and_positions_are_one_transaction() -> None:
    """The function dies behind record 2: what it yielded before is there, once."""

    async def check() -> None:
        fail = True

        @source(topic="numbers", key="n")
        async def numbers(position: int | None) -> Numbers:
            for n in range(position or 0, 6):
                if n == 3 and fail:
                    raise ZeroDivisionError("a bug")
                yield {"n": n}, n + 1

        async with open_log("memory:") as log:
            with pytest.raises(FatalConnectError, match="ZeroDivisionError: a bug") as raised:
                await run(numbers, log)
            assert isinstance(raised.value.__cause__, ZeroDivisionError)
            assert await values_of(log, "numbers") == [{"n": n} for n in range(3)]
            fail = False
            await run(numbers, log)
            assert await values_of(log, "numbers") == [{"n": n} for n in range(6)]

    asyncio.run(check())


def test_a_retriable_failure_is_tried_again_with_a_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries: list[int | None] = []

    @source(topic="numbers", errors_retry_delay_max_ms=1)
    async def numbers(position: int | None) -> Numbers:
        tries.append(position)
        for n in range(position or 0, 4):
            yield {"n": n}, n + 1
            if n < 3 and len(tries) < 4:
                raise RetriableConnectError("the source is away", retry_after_ms=2)

    async def check() -> None:
        async with open_log("memory:") as log:
            with caplog.at_level(logging.WARNING, "millstream.connect"):
                await run(numbers, log)
            assert await values_of(log, "numbers") == [{"n": n} for n in range(4)]

    asyncio.run(check())
    assert tries == [None, 1, 2, 3]
    assert "connector numbers task 0: the source is away; trying again" in caplog.text


def test_retries_end_when_their_time_is_over() -> None:
    tries = 0

    @source(topic="t", name="away", errors_retry_delay_max_ms=1, errors_retry_timeout_ms=20)
    async def away(position: int | None) -> Numbers:
        nonlocal tries
        tries += 1
        raise RetriableConnectError("nobody answers")
        yield

    async def check() -> None:
        async with open_log("memory:") as log:
            with pytest.raises(FatalConnectError, match=r"gave up after \d+ retries.*nobody ans"):
                await run(away, log)

    asyncio.run(check())
    assert tries > 2


BAD_VALUES = [{"n": 0}, {"n": 2**70}, {"n": 2}, {"n": "x" * 2000}, {"n": 4}]


def troubled(**more: Any) -> Any:
    @source(topic="small", name="troubled", topic_config={"max.message.bytes": 1000}, **more)
    async def values(position: int | None) -> Numbers:
        for n in range(position or 0, len(BAD_VALUES)):
            yield BAD_VALUES[n], n + 1

    return values


def test_bad_records_go_to_the_dead_letter_topic_and_the_rest_goes_on() -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            for _ in range(2):
                await run(troubled(), log)
                assert await values_of(log, "small") == [{"n": 0}, {"n": 2}, {"n": 4}]
                letters = await records_of(log, "troubled-dead-letter")
                assert len(letters) == 2
            wide, large = (errors_in(letter) for letter in letters)
            assert wide["stage"] == "VALUE_CONVERTER"
            assert "64-bit" in wide["exception.message"]
            assert orjson.loads(wide["source.offset"]) == {"position": 2}
            assert large["stage"] == "KAFKA_PRODUCE"
            assert large["exception.class.name"].endswith("RecordTooLargeError")
            assert "max.message.bytes is 1000" in large["exception.message"]
            assert large["connector.name"] == "troubled"
            assert letters[1].value == orjson.dumps(BAD_VALUES[3])

    asyncio.run(check())


def test_without_tolerance_it_stops_in_front_of_the_bad_record() -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            for _ in range(2):  # a restart stops at the same place and writes nothing twice
                with pytest.raises(FatalConnectError, match=r"'troubled' stopped at .*64-bit"):
                    await run(troubled(errors_tolerance="none"), log)
                assert await values_of(log, "small") == [{"n": 0}]
            assert await records_of(log, "troubled-dead-letter") == []
            await run(troubled(), log)
            assert await values_of(log, "small") == [{"n": 0}, {"n": 2}, {"n": 4}]

    asyncio.run(check())


def test_a_second_worker_of_the_same_name_fences_the_first() -> None:
    async def check() -> None:
        written = asyncio.Event()
        go_on = asyncio.Event()

        @source(topic="numbers", name="twice")
        async def first(position: int | None) -> Numbers:
            yield {"n": 0}, 1
            await asyncio.sleep(0)
            written.set()
            await go_on.wait()
            yield {"n": "zombie"}, 2

        @source(topic="numbers", name="twice")
        async def second(position: int | None) -> Numbers:
            yield {"n": position}, 2

        async with open_log("memory:") as log:
            job = asyncio.create_task(first.run(log, until_end=False))
            await written.wait()
            while not await values_of(log, "numbers"):
                await asyncio.sleep(0)
            await run(second, log)
            go_on.set()
            with pytest.raises(ConnectorFencedError, match="taken over by another worker"):
                await job
            assert await values_of(log, "numbers") == [{"n": 0}, {"n": 1}]

    asyncio.run(check())


def test_a_cancelled_source_leaves_records_and_position_consistent() -> None:
    @source(topic="numbers")
    async def endless(position: int | None) -> Numbers:
        for n in itertools.count(position or 0):
            yield n, n + 1

    async def check() -> None:
        async with open_log("memory:") as log:
            for least in (1, 2000, 4000):
                reached = asyncio.Event()
                job = asyncio.create_task(
                    endless.run(
                        log,
                        until_end=False,
                        progress=lambda done, _total, least=least, reached=reached: (
                            reached.set() if done >= least else None
                        ),
                    )
                )
                await reached.wait()
                job.cancel()
                await asyncio.gather(job, return_exceptions=True)
                numbers = await values_of(log, "numbers")
                assert numbers == list(range(len(numbers)))

    asyncio.run(check())


def test_what_a_function_must_be_is_said_at_once() -> None:
    with pytest.raises(TypeError, match="that yields"):

        @source(topic="t")
        async def no_generator(position: int | None) -> None: ...

    @source(topic="t", name="shapeless")
    async def shapeless(position: int | None) -> AsyncIterator[Any]:
        yield {"n": 1}

    @source(topic="t", name="unjson")
    async def unjson(position: int | None) -> AsyncIterator[Any]:
        yield {"n": 1}, {1, 2}

    async def check() -> None:
        async with open_log("memory:") as log:
            with pytest.raises(FatalConnectError, match=r"must yield \(record, position\)"):
                await run(shapeless, log)
            with pytest.raises(FatalConnectError, match="must be JSON values"):
                await run(unjson, log)
            assert await records_of(log, "t") == []

    asyncio.run(check())


@settings
class PartsConfig(SourceConfig):
    parts: int = setting("How many parts there are.", default=4)


class PartsTask(SourceTask):
    """Each part has three records, some with a topic, timestamp and headers of their own."""

    def __init__(self, parts: Sequence[int]) -> None:
        self._parts = list(parts)

    async def start(self, context: SourceContext) -> None:
        self._context = context

    async def poll(self) -> list[SourceRecord] | None:
        if not self._parts:
            return None
        part = self._parts.pop(0)
        place = {"part": part}
        begin = (self._context.offset(place) or {"done": 0})["done"]
        return [
            SourceRecord(
                f"{part}.{n}",
                timestamp=1000 + n if n else None,
                headers=(("part", str(part).encode()),) if n == 2 else (),
                topic="special" if n == 1 else None,
                partition=part % 2,
                source_partition=place,
                source_offset={"done": n + 1},
            )
            for n in range(begin, 3)
        ]

    async def stop(self) -> None: ...


class Parts(SourceConnector[PartsConfig]):
    config_class = PartsConfig

    def task_configs(self, tasks_max: int) -> list[TaskConfig]:
        return [{"parts": list(range(self.config.parts))[i::tasks_max]} for i in range(tasks_max)]

    def create_task(self, task_config: TaskConfig) -> PartsTask:
        return PartsTask(task_config["parts"])


def test_records_may_choose_topic_partition_timestamp_and_headers() -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            await log.create_topic("special", partitions=2)
            for tasks_max in (2, 3):
                parts = Parts("parts", topic="plain", partitions=2, tasks_max=tasks_max)
                await run(parts, log)
                special = await values_of(log, "special")
                assert sorted(special) == ["0.1", "1.1", "2.1", "3.1"]
                plain = await records_of(log, "plain")
                assert len(plain) == 8
            for record in plain:
                value = orjson.loads(record.value or b"")
                assert record.partition == int(value[0]) % 2
                if value.endswith("2"):
                    assert record.timestamp == 1002
                    assert record.headers == (("part", value[0].encode()),)
                else:
                    assert record.timestamp > 1_000_000
                    assert record.headers == ()

    asyncio.run(check())
