"""A file source and a database sink, as commands that may be killed: what they read, and what must
come out: the topic holds every row of the file once, in the order of the file; the table every
record once; and each record that fits neither has one dead letter."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson

from millstream.log import Record, open_log
from shared.running import decided
from shared.topics import errors_in, records_of

__all__ = ["KilledSink", "KilledSource", "connect_command"]

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
topic = "table-rows"
url = "sqlite:///rows.db"
table = "rows"
mode = "insert"
columns = { n = "int", k = "str" }
consumer_override = { "max.partition.fetch.bytes" = 600 }
"""


def connect_command(folder: Path, config: str, url: str) -> list[str]:
    """A connector to its end; to be run in `folder`."""
    return [MILLSTREAM, "connect", str(folder / config), "--until-end", "--log", url]


def committed(url: str, topic: str) -> list[Record]:
    """All records of a topic."""

    async def read() -> list[Record]:
        async with open_log(url) as log:
            await decided(log, topic)
            return await records_of(log, topic)

    return asyncio.run(read())


class KilledSource:
    """A folder with a CSV file of `count` rows, every hundredth bad."""

    config = "source.toml"

    def __init__(self, folder: Path, count: int) -> None:
        folder.mkdir()
        (folder / self.config).write_text(SOURCE)
        self._by_key: dict[str, list[int]] = {}
        self._bad_lines: list[int] = []
        with (folder / "rows.csv").open("w") as file:
            file.write("k,n\n")
            for n in range(count):
                if n % 100 == 50:
                    file.write(f"x{n},not a number\n")
                    self._bad_lines.append(n + 2)
                else:
                    self._by_key.setdefault(f"key{n % 7}", []).append(n)
                    file.write(f"key{n % 7},{n}\n")

    def check(self, url: str) -> None:
        """What is in the log."""
        by_key: dict[str, list[int]] = {}
        for record in committed(url, "rows"):
            row = orjson.loads(record.value or b"")
            assert (record.key or b"").decode() == row["k"]
            by_key.setdefault(row["k"], []).append(row["n"])
        assert by_key == self._by_key
        letters = [errors_in(letter) for letter in committed(url, "rows-dead-letter")]
        lines = [orjson.loads(letter["source.offset"])["line"] for letter in letters]
        assert sorted(lines) == self._bad_lines


class KilledSink:
    """A log with `count` records in `table-rows`, every hundredth of which fits no table."""

    config = "sink.toml"

    def __init__(self, folder: Path, url: str, count: int) -> None:
        folder.mkdir()
        (folder / self.config).write_text(SINK)
        self._folder = folder
        self._values: list[Any] = [
            {"n": "bad" if n % 100 == 50 else n, "k": f"key{n % 7}"} for n in range(count)
        ]
        asyncio.run(self._write(url))

    async def _write(self, url: str) -> None:
        async with open_log(url, durability="os" if url.startswith("file:") else None) as log:
            await log.create_topic("table-rows", partitions=3)
            async with log.producer() as producer:
                # Many small batches: a sink reads batch by batch.
                for start in range(0, len(self._values), 20):
                    part = [orjson.dumps(value) for value in self._values[start : start + 20]]
                    await producer.send_batch("table-rows", part)
                    await producer.flush()

    def rows(self) -> list[tuple[int, str]]:
        """What is in the table."""
        with closing(sqlite3.connect(self._folder / "rows.db")) as database:
            try:
                return database.execute("SELECT n, k FROM rows ORDER BY n").fetchall()
            except sqlite3.OperationalError:  # not made yet, or written to
                return []

    def check(self, url: str) -> None:
        """What is in the table, and in the log."""
        assert self.rows() == [
            (each["n"], each["k"]) for each in self._values if each["n"] != "bad"
        ]
        letters = [errors_in(letter) for letter in committed(url, "table-dead-letter")]
        origins = [(letter["partition"], letter["offset"]) for letter in letters]
        assert len(set(origins)) == len(origins) == len(self._values) // 100
