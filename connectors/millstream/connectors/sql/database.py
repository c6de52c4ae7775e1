"""Opening a database, and what its errors mean: try again, refuse the row, or stop."""

from __future__ import annotations

import sqlite3
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.pool import NullPool

from millstream.connect import ConnectError, FatalConnectError, RetriableConnectError

__all__ = ["explained", "is_row_fault", "open_engine"]

_SQLITE_PASSING_CODES = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_PROTOCOL,
}
"""SQLite's primary result codes that pass by themselves or when somebody makes room."""


def open_engine(url: str) -> Engine:
    """An engine for a URL; nothing is connected yet.

    Raises:
        FatalConnectError: the URL is wrong, or its driver is not installed.
    """
    try:
        engine = create_engine(url, poolclass=NullPool)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError, ValueError) as error:
        raise FatalConnectError(
            f"the database URL cannot be used: {error}. It looks like sqlite:///file.db or "
            "postgresql+psycopg://user:password@host/database, and its driver must be installed."
        ) from error
    if engine.dialect.name == "sqlite":
        _begin_explicitly(engine)
    return engine


def _begin_explicitly(engine: Engine) -> None:
    """Make SQLite transactions begin when SQLAlchemy says, and with the right to write.

    Python's sqlite3 begins one only at the first INSERT, so savepoints and reads would lie outside
    it. IMMEDIATE: a transaction that reads first and writes later could not wait for another
    writer, it would fail at once.
    """

    @event.listens_for(engine, "connect")
    def leave_transactions_alone(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def is_row_fault(error: SQLAlchemyError) -> bool:
    """Whether the database refuses the row itself: a constraint, a type, a value out of range."""
    if isinstance(error, (IntegrityError, DataError)):
        return True
    # a value the driver cannot even send
    return isinstance(error, StatementError) and not isinstance(error, DBAPIError)


def explained(error: SQLAlchemyError, doing: str) -> ConnectError:
    """The error to raise for a failure that is not a row's fault; `doing` says what was tried."""
    cause = getattr(error, "orig", None) or error
    message = f"{doing}: {type(cause).__name__}: {cause}"
    if _passes(error):
        return RetriableConnectError(message)
    return FatalConnectError(f"{message}. Nothing of it was committed; mend it and start again.")


def _passes(error: SQLAlchemyError) -> bool:
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0)
        return code & 0xFF in _SQLITE_PASSING_CODES
    return error.connection_invalidated or isinstance(error, (OperationalError, InterfaceError))
