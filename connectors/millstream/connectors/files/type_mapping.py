"""From the text in a file to the values in a record, and to record timestamps.

Types are `str`, `int`, `float`, `bool` and `timestamp`; in Python the types themselves, and
`datetime` for `timestamp`. A timestamp becomes milliseconds since the Unix epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["ColumnType", "column_type", "convert_column", "event_time_ms", "parse_columns"]

ColumnType = str
"""`str`, `int`, `float`, `bool` or `timestamp`."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
"""JSON integers beyond 64 bits lose digits in most readers; they are refused instead."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_MS_PER_UNIT: Mapping[str, tuple[int, int]] = {"s": (1000, 1), "ms": (1, 1), "us": (1, 1000)}
_BOOLEANS = {"true": True, "t": True, "yes": True, "1": True} | {
    "false": False,
    "f": False,
    "no": False,
    "0": False,
}
_TYPES: dict[Any, ColumnType] = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    datetime: "timestamp",
}


def column_type(given: Any) -> ColumnType:
    """The type a setting names.

    Raises:
        ValueError: there is no such type.
    """
    if isinstance(given, str) and given in _TYPES.values():
        return given
    try:
        return _TYPES[given]
    except (KeyError, TypeError):
        raise ValueError(f"must be one of {', '.join(_TYPES.values())}, found {given!r}") from None


def parse_columns(given: Any) -> dict[str, ColumnType]:
    """The setting `columns`: a table of names and types, or names alone (all `str`).

    Raises:
        ValueError: with the names whose type is wrong.
    """
    if isinstance(given, str):
        given = [name.strip() for name in given.split(",")]
    if isinstance(given, Sequence):
        given = dict.fromkeys(given, "str")
    if not isinstance(given, Mapping):
        raise ValueError("must be a table of column names and types")  # noqa: TRY004
    columns: dict[str, ColumnType] = {}
    wrong: list[str] = []
    for name, type_given in given.items():
        try:
            columns[str(name)] = column_type(type_given)
        except ValueError as error:
            wrong.append(f"{name} {error}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return columns


def convert_column(kind: ColumnType, texts: Sequence[str], nulls: Collection[str]) -> list[Any]:
    """A column's texts as values; those in `nulls` as None.

    Raises:
        ValueError: some text is not of the type; which one, only the conversion one by one tells.
    """
    if kind == "str":
        return [None if text in nulls else text for text in texts]
    if kind == "int":
        return _integers(texts, nulls)
    convert = _CONVERTERS[kind]
    return [None if text in nulls else convert(text) for text in texts]


def _integers(texts: Sequence[str], nulls: Collection[str]) -> list[int | None]:
    given = [text for text in texts if text not in nulls]
    # int() also takes "1_000", " 7" and digits of other scripts: here those are faults in the data
    joined = "".join(given)
    if not joined.isascii() or "_" in joined or len(joined.split()) > 1 or joined != joined.strip():
        raise ValueError("not plain digits")
    found = [int(text) for text in given]
    if found and not INT64_MIN <= min(found) <= max(found) <= INT64_MAX:
        raise ValueError("beyond 64 bits")
    if len(found) == len(texts):
        return list(found)
    values = iter(found)
    return [None if text in nulls else next(values) for text in texts]


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value) or "_" in text:
        raise ValueError("not a finite number")  # JSON has no NaN and no infinity
    return value


def _boolean(text: str) -> bool:
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        raise ValueError("not true or false") from None


def _iso_ms(text: str) -> int:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MILLISECOND


_CONVERTERS: Mapping[ColumnType, Callable[[str], Any]] = {
    "float": _number,
    "bool": _boolean,
    "timestamp": _iso_ms,
}


def event_time_ms(value: Any, unit: str) -> int:
    """A field as a record timestamp: ISO 8601 text (UTC where it names no zone), or a number.

    Args:
        value: The field.
        unit: What a number, or text of digits, counts since the epoch: `s`, `ms` or `us`.

    Raises:
        ValueError: it is neither, or before 1970 (Kafka has no such timestamps).
    """
    timestamp: float | None = None
    if isinstance(value, str):
        try:
            timestamp = _iso_ms(value)
        except ValueError:
            value = _number_or_none(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        times, divided_by = _MS_PER_UNIT[unit]
        timestamp = value * times // divided_by
    if timestamp is None or not 0 <= timestamp <= INT64_MAX:
        raise ValueError("is not a time: ISO 8601, or a number since the epoch")
    return int(timestamp)


def _number_or_none(text: str) -> float | None:
    try:
        return int(text) if text.lstrip("-").isdigit() else _number(text)
    except ValueError:
        return None
