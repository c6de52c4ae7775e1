"""`millstream connect` as a process: exit codes, status, faults, and a clean end by SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from millstream.log import open_log
from shared.topics import values_of

MILLSTREAM = str(Path(sys.executable).parent / "millstream")

CONFIG = """
[numbers-file]
connector = "files"
path = "numbers.jsonl"
topic = "numbers"
key = "n"

[numbers-table]
connector = "sql"
topic = "numbers"
url = "sqlite:///numbers.db"
table = "numbers"
columns = { n = "int" }
pk = ["n"]
"""


def connect(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MILLSTREAM, "connect", *arguments, "--log", "file:./log"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = [orjson.dumps({"n": n}) for n in range(100)]
    (tmp_path / "numbers.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (tmp_path / "connect.toml").write_text(CONFIG)
    return tmp_path


def test_from_file_to_table_with_one_command(folder: Path) -> None:
    for expected in (100, 0):
        result = connect(folder, "connect.toml", "--until-end", "--json")
        assert result.returncode == 0, result.stderr
        status = orjson.loads(result.stdout)
        assert [each["connector"]["state"] for each in status["connectors"]] == ["FINISHED"] * 2
        assert [each["tasks"][0]["records"] for each in status["connectors"]] == [expected] * 2
    with sqlite3.connect(folder / "numbers.db") as database:
        assert database.execute("SELECT count(*), sum(n) FROM numbers").fetchone() == (100, 4950)
    database.close()


def test_faults_in_the_settings_end_with_2(folder: Path) -> None:
    (folder / "wrong.toml").write_text('[x]\nconnector = "files"\npath = "a.csv"\nkeyy = "n"')
    result = connect(folder, "connect.toml", "wrong.toml")
    assert result.returncode == 2
    assert "topic: required" in result.stderr
    assert "did you mean 'key'" in result.stderr
    assert not (folder / "log").exists()


def test_a_failed_connector_ends_with_1_and_the_others_are_done(folder: Path) -> None:
    (folder / "absent.toml").write_text(
        '[absent-file]\nconnector = "files"\npath = "absent.csv"\ntopic = "absent"'
    )
    result = connect(folder, "absent.toml", "connect.toml", "--until-end")
    assert result.returncode == 1
    assert "no file matches 'absent.csv'" in result.stderr
    assert "absent-file: failed, 0 records" in result.stdout
    assert "numbers-table: finished, 100 records" in result.stdout


def test_sigterm_ends_it_cleanly_and_a_restart_goes_on(folder: Path) -> None:
    (folder / "endless.py").write_text(
        "import asyncio\n"
        "from millstream.connect import source\n\n"
        '@source(topic="ticks")\n'
        "async def ticks(position):\n"
        "    n = position or 0\n"
        "    while True:\n"
        "        yield n, n + 1\n"
        "        n += 1\n"
        "        if n % 10 == 0:\n"
        '            print("ticking", flush=True)\n'
        "            await asyncio.sleep(0.001)\n"
    )
    (folder / "ticks.toml").write_text('[ticks]\nconnector = "endless.py:ticks"')
    for _ in range(2):
        process = subprocess.Popen(
            [MILLSTREAM, "connect", "ticks.toml", "--log", "file:./log"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        for _ in range(5):
            assert "ticking" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        printed, complained = process.communicate(timeout=30)
        assert process.returncode == 0, complained
        assert "a restart goes on where this ended" in complained
        assert "ticks: stopped" in printed

    async def committed() -> list[int]:
        async with open_log(f"file:{folder / 'log'}") as log:
            return await values_of(log, "ticks")

    numbers = asyncio.run(committed())
    assert numbers == list(range(len(numbers)))
