"""The statements a sink runs, in the dialect of its database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Executable, Table, bindparam, delete
from sqlalchemy.dialects import mysql, postgresql, sqlite

from millstream.connect import FatalConnectError

__all__ = ["delete_statement", "upsert_statement"]


def upsert_statement(
    table: Table, names: Sequence[str], pk: Sequence[str], dialect: str
) -> Executable:
    """Insert rows, or replace the columns of the row with the same `pk`.

    Raises:
        FatalConnectError: this database has no upsert we know.
    """
    others = [name for name in names if name not in pk]
    if dialect in ("mysql", "mariadb"):
        given = mysql.insert(table)
        return given.on_duplicate_key_update({name: given.inserted[name] for name in others or pk})
    if dialect == "postgresql":
        return _on_conflict(postgresql.insert(table), others, pk)
    if dialect == "sqlite":
        return _on_conflict(sqlite.insert(table), others, pk)
    raise FatalConnectError(
        f"upsert is not known for {dialect}; use mode insert, or sqlite, postgresql or mysql"
    )


def _on_conflict(
    given: postgresql.Insert | sqlite.Insert, others: Sequence[str], pk: Sequence[str]
) -> Executable:
    if not others:
        return given.on_conflict_do_nothing(index_elements=list(pk))
    replaced = {name: given.excluded[name] for name in others}
    return given.on_conflict_do_update(index_elements=list(pk), set_=replaced)


def delete_statement(table: Table, pk: Sequence[str]) -> Executable:
    """Delete the row with this primary key; parameters are called `pk_NAME`."""
    return delete(table).where(*(table.columns[name] == bindparam(f"pk_{name}") for name in pk))
