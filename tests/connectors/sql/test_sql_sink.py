"""The SQL sink on a log and a SQLite file: exactly once, fenced, nothing lost for a bad row."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from millstream.connect import (
    ConnectConfigError,
    ConnectorFencedError,
    FatalConnectError,
    PartitionState,
    SinkBatch,
)
from millstream.connectors.sql import SqlSink, read_table
from millstream.connectors.sql.writer import SqlWriter
from millstream.log import Log, RecordBatch, TopicPartition, open_log
from shared.told import told_by
from shared.topics import errors_in, fill, records_of

COLUMNS = {"id": int, "name": str, "day": str}


class Database:
    """A SQLite file, looked at from outside."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "test.db"
        self.url = f"sqlite:///{self.path}"

    def run(self, statement: str, *parameters: Any) -> list[Any]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(statement, parameters).fetchall()

    def rows(self, table: str = "items") -> list[Any]:
        return self.run(f"SELECT * FROM {table} ORDER BY 1")

    def sink(self, name: str = "items", **more: Any) -> SqlSink:
        given = {
            "topic": "items",
            "url": self.url,
            "table": "items",
            "columns": COLUMNS,
            "pk": ["id"],
            **more,
        }
        return SqlSink(name, **given)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path)


def item(number: Any, name: Any = "n", day: Any = "2013-01-31", **more: Any) -> bytes:
    return orjson.dumps({"id": number, "name": name, "day": day, **more})


async def run(connector: SqlSink, log: Log) -> None:
    await connector.run(log, until_end=True)


async def letters_of(log: Log, name: str = "items") -> dict[int, str]:
    letters = await records_of(log, f"{name}-dead-letter")
    errors = [errors_in(letter) for letter in letters]
    found = {int(each["offset"]): each["exception.message"] for each in errors}
    assert len(found) == len(letters), "a dead letter was written twice"
    return found


def test_the_newest_record_of_a_key_is_the_row(database: Database) -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "items", [item(1, "a"), item(2, "b"), item(1, "c", None)])
            for _ in range(2):
                await run(database.sink(), log)
                assert database.rows() == [(1, "c", None), (2, "b", "2013-01-31")]
            await fill(log, "items", [item(2, "d"), item(3, "e")])
            await run(database.sink(), log)
            assert [row[1] for row in database.rows()] == ["c", "d", "e"]
            [offsets] = database.rows("millstream_offsets")
            assert offsets[:4] == ("items", "items", 0, 5)
            committed = await log.group_offsets("connect-items")
            assert committed[TopicPartition("items", 0)].offset == 5

    asyncio.run(check())


def test_inserts_are_exactly_once_too(database: Database) -> None:
    """Without a key to upsert by, a row delivered twice would be there twice."""

    async def check() -> None:
        sink = database.sink(pk=[], mode="insert")
        async with open_log("memory:") as log:
            for start in (0, 100):
                values = [item(n % 10) for n in range(start, start + 100)]
                await fill(log, "items", values, partitions=3)
                await run(sink, log)
                assert len(database.rows()) == start + 100

    asyncio.run(check())


def test_every_type_of_column(database: Database) -> None:
    columns = {
        "s": str,
        "i": int,
        "f": float,
        "b": bool,
        "d": "date",
        "t": "timestamp",
        "j": "json",
    }
    value = {
        "s": "é",
        "i": -(2**63),
        "f": 0.5,
        "b": True,
        "d": "2013-01-31",
        "t": 1,
        "j": {"x": [1]},
    }

    async def check() -> None:
        sink = database.sink(columns=columns, pk=["s"])
        async with open_log("memory:") as log:
            for name in ("one", "two"):
                value["s"] = name
                await fill(log, "items", [orjson.dumps(value)])
                await run(sink, log)  # the second time the table is read back from the database
            await fill(log, "items", [b'{"s": "empty"}'])
            await run(sink, log)
            assert await letters_of(log) == {}

    asyncio.run(check())
    first = database.rows()[1]
    assert first[:5] == ("one", -(2**63), 0.5, 1, "2013-01-31")
    assert first[5].startswith("1970-01-01 00:00:00.001")
    assert orjson.loads(first[6]) == {"x": [1]}
    assert database.rows()[0] == ("empty", *[None] * 6)
    read = read_table(database.url, "items", order_by=["-s"], limit=1)
    assert read[0]["s"] == "two"
    assert read[0]["j"] == {"x": [1]}


