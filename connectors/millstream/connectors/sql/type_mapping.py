"""Types of columns: what a JSON value must be to fit one, and what it becomes.

SQLite takes any value in any column, and other databases convert some silently; so a value is
checked here, before it comes to a database, and means the same in all of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

__all__ = ["KINDS", "Kind", "fitted", "kind_named"]

Kind = str
"""`str`, `int`, `float`, `bool`, `decimal`, `date`, `timestamp` or `json`."""

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_KIND_OF_TYPE: dict[Any, Kind] = {
    str: "str",
    int: "int",
    float: "float",
    bool: "bool",
    Decimal: "decimal",
    date: "date",
    datetime: "timestamp",
    dict: "json",
    list: "json",
}


def kind_named(given: Any) -> Kind:
    """The kind a setting names, as text or as a Python type.

    Raises:
        ValueError: there is none.
    """
    if isinstance(given, str) and given in KINDS:
        return given
    if isinstance(given, type) and given in _KIND_OF_TYPE:
        return _KIND_OF_TYPE[given]
    raise ValueError(f"type must be one of {', '.join(KINDS)}, found {given!r}")


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError("text")


def _integer(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        if INT64_MIN <= value <= INT64_MAX:
            return value
        raise ValueError("an integer of at most 64 bits")
    raise ValueError("an integer")


def _number(value: Any) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number):
            return number
    raise ValueError("a number")


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


def _decimal(value: Any) -> Decimal:
    if isinstance(value, (int, float, str, Decimal)) and not isinstance(value, bool):
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            number = Decimal("NaN")
        if number.is_finite():
            return number
    raise ValueError("a decimal number, as text or number")


def _date(value: Any) -> date:
    if isinstance(value, str):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise ValueError("a date like 2013-01-31")


def _timestamp(value: Any) -> datetime:
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _EPOCH + timedelta(milliseconds=value)
    except (ValueError, OverflowError):
        pass
    raise ValueError("a time: ISO 8601, or milliseconds since the epoch")


def _any(value: Any) -> Any:
    return value


_FITTERS: Mapping[Kind, Callable[[Any], Any]] = {
    "str": _text,
    "int": _integer,
    "float": _number,
    "bool": _boolean,
    "decimal": _decimal,
    "date": _date,
    "timestamp": _timestamp,
    "json": _any,
}
KINDS = tuple(_FITTERS)


def fitted(kind: Kind | None) -> Callable[[Any], Any]:
    """The function that makes a JSON value fit a column of this kind (None: takes what comes).

    It is not asked about None. It raises ValueError with what the value must be.
    """
    return _any if kind is None else _FITTERS[kind]
