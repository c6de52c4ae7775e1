"""The table a sink writes to: created from the settings, or read from the database and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Date,
    DateTime,
    Double,
    Float,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    UniqueConstraint,
    inspect,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

from millstream.connect import FatalConnectError

from .config import ColumnSpec, SqlSinkConfig
from .rows import TargetColumn
from .type_mapping import Kind

__all__ = ["kind_of", "open_table", "target_columns"]

_KEY_TEXT_LENGTH = 255
"""MySQL needs a length for text in a primary key."""

_ALSO_FITS = {("int", "decimal"), ("int", "float"), ("float", "decimal"), ("date", "timestamp")}
"""(declared, in the table): values of the first go into a column of the second without loss."""


def _column_type(kind: Kind, *, in_key: bool) -> TypeEngine[Any]:
    types: dict[Kind, TypeEngine[Any]] = {
        "str": Text().with_variant(String(_KEY_TEXT_LENGTH), "mysql", "mariadb")
        if in_key
        else Text(),
        "int": BigInteger(),
        "float": Double(),
        "bool": Boolean(),
        "decimal": Numeric(38, 10),
        "date": Date(),
        "timestamp": DateTime(timezone=True).with_variant(
            mysql.DATETIME(fsp=3), "mysql", "mariadb"
        ),
        "json": JSON(none_as_null=True),
    }
    return types[kind]


def kind_of(column_type: TypeEngine[Any]) -> Kind | None:
    """The kind of a column that is there; None where any value may go in as it is."""
    for sql_type, kind in (
        (Boolean, "bool"),
        (Integer, "int"),
        (Float, "float"),
        (Numeric, "decimal"),
        (DateTime, "timestamp"),
        (Date, "date"),
        (JSON, "json"),
        (String, "str"),
    ):
        if isinstance(column_type, sql_type):
            return kind
    return None


def open_table(connection: Connection, config: SqlSinkConfig) -> Table:
    """The table, created first when it may be.

    Raises:
        FatalConnectError: it is not there, or does not fit the settings.
    """
    schema, _, name = config.table.rpartition(".")
    if not inspect(connection).has_table(name, schema=schema or None):
        if not config.auto_create or not config.columns:
            raise FatalConnectError(
                f"connector {config.name!r}: there is no table {config.table!r}; create it, or "
                "declare typed `columns` and set auto_create to true"
            )
        _declared_table(config, name, schema or None).create(connection)
    table = Table(name, MetaData(), schema=schema or None, autoload_with=connection)
    for column in table.columns:
        if isinstance(column.type, JSON):
            column.type.none_as_null = True  # no value is NULL, not the JSON text null
    _check_table(table, config, inspect(connection).get_unique_constraints(name, schema or None))
    return table


def _declared_table(config: SqlSinkConfig, name: str, schema: str | None) -> Table:
    columns = []
    for spec in config.columns:
        assert spec.kind is not None
        in_key = spec.name in config.pk
        columns.append(
            Column(
                spec.name,
                _column_type(spec.kind, in_key=in_key),
                primary_key=in_key,
                autoincrement=False,
                nullable=not in_key and spec.name not in config.required,
            )
        )
    return Table(name, MetaData(), *columns, schema=schema)


def _check_table(table: Table, config: SqlSinkConfig, unique: Sequence[Any]) -> None:
    specs = {spec.name: spec for spec in config.columns}
    found = ", ".join(column.name for column in table.columns)
    faults = [
        f"it has no column {name!r}, only {found}"
        for name in dict.fromkeys([*specs, *config.pk])
        if name not in table.columns
    ]
    for column in table.columns:
        faults += _column_faults(column, specs.get(column.name), writes_all=not specs)
    if config.mode == "upsert" and not _is_unique(table, config.pk, unique):
        key = ", ".join(config.pk)
        faults.append(f"upsert needs ({key}) to be its primary key or a unique constraint")
    if faults:
        raise FatalConnectError(
            f"connector {config.name!r}: table {config.table!r} does not fit the settings: "
            f"{'; '.join(faults)}. Change `columns` and `pk`, or the table."
        )


def _column_faults(column: Column[Any], spec: ColumnSpec | None, *, writes_all: bool) -> list[str]:
    found = kind_of(column.type)
    if spec is None:
        filled = column.nullable or column.server_default or column.computed or column.identity
        if writes_all or filled or column.primary_key:
            return []
        return [f"its column {column.name!r} must not be null, and nothing writes it"]
    declared = spec.kind
    if None in (declared, found) or declared == found or (declared, found) in _ALSO_FITS:
        return []
    return [f"its column {column.name!r} is {column.type}, not {declared}"]


def _is_unique(table: Table, pk: Sequence[str], unique: Sequence[Any]) -> bool:
    wanted = set(pk)
    if {column.name for column in table.primary_key} == wanted:
        return True
    names = [set(constraint["column_names"]) for constraint in unique]
    names += [
        {column.name for column in constraint.columns}
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint)
    ]
    names += [{column.name for column in index.columns} for index in table.indexes if index.unique]
    return wanted in names


def target_columns(table: Table, config: SqlSinkConfig) -> list[TargetColumn]:
    """The columns to write, with what the table knows of them."""
    specs = config.columns or tuple(ColumnSpec(column.name) for column in table.columns)
    targets = []
    for spec in specs:
        column = table.columns[spec.name]
        nullable = bool(column.nullable) and not (
            column.primary_key or spec.name in config.pk or spec.name in config.required
        )
        kind = kind_of(column.type)
        length = getattr(column.type, "length", None) if kind == "str" else None
        targets.append(TargetColumn(spec, kind or spec.kind, nullable, length))
    return targets
