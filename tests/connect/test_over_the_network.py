"""`millstream connect` on a log that is reached over the network, of either kind: from a file to a
table, each row once, and what does not fit among the dead letters."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.commands import run

CONFIG = """
[rows]
connector = "files"
path = "rows.jsonl"
topic = "rows"
partitions = 2
key = "k"
batch_size = 20

[table]
connector = "sql"
topic = "rows"
url = "sqlite:///rows.db"
table = "rows"
mode = "insert"
columns = { n = "int", k = "str" }
"""


def write(folder: Path, numbers: range) -> None:
    """Rows at the end of the file; every 50th is no JSON, every other 25th fits no table."""
    with (folder / "rows.jsonl").open("ab") as file:
        for n in numbers:
            row = {"n": "bad" if n % 25 == 7 else n, "k": f"k{n % 5}"}
            file.write(b"{broken\n" if n % 50 == 7 else orjson.dumps(row) + b"\n")


def letters(url: str, topic: str) -> list[dict[str, str]]:
    printed = run(url, "consume", topic, "--until-end", "--format", "json").json
    return [{each["key"]: each["value"] for each in letter["headers"]} for letter in printed]


def connected(url: str) -> dict[str, Any]:
    status = orjson.loads(run(url, "connect", "connect.toml", "--until-end", "--json").out)
    return {each["name"]: each["tasks"][0] for each in status["connectors"]}


def test_from_a_file_to_a_table(
    kafka_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "connect.toml").write_text(CONFIG)
    total = 0
    for count in (500, 300, 0):
        write(tmp_path, range(total, total + count))
        total += count
        done = connected(kafka_url)
        broken, unfit = count // 50, count // 50
        assert (done["rows"]["records"], done["rows"]["dead_letters"]) == (count - broken, broken)
        assert (done["table"]["records"], done["table"]["dead_letters"]) == (count - broken, unfit)

        with closing(sqlite3.connect(tmp_path / "rows.db")) as database:
            rows = database.execute("SELECT n, k FROM rows ORDER BY n").fetchall()
        assert rows == [(n, f"k{n % 5}") for n in range(total) if n % 25 != 7]
        of_source = letters(kafka_url, "rows-dead-letter")
        lines = [orjson.loads(each["__connect.errors.source.offset"])["line"] for each in of_source]
        assert lines == [n + 1 for n in range(total) if n % 50 == 7]
        of_sink = letters(kafka_url, "table-dead-letter")
        origins = {
            (each["__connect.errors.partition"], each["__connect.errors.offset"])
            for each in of_sink
        }
        assert len(of_sink) == len(origins) == total // 50
        assert {each["__connect.errors.stage"] for each in of_sink} == {"TASK_PUT"}

    # Without what the database has, the sink delivers everything again: to another table, once.
    (tmp_path / "rows.db").unlink()
    assert connected(kafka_url)["table"]["records"] == total - total // 50
    with closing(sqlite3.connect(tmp_path / "rows.db")) as database:
        [(rows_count,)] = database.execute("SELECT count(*) FROM rows").fetchall()
    assert rows_count == total - total // 25
    assert len(letters(kafka_url, "table-dead-letter")) == total // 50  # written already
