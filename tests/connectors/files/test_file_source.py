"""The file source on a log: exactly once over stops, nothing lost by damage, tails, patterns."""

from __future__ import annotations

import asyncio
import csv
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from millstream.connect import ConnectConfigError, FatalConnectError
from millstream.connectors.files import FileSource
from millstream.log import Log, open_log
from shared.flights import JANUARY
from shared.topics import errors_in, records_of, values_of

INTEGERS = [
    *("year", "month", "day", "hour", "minute", "flight", "air_time", "distance"),
    *("dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time", "arr_delay"),
]


def flights_source(path: Path, **more: Any) -> FileSource:
    given = {
        "path": path,
        "topic": "flights",
        "format": "csv",
        "columns": dict.fromkeys(INTEGERS, int),
        "null": "NA",
        "key": "carrier",
        "timestamp": "time_hour",
        "partitions": 4,
        **more,
    }
    return FileSource("flights-file", **given)


def expected_rows(path: Path) -> list[dict[str, Any]]:
    """The file as the csv module alone reads it."""
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(newline="") as lines:
        return [
            {
                name: None if text == "NA" else int(text) if name in INTEGERS else text
                for name, text in row.items()
            }
            for row in csv.DictReader(lines)
        ]


def canonical(values: list[Any]) -> list[bytes]:
    return sorted(orjson.dumps(value, option=orjson.OPT_SORT_KEYS) for value in values)


async def run(connector: FileSource, log: Log) -> None:
    await connector.run(log, until_end=True)


async def run_until(connector: FileSource, log: Log, reached: Callable[[int], bool]) -> None:
    """Run for ever, and cancel as soon as `reached` says so of the records of this run."""
    event = asyncio.Event()

    def progress(done: int, _total: int | None) -> None:
        if reached(done):
            event.set()

    job = asyncio.create_task(connector.run(log, until_end=False, progress=progress))
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait([job, waiting], return_when=asyncio.FIRST_COMPLETED)
    job.cancel()
    waiting.cancel()
    results = await asyncio.gather(job, waiting, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError | bool) for result in results), results


def test_january_is_read_once_with_keys_and_event_times() -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            for _ in range(2):
                await run(flights_source(JANUARY), log)
            records = await records_of(log, "flights")
            rows = [orjson.loads(record.value or b"") for record in records]
            assert canonical(rows) == canonical(expected_rows(JANUARY))
            assert len({record.partition for record in records}) == 4
            for record, row in zip(records, rows, strict=True):
                assert record.key == row["carrier"].encode()
            first = next(record for record in records if b'"flight":1545' in (record.value or b""))
            assert first.timestamp == 1357034400000  # 2013-01-01T10:00:00Z
            offset = (await records_of(log, "connect-offsets"))[-1]
            assert orjson.loads(offset.key or b"") == ["flights-file", {"file": str(JANUARY)}]
            assert orjson.loads(offset.value or b"") == {
                "record": 27_004,
                "line": 27_005,
                "position": len(gzip.decompress(JANUARY.read_bytes())),
            }

    asyncio.run(check())


@pytest.mark.parametrize("packed", [True, False])
def test_stopped_anywhere_it_goes_on_at_the_exact_record(tmp_path: Path, packed: bool) -> None:
    path = JANUARY
    if not packed:
        path = tmp_path / "january.csv"
        path.write_bytes(gzip.decompress(JANUARY.read_bytes()))

    async def check() -> None:
        async with open_log("memory:") as log:
            for batch_size in (7, 100, 999, 1500):
                source = flights_source(path, batch_size=batch_size)
                await run_until(source, log, lambda done, size=batch_size: done >= 2 * size)
            await run(flights_source(path), log)
            rows = await values_of(log, "flights")
            assert canonical(rows) == canonical(expected_rows(path))

    asyncio.run(check())


def write_lines(path: Path, numbers: range, end: str = "\n") -> None:
    with path.open("a") as file:
        file.write("".join(f'{{"n": {n}}}\n' for n in numbers)[:-1] + end)


def numbers_source(path: Path | str, **more: Any) -> FileSource:
    return FileSource("numbers", path=path, topic="numbers", poll_interval_ms=1, **more)


async def numbers_in(log: Log) -> list[int]:
    return [value["n"] for value in await values_of(log, "numbers")]


