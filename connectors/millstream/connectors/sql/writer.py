"""Writes batches to the database: rows and offsets in one transaction. Synchronous; one thread
owns it.

`write` opens the transaction and leaves it open, so that the dead letters of its rows can be made
durable before `commit`. A crash in between rolls the transaction back; the letters are there, and
are recognised when the rows come again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import Connection, Executable, insert
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from millstream.connect import (
    BadRecordError,
    PartitionState,
    Rejection,
    RetriableConnectError,
    SinkBatch,
)
from millstream.log import TopicPartition

from .config import SqlSinkConfig
from .database import explained, is_row_fault, open_engine
from .delivered import Delivered
from .rows import Row, RowMaker
from .statements import delete_statement, upsert_statement
from .tables import open_table, target_columns

__all__ = ["SqlWriter", "Written"]


logger = logging.getLogger("millstream.connectors.sql")


class Written(NamedTuple):
    """What a `write` did beside writing rows: records refused, and records that mean nothing."""

    rejections: list[Rejection]
    skipped: int


class _Change(NamedTuple):
    """One row to write, or to delete, and the record it comes from."""

    row: Row
    deletes: bool
    batch: SinkBatch
    at: int


class SqlWriter:
    """One connection and the statements of one sink task."""

    def __init__(self, config: SqlSinkConfig) -> None:
        self._config = config
        self._delivered = Delivered(config.name, config.offsets_table)
        self._connection: Connection | None = None

    def open(
        self, partitions: Mapping[TopicPartition, PartitionState]
    ) -> dict[TopicPartition, int]:
        """Connect, prepare the tables, take the partitions over; where to go on.

        Raises:
            RetriableConnectError: the database is busy or away.
            FatalConnectError: URL, table or offsets do not fit.
        """
        config = self._config
        engine = open_engine(config.url)
        with self._explained("opening the database"):
            self._connection = connection = engine.connect()
            with connection.begin():
                table = open_table(connection, config)
                self._delivered.create(connection)
            positions = self._take_over(connection, partitions)
        columns = target_columns(table, config)
        self._rows = RowMaker(columns, config.pk)
        names = [column.spec.name for column in columns]
        self._insert: Executable = (
            upsert_statement(table, names, config.pk, engine.dialect.name)
            if config.mode == "upsert"
            else insert(table)
        )
        self._delete = delete_statement(table, config.pk) if config.delete_enabled else None
        return positions

    def _take_over(
        self, connection: Connection, partitions: Mapping[TopicPartition, PartitionState]
    ) -> dict[TopicPartition, int]:
        try:
            with connection.begin():
                return self._delivered.take_over(connection, partitions)
        except IntegrityError as error:
            # both sinks found no row, and both inserted one
            raise RetriableConnectError(
                f"another sink takes over connector {self._config.name!r} at this moment"
            ) from error

    @contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise explained(error, f"connector {self._config.name!r}, {doing}") from error

    def write(self, batches: Sequence[SinkBatch]) -> Written:
        """Write the batches and their offsets into a new transaction, and leave it open.

        Raises:
            ConnectorFencedError: another sink has taken over; nothing is written.
        """
        connection = self._connection
        assert connection is not None
        rejections: list[Rejection] = []
        with self._explained(f"writing to {self._config.table!r}"):
            connection.begin()
            for batch in batches:
                self._delivered.advance(connection, batch.topic_partition, batch.next_offset)
            changes, skipped = self._changes(batches, rejections)
            self._apply(connection, changes, rejections)
        return Written(rejections, skipped)

    def commit(self) -> None:
        """Commit what `write` wrote."""
        assert self._connection is not None
        with self._explained(f"committing to {self._config.table!r}"):
            self._connection.commit()

    def close(self) -> None:
        """Roll back what is not committed, and disconnect."""
        if self._connection is not None:
            engine = self._connection.engine
            try:
                self._connection.close()
            except SQLAlchemyError as error:
                # the database rolls back what a lost connection had open
                logger.warning("connector %s: closing the database: %s", self._config.name, error)
            engine.dispose()
            self._connection = None

    def _changes(
        self, batches: Sequence[SinkBatch], rejections: list[Rejection]
    ) -> tuple[list[_Change], int]:
        changes = []
        skipped = 0
        make_row, make_key = self._rows.row, self._rows.key_row
        for batch in batches:
            for i, (key, value) in enumerate(zip(batch.keys, batch.values, strict=True)):
                try:
                    if value is not None:
                        changes.append(_Change(make_row(key, value), False, batch, i))
                    elif self._delete is not None:
                        changes.append(_Change(make_key(key), True, batch, i))
                    else:
                        skipped += 1
                except BadRecordError as error:
                    rejections.append(batch.rejection(i, error))
        return changes, skipped

    def _apply(
        self, connection: Connection, changes: Sequence[_Change], rejections: list[Rejection]
    ) -> None:
        """Apply all changes, or, when the database refuses some, halve until they are found."""
        if not changes:
            return
        try:
            with connection.begin_nested():
                self._execute(connection, changes)
        except SQLAlchemyError as error:
            if not is_row_fault(error):
                raise
            if len(changes) == 1:
                change = changes[0]
                reason = BadRecordError(f"the database refuses it: {_cause(error)}")
                rejections.append(change.batch.rejection(change.at, reason))
                return
            middle = len(changes) // 2
            self._apply(connection, changes[:middle], rejections)
            self._apply(connection, changes[middle:], rejections)

    def _execute(self, connection: Connection, changes: Sequence[_Change]) -> None:
        if self._config.mode == "upsert":
            # Only the last change of a row counts, and no statement may touch a row twice.
            changes = list({self._rows.identity(change.row): change for change in changes}.values())
        deleted = [
            {f"pk_{name}": value for name, value in change.row.items()}
            for change in changes
            if change.deletes
        ]
        if deleted and self._delete is not None:
            self._run(connection, self._delete, deleted)
        self._run(
            connection, self._insert, [change.row for change in changes if not change.deletes]
        )

    def _run(
        self, connection: Connection, statement: Executable, rows: Sequence[dict[str, Any]]
    ) -> None:
        size = self._config.batch_size
        for start in range(0, len(rows), size):
            connection.execute(statement, rows[start : start + size])


def _cause(error: SQLAlchemyError) -> str:
    cause = getattr(error, "orig", None) or error
    return f"{type(cause).__name__}: {cause}"
