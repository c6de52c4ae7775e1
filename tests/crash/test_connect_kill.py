"""Connectors in real processes, killed with SIGKILL at random moments and started again.

However often that happens: the topic holds every row of the file once, in the order of the file;
the table every record once; and each record that fits neither has one dead letter.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from millstream.log import Record, open_log
from shared.topics import errors_in, records_of

MILLSTREAM = str(Path(sys.executable).parent / "millstream")

SOURCE = """
[rows]
connector = "files"
path = "rows.csv"
topic = "rows"
partitions = 3
key = "k"
columns = { n = "int" }
batch_size = 25
"""

SINK = """
[table]
connector = "sql"
topic = "rows"
url = "sqlite:///rows.db"
table = "rows"
mode = "insert"
columns = { n = "int", k = "str" }
consumer_override = { "max.partition.fetch.bytes" = 600 }
"""


def command(folder: Path, config: str) -> list[str]:
    log = f"file:{folder / 'log'}"
    return [MILLSTREAM, "connect", str(folder / config), "--until-end", "--log", log]


def whole_run(folder: Path, config: str) -> float:
    """Run to the end; how long it took in seconds."""
    started = time.monotonic()
    result = subprocess.run(
        command(folder, config), cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return time.monotonic() - started


def kill_until_done(folder: Path, config: str, kills: int, longest_s: float, seed: int) -> int:
    """Start and kill after a random time, `kills` times, then let it finish; kills that landed."""
    rng = random.Random(seed)
    landed = 0
    for _ in range(kills):
        process = subprocess.Popen(
            command(folder, config),
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(timeout=rng.uniform(0.2, longest_s))
        except subprocess.TimeoutExpired:
            process.kill()
            landed += 1
        process.wait()
    whole_run(folder, config)
    return landed


def committed(folder: Path, topic: str) -> list[Record]:
    async def read() -> list[Record]:
        async with open_log(f"file:{folder / 'log'}") as log:
            return await records_of(log, topic)

    return asyncio.run(read())


def write_rows(path: Path, count: int) -> tuple[list[tuple[str, int]], set[int]]:
    """A CSV file of `count` rows, every hundredth bad; the good rows, and the lines of the bad."""
    good, bad_lines = [], set()
    with path.open("w") as file:
        file.write("k,n\n")
        for n in range(count):
            if n % 100 == 50:
                file.write(f"x{n},not a number\n")
                bad_lines.add(n + 2)
            else:
                good.append((f"key{n % 7}", n))
                file.write(f"key{n % 7},{n}\n")
    return good, bad_lines


def source_folder(folder: Path, count: int) -> tuple[list[tuple[str, int]], set[int]]:
    folder.mkdir()
    (folder / "source.toml").write_text(SOURCE)
    return write_rows(folder / "rows.csv", count)


def check_source(folder: Path, kills: int, seed: int, count: int, longest_s: float) -> int:
    good, bad_lines = source_folder(folder, count)
    landed = kill_until_done(folder, "source.toml", kills, longest_s, seed)
    by_key: dict[str, list[int]] = {}
    for record in committed(folder, "rows"):
        row = orjson.loads(record.value or b"")
        assert (record.key or b"").decode() == row["k"]
        by_key.setdefault(row["k"], []).append(row["n"])
    expected: dict[str, list[int]] = {}
    for key, n in good:
        expected.setdefault(key, []).append(n)
    assert by_key == expected
    letters = [errors_in(letter) for letter in committed(folder, "rows-dead-letter")]
    lines = [orjson.loads(letter["source.offset"])["line"] for letter in letters]
    assert sorted(lines) == sorted(bad_lines)
    return landed


def sink_folder(folder: Path, count: int) -> list[Any]:
    """A log whose topic `rows` holds `count` records, every hundredth of which fits no table."""
    folder.mkdir()
    (folder / "sink.toml").write_text(SINK)
    values: list[Any] = [
        {"n": "bad" if n % 100 == 50 else n, "k": f"key{n % 7}"} for n in range(count)
    ]

    async def write() -> None:
        async with open_log(f"file:{folder / 'log'}", durability="os") as log:
            await log.create_topic("rows", partitions=3)
            async with log.producer() as producer:
                for start in range(0, count, 20):  # many small batches: a sink reads batch by batch
                    part = [orjson.dumps(value) for value in values[start : start + 20]]
                    await producer.send_batch("rows", part)
                    await producer.flush()

    asyncio.run(write())
    return values


def check_sink(folder: Path, kills: int, seed: int, count: int, longest_s: float) -> int:
    values = sink_folder(folder, count)
    landed = kill_until_done(folder, "sink.toml", kills, longest_s, seed)
    with closing(sqlite3.connect(folder / "rows.db")) as database:
        rows = database.execute("SELECT n, k FROM rows ORDER BY n").fetchall()
    assert rows == [(each["n"], each["k"]) for each in values if each["n"] != "bad"]
    letters = [errors_in(letter) for letter in committed(folder, "table-dead-letter")]
    origins = [(letter["partition"], letter["offset"]) for letter in letters]
    assert len(set(origins)) == len(origins) == count // 100
    return landed


def source_rounds(tmp_path: Path, kills: int, count: int) -> None:
    source_folder(tmp_path / "whole", count)
    longest_s = whole_run(tmp_path / "whole", "source.toml")
    landed = 0
    while landed < kills:
        seed = random.randrange(2**32)
        folder = tmp_path / f"seed-{seed}"
        landed += check_source(folder, min(kills, 10), seed, count, longest_s)


def sink_rounds(tmp_path: Path, kills: int, count: int) -> None:
    sink_folder(tmp_path / "whole", count)
    longest_s = whole_run(tmp_path / "whole", "sink.toml")
    landed = 0
    while landed < kills:
        seed = random.randrange(2**32)
        landed += check_sink(tmp_path / f"seed-{seed}", min(kills, 10), seed, count, longest_s)


def test_a_killed_file_source_writes_every_row_once(tmp_path: Path) -> None:
    source_rounds(tmp_path, kills=3, count=4_000)


def test_a_killed_sql_sink_delivers_every_record_once(tmp_path: Path) -> None:
    sink_rounds(tmp_path, kills=3, count=2_000)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # lives are measured in whole runs, and these in how busy the machine is
def test_fifty_kills_of_a_file_source(tmp_path: Path) -> None:
    source_rounds(tmp_path, kills=50, count=20_000)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # lives are measured in whole runs, and these in how busy the machine is
def test_fifty_kills_of_a_sql_sink(tmp_path: Path) -> None:
    sink_rounds(tmp_path, kills=50, count=5_000)