def test_bad_rows_go_to_the_dead_letter_topic_and_the_rest_goes_on(database: Database) -> None:
    database.run(
        "CREATE TABLE items (id INTEGER PRIMARY KEY, name VARCHAR(5) NOT NULL UNIQUE, "
        "day TEXT CHECK (day LIKE '____-__-__'), score INTEGER)"
    )
    values = [
        item(1, "one"),
        b"{not json",
        item("two", "two"),
        item(3, None),
        item(4, "one"),
        item(5, "five", "tomorrow"),
        item(6, "too long"),
        b"[7]",
        b"\xff",
        item(9, "nine", None),
        item(10, "ten", score="high"),
        None,
        item(12, "late", score=3),
    ]

    async def check() -> None:
        sink = database.sink(columns={**COLUMNS, "score": int})
        async with open_log("memory:") as log:
            await fill(log, "items", values)
            for _ in range(2):
                await run(sink, log)
                assert [row[0] for row in database.rows()] == [1, 9, 12]
                letters = await letters_of(log)
            assert sorted(letters) == [1, 2, 3, 4, 5, 6, 7, 8, 10]
            assert "not valid JSON" in letters[1]
            assert letters[2] == "column 'id' must be an integer, found str 'two'"
            assert letters[3] == "column 'name' must not be null; field 'value.name' is"
            assert "the database refuses it: IntegrityError: UNIQUE" in letters[4]
            assert "the database refuses it: IntegrityError: CHECK" in letters[5]
            assert letters[6] == "column 'name' holds 5 characters, found 8"
            assert letters[7] == "the value must be a JSON object, found list [7]"
            assert "not UTF-8" in letters[8]
            assert letters[10] == "column 'score' must be an integer, found str 'high'"
            first = (await records_of(log, "items-dead-letter"))[0]
            assert first.value == b"{not json"

    asyncio.run(check())


def test_without_tolerance_it_stops_and_nothing_of_the_batch_is_there(database: Database) -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "items", [item(1), item("x"), item(3)])
            strict = database.sink(errors_tolerance="none")
            with pytest.raises(FatalConnectError, match="items partition 0 offset 1: column 'id'"):
                await run(strict, log)
            assert database.rows() == []
            await run(database.sink(), log)
            assert [row[0] for row in database.rows()] == [1, 3]

    asyncio.run(check())


@pytest.mark.parametrize("bad_count", [0, 1, 30, 60])
def test_any_number_of_bad_rows_in_a_batch(database: Database, bad_count: int) -> None:
    database.run("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT CHECK (name <> 'bad'))")
    bad = {(7 * n) % 60 for n in range(bad_count)}
    values = [item(n, "bad" if n in bad else "good") for n in range(60)]

    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "items", values)
            await run(database.sink(columns={"id": int, "name": str}, batch_size=7), log)
            assert [row[0] for row in database.rows()] == [n for n in range(60) if n not in bad]
            assert set(await letters_of(log)) == bad

    asyncio.run(check())


def test_an_older_good_row_survives_a_newer_bad_one(database: Database) -> None:
    """Within a batch only the newest row of a key is written, unless the database refuses it."""
    database.run("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT CHECK (name <> 'bad'))")

    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "items", [item(1, "old"), item(2, "x"), item(1, "bad")])
            await run(database.sink(columns={"id": int, "name": str}), log)
            assert database.rows() == [(1, "old"), (2, "x")]
            assert set(await letters_of(log)) == {2}

    asyncio.run(check())


