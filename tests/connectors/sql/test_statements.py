"""Statements in every dialect we claim to know, and what errors of a database mean."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, inspect, select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    StatementError,
)

from millstream.connect import FatalConnectError, RetriableConnectError
from millstream.connectors.sql.database import explained, is_row_fault, open_engine
from millstream.connectors.sql.statements import delete_statement, upsert_statement

TABLE = Table(
    "daily",
    MetaData(),
    Column("carrier", Text, primary_key=True),
    Column("day", Text, primary_key=True),
    Column("flights", Integer),
    Column("untouched", Integer),
)
NAMES = ["carrier", "day", "flights"]


def compiled(names: list[str], dialect: Dialect) -> str:
    statement: Any = upsert_statement(TABLE, names, ["carrier", "day"], dialect.name)
    return text_of(statement.compile(dialect=dialect, column_keys=names))


def text_of(compiled: Any) -> str:
    """On one line, without the casts that a driver may want."""
    return re.sub(r"::\w+", "", " ".join(str(compiled).split()))


def test_upsert_for_postgresql() -> None:
    assert compiled(NAMES, postgresql.dialect()) == (
        "INSERT INTO daily (carrier, day, flights) VALUES "
        "(%(carrier)s, %(day)s, %(flights)s) "
        "ON CONFLICT (carrier, day) DO UPDATE SET flights = excluded.flights"
    )
    assert compiled(NAMES[:2], postgresql.dialect()).endswith("(carrier, day) DO NOTHING")


def test_upsert_for_sqlite() -> None:
    assert compiled(NAMES, sqlite.dialect()) == (
        "INSERT INTO daily (carrier, day, flights) VALUES (?, ?, ?) "
        "ON CONFLICT (carrier, day) DO UPDATE SET flights = excluded.flights"
    )


def test_upsert_for_mysql() -> None:
    statement = compiled(NAMES, mysql.dialect())
    assert "ON DUPLICATE KEY UPDATE flights = " in statement
    assert "carrier = " not in statement


def test_a_database_without_upsert_says_so() -> None:
    with pytest.raises(FatalConnectError, match="upsert is not known for oracle; use mode insert"):
        upsert_statement(TABLE, NAMES, ["carrier"], "oracle")


def test_delete_names_the_whole_key() -> None:
    statement: Any = delete_statement(TABLE, ["carrier", "day"])
    assert text_of(statement.compile(dialect=postgresql.dialect())) == (
        "DELETE FROM daily WHERE daily.carrier = %(pk_carrier)s AND daily.day = %(pk_day)s"
    )


def of(kind: type[DBAPIError], cause: Exception, *, lost: bool = False) -> DBAPIError:
    return kind("INSERT", {}, cause, connection_invalidated=lost)


def sqlite_error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("something")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (of(OperationalError, sqlite_error(sqlite3.SQLITE_BUSY)), RetriableConnectError),
        (of(OperationalError, sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT)), RetriableConnectError),
        (of(OperationalError, sqlite_error(sqlite3.SQLITE_FULL)), RetriableConnectError),
        (of(OperationalError, sqlite_error(sqlite3.SQLITE_ERROR)), FatalConnectError),
        (of(OperationalError, sqlite_error(sqlite3.SQLITE_READONLY)), FatalConnectError),
        (of(OperationalError, Exception("server closed the connection")), RetriableConnectError),
        (of(ProgrammingError, Exception("no such column")), FatalConnectError),
        (of(ProgrammingError, Exception("gone"), lost=True), RetriableConnectError),
    ],
)
def test_what_passes_is_retried_and_what_does_not_is_fatal(
    error: DBAPIError, expected: type[Exception]
) -> None:
    assert not is_row_fault(error)
    found = explained(error, "writing")
    assert type(found) is expected
    assert "writing: " in str(found)
    assert "sqlalche.me" not in str(found)


def test_what_is_the_rows_fault() -> None:
    assert is_row_fault(of(IntegrityError, Exception("UNIQUE")))
    assert is_row_fault(of(DataError, Exception("out of range")))
    assert is_row_fault(StatementError("unbindable", "INSERT", {}, TypeError("no")))


def test_a_sqlite_transaction_covers_tables_and_reads_and_may_write(tmp_path: Path) -> None:
    """Left to itself, Python's sqlite3 begins only at the first INSERT."""
    engine = open_engine(f"sqlite:///{tmp_path / 'test.db'}?timeout=0.01")
    with engine.connect() as connection:
        with connection.begin() as transaction:
            TABLE.create(connection)
            transaction.rollback()
        assert not inspect(connection).has_table("daily")
        connection.rollback()
        with connection.begin(), closing(sqlite3.connect(tmp_path / "test.db", 0.01)) as other:
            connection.execute(select(1))
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("CREATE TABLE refused (x)")
    engine.dispose()


@pytest.mark.parametrize("url", ["nonsense", "nosuchdb://x", "postgresql+nosuch://x"])
def test_a_url_that_cannot_be_used(url: str) -> None:
    with pytest.raises(FatalConnectError, match="the database URL cannot be used"):
        open_engine(url)
