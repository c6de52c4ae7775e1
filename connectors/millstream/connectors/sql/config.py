"""Settings of the SQL sink."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from millstream.connect import Converter, SinkConfig, setting, settings
from millstream.connect.converter import converter_for

from .type_mapping import Kind, kind_named

__all__ = ["ColumnSpec", "SqlSinkConfig"]


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """One column to write.

    Args:
        name: The column.
        kind: Its type; None takes the type it has in the table.
        field: Where the value comes from: a field of the record value (`NAME` or `value.NAME`), the
            record key (`key`), or a field of it (`key.NAME`). Empty: the value's field of the
            column's name.
    """

    name: str
    kind: Kind | None = None
    field: str = ""

    @property
    def from_key(self) -> bool:
        """Whether the value comes from the record key."""
        return self.field == "key" or self.field.startswith("key.")


def _parse_columns(given: Any) -> tuple[ColumnSpec, ...]:
    if isinstance(given, str):
        given = [name.strip() for name in given.split(",")]
    if isinstance(given, Sequence):
        given = dict.fromkeys(given)
    if not isinstance(given, Mapping):
        raise ValueError("must be a table of column names and types")  # noqa: TRY004
    columns, wrong = [], []
    for name, declared in given.items():
        try:
            columns.append(_parse_column(str(name), declared))
        except ValueError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return tuple(columns)


def _parse_column(name: str, declared: Any) -> ColumnSpec:
    if declared is None:
        return ColumnSpec(name)
    if not isinstance(declared, Mapping):
        return ColumnSpec(name, kind_named(declared))
    unknown = sorted(set(declared) - {"type", "field"})
    if unknown:
        raise ValueError(f"has type and field, not {', '.join(unknown)}")
    kind = kind_named(declared["type"]) if "type" in declared else None
    return ColumnSpec(name, kind, str(declared.get("field", "")))


@settings
class SqlSinkConfig(SinkConfig):
    """Settings of `SqlSink`, beside those every sink has."""

    url: str = setting(
        "The database as SQLAlchemy URL: `sqlite:///file.db`, `postgresql+psycopg://...`.",
        secret=True,
    )
    table: str = setting("The table to write to; `schema.table` where there are schemas.")
    columns: tuple[ColumnSpec, ...] = setting(
        "Columns and their types: str, int, float, bool, decimal, date, timestamp, json; or "
        '`{type = "str", field = "key.id"}`. Empty: all columns of the table that is there.',
        default=(),
        parse=_parse_columns,
        type_name="table",
    )
    pk: list[str] = setting("The columns of the primary key.", default=[], type_name="list of str")
    required: list[str] = setting(
        "Columns that must not be null, beside those of the primary key.",
        default=[],
        type_name="list of str",
    )
    mode: str = setting(
        "`upsert`: a row of the same key is replaced. `insert`: it is a fault.",
        default="upsert",
        choices=("upsert", "insert"),
    )
    auto_create: bool = setting("Create the table when it is not there.", default=True)
    delete_enabled: bool = setting(
        "A record without value deletes the row of its key; otherwise it is skipped.",
        default=False,
    )
    batch_size: int = setting("The most rows in one statement.", default=1000, minimum=1)
    offsets_table: str = setting(
        "The table that holds, in the same database, how far each partition is delivered.",
        default="millstream_offsets",
    )
    key_converter: Converter = setting(
        "How record keys are read: json, string, bytes. By default as the columns need it.",
        default="bytes",
        parse=converter_for,
        type_name="converter",
    )

    def faults(self) -> Iterator[tuple[str, str]]:
        """See `ConnectorConfig.faults`."""
        yield from super().faults()
        if "://" not in self.url:
            yield "url", "must be a URL like sqlite:///file.db"
        names = [column.name for column in self.columns]
        for setting_name in ("pk", "required"):
            for name in getattr(self, setting_name):
                if names and name not in names:
                    yield setting_name, f"{name!r} is not one of the columns: {', '.join(names)}"
        if self.mode == "upsert" and not self.pk:
            yield "pk", "is needed for mode upsert: it says which row a record replaces"
        if self.auto_create and not all(column.kind for column in self.columns):
            yield "columns", "each needs a type, or set auto_create to false"
        if self.delete_enabled:
            yield from self._delete_faults()

    def _delete_faults(self) -> Iterator[tuple[str, str]]:
        if self.mode != "upsert":
            yield "delete_enabled", "needs mode upsert"
        from_key = {column.name for column in self.columns if column.from_key}
        missing = [name for name in self.pk if name not in from_key]
        if missing:
            reason = (
                f"needs the whole primary key from the record key; {', '.join(missing)} is not: "
                'give it field = "key" or "key.NAME"'
            )
            yield "delete_enabled", reason