def test_dead_letters_are_written_before_the_commit_and_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process 'dies' between the dead letters and the database commit, three times."""
    commit = SqlWriter.commit
    deaths = 3

    def dying(writer: SqlWriter) -> None:
        nonlocal deaths
        if deaths:
            deaths -= 1
            raise RuntimeError("killed before the commit")
        commit(writer)

    monkeypatch.setattr(SqlWriter, "commit", dying)

    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "items", [item(1), item("x"), item(3)])
            for _ in range(3):
                with pytest.raises(FatalConnectError, match="killed before the commit"):
                    await run(database.sink(), log)
                assert database.rows() == []
                assert set(await letters_of(log)) == {1}
            await run(database.sink(), log)
            assert [row[0] for row in database.rows()] == [1, 3]
            assert set(await letters_of(log)) == {1}

    asyncio.run(check())


def test_deletes_and_upserts_of_a_key_keep_their_order(database: Database) -> None:
    sink = database.sink(
        columns={"id": {"type": "str", "field": "key"}, "name": str},
        pk=["id"],
        delete_enabled=True,
    )
    keys: list[bytes | None] = [b"a", b"b", b"a", b"c", b"b", b"c", b"c", None]
    values: list[bytes | None] = [
        b'{"name": "1"}',
        b'{"name": "2"}',
        None,
        None,
        b'{"name": "3"}',
        b'{"name": "4"}',
        b'{"name": "5"}',
        None,
    ]

    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "items", values, keys=keys)
            await run(sink, log)
            assert database.rows() == [("b", "3"), ("c", "5")]
            assert await letters_of(log) == {7: "column 'id' must not be null; the record key is"}
            await fill(log, "items", [None, None], keys=[b"b", b"never"])
            await run(sink, log)
            assert database.rows() == [("c", "5")]

    asyncio.run(check())


def batch_of(values: Sequence[bytes], offset: int = 0) -> SinkBatch:
    raw = RecordBatch(
        "items",
        0,
        range(offset, offset + len(values)),
        [None] * len(values),
        list(values),
        [0] * len(values),
    )
    objects = [orjson.loads(value) for value in values]
    indexes = range(len(values))
    return SinkBatch(raw, raw.keys, objects, indexes, offset + len(values))


PARTITION = TopicPartition("items", 0)
STATE = {PARTITION: PartitionState("topic-id", 0, 100)}


def test_an_older_sink_of_the_same_name_is_fenced_at_any_point(database: Database) -> None:
    """Trap 9: a paused sink wakes up after its successor has begun. It must change nothing."""
    older, newer = SqlWriter(database.sink().config), SqlWriter(database.sink().config)
    assert older.open(STATE) == {PARTITION: 0}
    older.write([batch_of([item(1, "older")])])
    older.commit()
    assert newer.open(STATE) == {PARTITION: 1}
    with pytest.raises(ConnectorFencedError, match="taken over by another sink of this name"):
        older.write([batch_of([item(2, "zombie")], offset=1)])
    older.close()
    newer.write([batch_of([item(2, "newer")], offset=1)])
    newer.commit()
    newer.close()
    assert [row[1] for row in database.rows()] == ["older", "newer"]
    [(*_, next_offset, epoch, _topic_id)] = database.rows("millstream_offsets")
    assert (next_offset, epoch) == (2, 2)


def test_two_running_sinks_of_the_same_name(database: Database) -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "items", [item(1)])
            delivered = asyncio.Event()
            older = asyncio.create_task(
                database.sink().run(log, until_end=False, progress=lambda *counts: delivered.set())
            )
            await delivered.wait()
            await run(database.sink(), log)
            await fill(log, "items", [item(2)])
            with pytest.raises(ConnectorFencedError, match="taken over"):
                await older
            await run(database.sink(), log)
            assert [row[0] for row in database.rows()] == [1, 2]

    asyncio.run(check())


def test_a_locked_database_is_waited_for(
    database: Database,
) -> None:
    async def check() -> None:
        url = f"{database.url}?timeout=0.01"
        async with open_log("memory:") as log:
            await fill(log, "items", [item(1)])
            sink = database.sink(url=url, errors_retry_delay_max_ms=5)
            with closing(sqlite3.connect(database.path)) as blocker:
                blocker.execute("BEGIN EXCLUSIVE")
                with told_by("millstream.connect") as told:
                    job = asyncio.create_task(run(sink, log))
                    await told.event.wait()
                    assert "database is locked; trying again" in told.messages[0]
                blocker.rollback()
            await job
            assert [row[0] for row in database.rows()] == [1]
            impatient = database.sink(
                url=url, errors_retry_delay_max_ms=5, errors_retry_timeout_ms=20
            )
            with closing(sqlite3.connect(database.path)) as blocker:
                blocker.execute("BEGIN EXCLUSIVE")
                with pytest.raises(FatalConnectError, match=r"gave up.*database is locked"):
                    await run(impatient, log)

    asyncio.run(check())


def test_a_database_of_another_log_is_refused(database: Database) -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "items", [item(1), item(2)])
            await run(database.sink(), log)
        async with open_log("memory:") as log:
            await fill(log, "items", [item(n) for n in range(5, 15)])
            with pytest.raises(FatalConnectError, match=r"another topic of this name.*DELETE FROM"):
                await run(database.sink(), log)
            assert [row[0] for row in database.rows()] == [1, 2]
            await run(database.sink("other"), log)
            assert len(database.rows()) == 12

    asyncio.run(check())


def test_offsets_beyond_the_end_of_the_log_are_refused(database: Database) -> None:
    writer = SqlWriter(database.sink().config)
    writer.open(STATE)
    writer.write([batch_of([item(1)] * 50)])
    writer.commit()
    writer.close()
    shorter = {PARTITION: PartitionState("topic-id", 0, 49)}
    refused = SqlWriter(database.sink().config)
    with pytest.raises(FatalConnectError, match="up to offset 50, but the partition ends at off"):
        refused.open(shorter)
    refused.close()
    [(*_, epoch, _topic_id)] = database.rows("millstream_offsets")
    assert epoch == 1


def test_deleted_records_are_passed_over_with_a_warning(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "items", [item(1)])
            await run(database.sink(), log)
            await fill(log, "items", [item(2), item(3)])
            await log.delete_records({PARTITION: 2})
            await run(database.sink(), log)
            assert [row[0] for row in database.rows()] == [1, 3]

    asyncio.run(check())
    assert "offsets 1 to 1 of items-0 were deleted before they were delivered" in caplog.text


@pytest.mark.parametrize(
    ("table", "more", "reason"),
    [
        ("id INTEGER PRIMARY KEY, name TEXT", {}, "it has no column 'day', only id, name"),
        (
            "id INTEGER PRIMARY KEY, name INTEGER, day TEXT",
            {},
            "its column 'name' is INTEGER, not str",
        ),
        (
            "id INTEGER, name TEXT, day TEXT",
            {},
            r"upsert needs \(id\) to be its primary key or a unique constraint",
        ),
        (
            "id INTEGER PRIMARY KEY, name TEXT, day TEXT, more TEXT NOT NULL",
            {},
            "its column 'more' must not be null, and nothing writes it",
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    database: Database, table: str, more: dict[str, Any], reason: str
) -> None:
    database.run(f"CREATE TABLE items ({table})")

    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "items", [item(1)])
            with pytest.raises(FatalConnectError, match=f"does not fit the settings: .*{reason}"):
                await run(database.sink(**more), log)

    asyncio.run(check())


@pytest.mark.parametrize(
    "table",
    [
        "id BIGINT UNIQUE, name TEXT, day TEXT",
        "id, name, day, filled TEXT NOT NULL DEFAULT 'x', PRIMARY KEY (id)",
    ],
)
def test_tables_that_fit_may_be_made_otherwise(database: Database, table: str) -> None:
    database.run(f"CREATE TABLE items ({table})")

    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "items", [item(1, "a"), item(1, "b")])
            await run(database.sink(), log)
            assert database.rows()[0][:2] == (1, "b")

    asyncio.run(check())


def test_columns_may_be_those_of_the_table(database: Database) -> None:
    database.run("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL)")

    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "items", [item(1), item("2")])
            await run(database.sink(columns={}, auto_create=False), log)
            assert database.rows() == [(1, "n")]
            assert "column 'id' must be an integer" in (await letters_of(log))[1]
            absent = database.sink("other", table="absent", auto_create=False)
            with pytest.raises(FatalConnectError, match="there is no table 'absent'; create it"):
                await run(absent, log)

    asyncio.run(check())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    async def check() -> None:
        async with open_log("memory:") as log:
            await fill(log, "items", [item(1)])
            lost = Database(tmp_path / "absent").sink()
            with pytest.raises(FatalConnectError, match="unable to open database file"):
                await run(lost, log)

    asyncio.run(check())
    with pytest.raises(FatalConnectError, match="there is no table 'absent'"):
        read_table("sqlite://", "absent")


def test_all_faults_in_the_settings_are_told_at_once() -> None:
    with pytest.raises(ConnectConfigError) as raised:
        SqlSink(
            "s",
            url="secret-password",
            columns={"id": "integer", "name": {"typ": "str"}},
            pk="id",
            mode="replace",
            batch_size=0,
            delete_enabled="maybe",
        )
    message = str(raised.value)
    for expected in (
        "topics: required",
        "table: required",
        "url: must be a URL like sqlite:///file.db",
        "columns: id: type must be one of str, int, float",
        "name: has type and field, not typ",
        "mode: must be one of upsert, insert, found 'replace'",
        "batch_size: must be at least 1",
        "delete_enabled: must be true or false",
    ):
        assert expected in message
    assert "secret-password" not in message


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"pk": []}, "pk: is needed for mode upsert"),
        ({"pk": ["no"]}, "pk: 'no' is not one of the columns: id, name, day"),
        ({"required": ["no"]}, "required: 'no' is not one of the columns"),
        ({"columns": ["id", "name"]}, "columns: each needs a type, or set auto_create to false"),
        ({"delete_enabled": True}, "delete_enabled: needs the whole primary key from the record"),
        ({"delete_enabled": True, "mode": "insert"}, "delete_enabled: needs mode upsert"),
    ],
)
def test_settings_that_do_not_go_together(more: dict[str, Any], reason: str) -> None:
    given = {"topic": "t", "url": "sqlite://", "table": "t", "columns": COLUMNS, "pk": ["id"]}
    with pytest.raises(ConnectConfigError, match=reason):
        SqlSink("s", **{**given, **more})