def test_several_files_are_read_in_order_of_their_names(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.jsonl", range(10, 20))
    write_lines(tmp_path / "a.jsonl", range(10))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(b'{"n": 20}'))
    (tmp_path / "d.txt").write_text("not one of them")

    async def check() -> None:
        async with open_log("memory:") as log:
            source = numbers_source(tmp_path / "*.jsonl*")
            await run(source, log)
            assert await numbers_in(log) == list(range(21))
            write_lines(tmp_path / "a.jsonl", range(21, 23))
            write_lines(tmp_path / "e.jsonl", range(23, 25))
            await run(source, log)
            assert await numbers_in(log) == list(range(25))

    asyncio.run(check())


def test_files_are_dealt_out_to_tasks(tmp_path: Path) -> None:
    for number in range(8):
        write_lines(tmp_path / f"{number}.jsonl", range(number * 10, number * 10 + 10))

    async def check() -> None:
        async with open_log("memory:") as log:
            for tasks_max in (3, 2):
                await run(numbers_source(tmp_path / "*.jsonl", tasks_max=tasks_max), log)
                assert sorted(await numbers_in(log)) == list(range(80))

    asyncio.run(check())


def test_a_tail_follows_files_and_finds_new_ones(tmp_path: Path) -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            steps = {
                3: lambda: write_lines(tmp_path / "a.jsonl", range(3, 6), end=""),
                5: lambda: write_lines(tmp_path / "a.jsonl", range(0)),  # only its line end
                6: lambda: write_lines(tmp_path / "b.jsonl", range(6, 8)),
            }
            write_lines(tmp_path / "a.jsonl", range(3))

            def reached(done: int) -> bool:
                if done in steps:
                    steps.pop(done)()
                return done == 8

            await run_until(numbers_source(tmp_path / "*.jsonl"), log, reached)
            assert await numbers_in(log) == list(range(8))

    asyncio.run(check())


