"""What goes wrong for a user says what to do, and loses nothing: each case as a user meets it."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from millstream.log import Record, TopicPartition, open_log
from shared.flights import MILLSTREAM


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    printed: str
    complained: str


class Desk:
    """A folder with a log, and the commands typed in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = f"file:{folder / 'log'}"

    def millstream(self, *arguments: str) -> Ended:
        result = subprocess.run(
            [MILLSTREAM, *arguments],
            cwd=self.folder,
            env={**os.environ, "MILLSTREAM_LOG": self.log},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Ended(result.returncode, result.stdout, result.stderr)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def connect(self, source: str, **settings: str) -> Ended:
        """Read a file into the topic `in` with a connector worker."""
        lines = "".join(f'{name} = "{value}"\n' for name, value in settings.items())
        config = f'[in]\nconnector = "files"\npath = "{source}"\ntopic = "in"\n{lines}'
        self.write("in.toml", config)
        return self.millstream("connect", "in.toml", "--until-end")

    def run(self, app: str) -> Ended:
        self.write("app.py", "from millstream.streams import App\n\napp = App('app')\n" + app)
        return self.millstream("run", "app.py", "--until-end")

    def read(self, topic: str) -> list[Record]:
        return asyncio.run(self._read(topic))

    async def _read(self, topic: str) -> list[Record]:
        records: list[Record] = []
        async with open_log(self.log) as log, log.consumer() as consumer:
            description = await log.describe_topic(topic)
            await consumer.assign(
                [TopicPartition(topic, number) for number in range(description.partitions)]
            )
            while any((await consumer.lag()).values()):
                records += await consumer.poll()
        return records

    def values(self, topic: str) -> list[object]:
        return [orjson.loads(record.value or b"null") for record in self.read(topic)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def reason(record: Record) -> str:
    """What the dead letter's headers say."""
    headers = dict(record.headers)
    message = headers.get("__connect.errors.exception.message") or headers.get(
        "__streams.errors.message"
    )
    return (message or b"").decode()


def test_a_truncated_gzip_delivers_what_is_whole_and_goes_on_when_repaired(desk: Desk) -> None:
    rows = [{"n": number, "word": os.urandom(12).hex()} for number in range(3_000)]
    whole = gzip.compress(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    desk.write("rows.jsonl.gz", whole[: len(whole) // 2])
    ended = desk.connect("rows.jsonl.gz")
    assert ended.code == 1
    assert "rows.jsonl.gz" in ended.complained
    assert "truncated" in ended.complained
    assert "replace the file" in ended.complained
    delivered = desk.values("in")
    assert 0 < len(delivered) < 3_000
    assert delivered == rows[: len(delivered)]

    desk.write("rows.jsonl.gz", whole)
    assert desk.connect("rows.jsonl.gz").code == 0
    assert desk.values("in") == rows


def test_a_row_with_too_few_columns_is_a_dead_letter_and_the_rest_goes_on(desk: Desk) -> None:
    desk.write("rows.csv", "carrier,name\nAA,American\nBB\nCC,Third\n")
    ended = desk.connect("rows.csv")
    assert ended.code == 0
    assert "1 dead letter" in ended.printed
    assert [row["carrier"] for row in desk.values("in")] == ["AA", "CC"]
    [letter] = desk.read("in-dead-letter")
    assert letter.value == b"BB"
    assert "1 fields instead of 2" in reason(letter)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"id": oops}', "not valid JSON"),
        (b'{"id": "\xff"}', "not UTF-8"),
        (b'{"id": "%s"}' % (b"x" * 1_100_000), "max.message.bytes"),
    ],
    ids=["invalid JSON", "a key that is not UTF-8", "larger than max.message.bytes"],
)
def test_a_line_that_cannot_be_a_record_is_a_dead_letter(
    desk: Desk, line: bytes, says: str
) -> None:
    desk.write("rows.jsonl", b'{"id": "a"}\n' + line + b'\n{"id": "b"}\n')
    ended = desk.connect("rows.jsonl", key="id")
    assert ended.code == 0
    assert [record.key for record in desk.read("in")] == [b"a", b"b"]
    [letter] = desk.read("in-dead-letter")
    assert says in reason(letter)
    assert (letter.value or b"")[:7] == line[:7]


def test_what_an_app_cannot_read_is_a_dead_letter_with_its_bytes(desk: Desk) -> None:
    async def fill() -> None:
        async with open_log(desk.log) as log, log.producer() as producer:
            for key, value in [(b"a", b"1"), (b"\xff", b"2"), (b"b", b"{oops"), (b"c", b"3")]:
                await producer.send("in", value, key=key)

    asyncio.run(fill())
    ended = desk.run(
        "@app.stream(app.topic('in', key=str, value=dict), to='out')\n"
        "def keyed(value, key: str):\n"
        "    return {'key': key}\n"
    )
    assert ended.code == 0, ended.complained
    assert desk.values("out") == [{"key": "a"}, {"key": "c"}]
    letters = desk.read("app-dead-letter")
    assert [(letter.key, letter.value) for letter in letters] == [(b"\xff", b"2"), (b"b", b"{oops")]
    assert all(dict(letter.headers)["__streams.errors.topic"] == b"in" for letter in letters)


def test_a_record_larger_than_the_output_topic_takes_stops_the_app(desk: Desk) -> None:
    desk.write("rows.jsonl", '{"n": 1}\n')
    assert desk.connect("rows.jsonl").code == 0
    ended = desk.run(
        "@app.stream(app.topic('in', value=dict), to='out')\n"
        "def large(value):\n"
        "    return {'text': 'x' * 2_000_000}\n"
    )
    assert ended.code == 1
    assert "max.message.bytes" in ended.complained
    assert "out" in ended.complained


@pytest.mark.parametrize("command", ["demo", "connect", "run"])
def test_an_unwritable_directory_is_named(desk: Desk, command: str) -> None:
    desk.write("rows.jsonl", '{"n": 1}\n')
    desk.write("a-file", "in the way")
    desk.log = f"file:{desk.folder / 'a-file' / 'log'}"
    if command == "demo":
        ended = desk.millstream("demo", "--dir", "a-file/demo")
    elif command == "connect":
        ended = desk.connect("rows.jsonl")
    else:
        ended = desk.run("app.stream(app.topic('in', partitions=1)).to('out')\n")
    assert ended.code == 1
    assert "a-file" in ended.complained
    assert "Traceback" not in ended.complained


def test_a_second_process_is_told_who_has_the_directory(desk: Desk) -> None:
    async def while_open() -> Ended:
        async with open_log(desk.log):
            app = "app.stream(app.topic('in', partitions=1)).to('out')\n"
            return await asyncio.to_thread(desk.run, app)

    ended = asyncio.run(while_open())
    assert ended.code == 1
    assert f"process {os.getpid()}" in ended.complained
    assert "another directory" in ended.complained


def test_a_join_of_different_partition_counts_names_them(desk: Desk) -> None:
    ended = desk.run(
        "orders = app.topic('orders', value=dict, partitions=2)\n"
        "people = app.topic('people', value=dict, partitions=3)\n"
        "app.stream(orders).join(app.table_of(people), lambda order, who: order).to('out')\n"
    )
    assert ended.code == 1
    for word in ("orders has 2", "people has 3", "repartition()"):
        assert word in ended.complained


def test_a_function_that_raises_stops_the_app_and_loses_nothing(desk: Desk) -> None:
    desk.write("rows.jsonl", '{"n": 1}\n{"n": 0}\n{"n": 4}\n')
    assert desk.connect("rows.jsonl").code == 0
    app = (
        "@app.stream(app.topic('in', value=dict), to='out')\n"
        "def inverse(value):\n"
        "    return {'inverse': 1 / value['n']}\n"
    )
    ended = desk.run(app)
    assert ended.code == 1
    for word in ("inverse", "in-0", "offset 1", "ZeroDivisionError", "app.py", "on_error"):
        assert word in ended.complained
    mended = app.replace("1 / value['n']", "1 / (value['n'] or 1)")
    assert desk.run(mended).code == 0
    assert desk.values("out") == [{"inverse": 1.0}, {"inverse": 1.0}, {"inverse": 0.25}]
