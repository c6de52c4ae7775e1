"""From records to rows: every value checked against its column before a database sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from millstream.connect import BadRecordError

from .config import ColumnSpec
from .type_mapping import Kind, fitted

__all__ = ["RowMaker", "TargetColumn"]

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """A column as it is in the table, and where its value comes from.

    `length` is the most characters it holds, where the table says.
    """

    spec: ColumnSpec
    kind: Kind | None
    nullable: bool
    length: int | None = None


class RowMaker:
    """Makes the row of a record; the record's key is looked at only when a column needs it."""

    def __init__(self, columns: Sequence[TargetColumn], pk: Sequence[str]) -> None:
        self._columns = [_plan(column) for column in columns]
        self._pk_columns = [plan for plan in self._columns if plan.name in pk]
        self._pk = tuple(pk)

    def row(self, key: Any, value: Any) -> Row:
        """The row of a record.

        Raises:
            BadRecordError: it does not fit; the message names the column and what was found.
        """
        if not isinstance(value, Mapping):
            raise BadRecordError(f"the value must be a JSON object, found {_shown(value)}")
        return _filled(self._columns, key, value)

    def key_row(self, key: Any) -> Row:
        """The primary key of a record without value. Raises BadRecordError."""
        return _filled(self._pk_columns, key, {})

    def identity(self, row: Row) -> tuple[Any, ...]:
        """What tells rows apart: the primary key."""
        return tuple(row[name] for name in self._pk)


@dataclass(frozen=True, slots=True)
class _Plan:
    name: str
    look_up: Callable[[Any, Mapping[str, Any]], Any]
    fit: Callable[[Any], Any]
    nullable: bool
    length: int | None
    origin: str


def _plan(column: TargetColumn) -> _Plan:
    spec = column.spec
    place = spec.field or f"value.{spec.name}"
    origin = "the record key" if place == "key" else f"field {place!r}"
    return _Plan(
        spec.name, _look_up(place), fitted(column.kind), column.nullable, column.length, origin
    )


def _look_up(place: str) -> Callable[[Any, Mapping[str, Any]], Any]:
    if place == "key":
        return lambda key, _value: _whole_key(key)
    if place.startswith("key."):
        key_field = place.removeprefix("key.")
        return lambda key, _value: _key_object(key).get(key_field)
    value_field = place.removeprefix("value.")
    return lambda _key, value: value.get(value_field)


def _filled(plans: Sequence[_Plan], key: Any, value: Mapping[str, Any]) -> Row:
    row: Row = {}
    for plan in plans:
        found = plan.look_up(key, value)
        if found is None:
            if not plan.nullable:
                raise BadRecordError(f"column {plan.name!r} must not be null; {plan.origin} is")
            row[plan.name] = None
            continue
        try:
            fit = plan.fit(found)
        except ValueError as needed:
            raise BadRecordError(
                f"column {plan.name!r} must be {needed}, found {_shown(found)}"
            ) from None
        if plan.length is not None and isinstance(fit, str) and len(fit) > plan.length:
            raise BadRecordError(
                f"column {plan.name!r} holds {plan.length} characters, found {len(fit)}"
            )
        row[plan.name] = fit
    return row


def _whole_key(key: Any) -> Any:
    if not isinstance(key, bytes):
        return key
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise BadRecordError(
            f"the record key is not UTF-8: byte 0x{key[error.start]:02x} at position {error.start}"
        ) from None


def _key_object(key: Any) -> Mapping[str, Any]:
    found = key
    if isinstance(key, bytes):
        try:
            found = orjson.loads(key)
        except orjson.JSONDecodeError as error:
            raise BadRecordError(f"the record key is not valid JSON: {error}") from None
    if not isinstance(found, Mapping):
        raise BadRecordError(f"the record key must be a JSON object, found {_shown(found)}")
    return found


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.80}"
