"""Reading a table back, for those who show what a sink has written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import MetaData, Table, asc, desc, select
from sqlalchemy.exc import NoSuchTableError, SQLAlchemyError

from millstream.connect import FatalConnectError

from .database import explained, open_engine

__all__ = ["read_table"]


def read_table(
    url: str, table: str, *, order_by: Sequence[str] = (), limit: int | None = None
) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries. Blocks.

    Args:
        url: The database, as for `SqlSink`.
        table: The table.
        order_by: Columns to order by; a minus before the name turns the order round.
        limit: The most rows to return.

    Raises:
        FatalConnectError: the database cannot be opened, or has no such table.
        RetriableConnectError: it is busy.
    """
    engine = open_engine(url)
    schema, _, name = table.rpartition(".")
    try:
        with engine.connect() as connection:
            found = Table(name, MetaData(), schema=schema or None, autoload_with=connection)
            order = [
                desc(found.c[column[1:]]) if column.startswith("-") else asc(found.c[column])
                for column in order_by
            ]
            rows = connection.execute(select(found).order_by(*order).limit(limit))
            return [dict(row) for row in rows.mappings()]
    except NoSuchTableError as error:
        raise FatalConnectError(f"there is no table {table!r} in the database") from error
    except SQLAlchemyError as error:
        raise explained(error, f"reading table {table!r}") from error
    finally:
        engine.dispose()