def test_a_run_to_the_end_takes_a_last_line_without_its_end(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_lines(path, range(3), end="")

    async def check() -> None:
        async with open_log("memory:") as log:
            await run(numbers_source(path), log)
            assert await numbers_in(log) == [0, 1, 2]
            with path.open("a") as file:
                file.write('\n{"n": 3}')
            await run(numbers_source(path), log)
            assert await numbers_in(log) == [0, 1, 2, 3]

    asyncio.run(check())


def test_a_truncated_gzip_delivers_what_there_is_and_goes_on_when_repaired(tmp_path: Path) -> None:
    whole = JANUARY.read_bytes()
    path = tmp_path / "january.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])

    async def check() -> None:
        async with open_log("memory:") as log:
            for _ in range(2):
                with pytest.raises(FatalConnectError, match=r"january.csv.gz: the gzip file is tr"):
                    await run(flights_source(path), log)
                rows = await values_of(log, "flights")
                assert 10_000 < len(rows) < 27_004
            assert canonical(rows) == canonical(expected_rows(JANUARY)[: len(rows)])
            path.write_bytes(whole)
            await run(flights_source(path), log)
            rows = await values_of(log, "flights")
            assert canonical(rows) == canonical(expected_rows(JANUARY))

    asyncio.run(check())


BAD = b'carrier,n\nAA,1\nBB\nCC,3,extra\nDD,four\nE\xff,5\nF"F,6\nGG,' + b"7" * 2000 + b"\nHH,8\n"


def bad_source(path: Path, **more: Any) -> FileSource:
    return FileSource(
        "bad",
        path=path,
        topic="bad",
        columns={"n": "int"},
        key="carrier",
        topic_config={"max.message.bytes": 1500},
        **more,
    )


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_bad_rows_are_dead_letters_with_line_reason_and_bytes(
    tmp_path: Path, batch_size: int
) -> None:
    path = tmp_path / "bad.csv"
    path.write_bytes(BAD)

    async def check() -> None:
        async with open_log("memory:") as log:
            for _ in range(2):
                await run(bad_source(path, batch_size=batch_size), log)
                records = await records_of(log, "bad")
                assert [record.key for record in records] == [b"AA", b'F"F', b"HH"]
                letters = await records_of(log, "bad-dead-letter")
                assert len(letters) == 5
            reasons = {}
            for letter in letters:
                errors = errors_in(letter)
                assert orjson.loads(errors["source.partition"]) == {"file": str(path)}
                assert errors["stage"] == "TASK_POLL"
                place = orjson.loads(errors["source.offset"])
                assert BAD[place["position"] :].startswith((letter.value or b"")[:100])
                reasons[place["line"]] = (errors["exception.message"], letter.value)
            assert reasons[3] == ("the row has 1 fields instead of 2 (carrier, n)", b"BB")
            assert reasons[4][0] == "the row has 3 fields instead of 2 (carrier, n)"
            assert reasons[5] == ("column 'n' must be an integer, found 'four'", b"DD,four")
            assert reasons[6] == ("not UTF-8: byte 0xff at byte 1 of the line", b"E\xff,5")
            assert "2003 bytes long, and max.message.bytes of the topic is 1500" in reasons[8][0]

    asyncio.run(check())


def test_without_tolerance_it_stops_in_front_of_the_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"

    async def check() -> None:
        async with open_log("memory:") as log:
            lines = BAD.split(b"\n")
            path.write_bytes(BAD)
            for _ in range(2):
                with pytest.raises(FatalConnectError, match=r"bad.csv, line 3, .*1 fields instead"):
                    await run(bad_source(path, errors_tolerance="none"), log)
                assert len(await records_of(log, "bad")) == 1
            lines[2] = b"BB,2"
            path.write_bytes(b"\n".join(lines))
            with pytest.raises(FatalConnectError, match=r"bad.csv, line 4, .*3 fields instead"):
                await run(bad_source(path, errors_tolerance="none"), log)
            keys = [record.key for record in await records_of(log, "bad")]
            assert keys == [b"AA", b"BB"]
            await run(bad_source(path), log)
            keys = [record.key for record in await records_of(log, "bad")]
            assert keys == [b"AA", b"BB", b'F"F', b"HH"]

    asyncio.run(check())


def test_a_row_whose_json_is_too_large_names_its_line_too(tmp_path: Path) -> None:
    """The line is short enough; as JSON, with its column names, the record is not."""
    path = tmp_path / "wide.csv"
    names = ",".join(f"a_long_column_name_{number}" for number in range(100))
    path.write_text(f"{names}\nx\n{','.join('1' * 100)}\n")

    async def check() -> None:
        async with open_log("memory:") as log:
            config = {"max.message.bytes": 2500}
            await run(FileSource("wide", path=path, topic="wide", topic_config=config), log)
            assert await records_of(log, "wide") == []
            shape, size = await records_of(log, "wide-dead-letter")
            assert orjson.loads(errors_in(shape)["source.offset"])["line"] == 2
            assert size.value == ",".join("1" * 100).encode()
            assert orjson.loads(errors_in(size)["source.offset"])["line"] == 2  # lines before it
            assert "max.message.bytes is 2500" in errors_in(size)["exception.message"]

    asyncio.run(check())


def test_a_file_that_was_replaced_by_a_shorter_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_lines(path, range(10))

    async def check() -> None:
        async with open_log("memory:") as log:
            await run(numbers_source(path), log)
            path.write_text("{}\n")
            with pytest.raises(FatalConnectError, match="it was cut or replaced"):
                await run(numbers_source(path), log)
            assert await numbers_in(log) == list(range(10))

    asyncio.run(check())


def test_a_file_that_is_missing_or_closed_to_us(tmp_path: Path) -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            with pytest.raises(FatalConnectError, match=r"no file matches .*absent.jsonl"):
                await run(numbers_source(tmp_path / "absent.jsonl"), log)
            path = tmp_path / "closed.jsonl"
            write_lines(path, range(3))
            path.chmod(0)
            if os.geteuid() != 0:
                with pytest.raises(FatalConnectError, match="cannot be opened: Permission denied"):
                    await run(numbers_source(path), log)

    asyncio.run(check())


def test_all_faults_in_the_settings_are_told_at_once() -> None:
    with pytest.raises(ConnectConfigError) as raised:
        FileSource(
            "f",
            path="data.xyz",
            columns={"a": "integer"},
            delimiter=",,",
            header=False,
            key="b",
            nul="NA",
        )
    message = str(raised.value)
    for expected in (
        "connector 'f': 6 faults",
        "topic: required",
        "columns: a must be one of str, int, float, bool, timestamp, found 'integer'",
        "delimiter: must be one character",
        "key: is not one of the columns",
        "format: must be given",
        "nul: unknown setting; did you mean 'null'",
    ):
        assert expected in message
