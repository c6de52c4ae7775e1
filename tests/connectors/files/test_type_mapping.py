"""Types of CSV columns and times: what is taken, and what is a fault in the data."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.connectors.files.type_mapping import (
    convert_column,
    event_time_ms,
    parse_columns,
)

NULLS = frozenset({"NA", ""})


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
def test_integers_come_back(values: list[int | None]) -> None:
    texts = ["NA" if value is None else str(value) for value in values]
    assert convert_column("int", texts, NULLS) == values


@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False)))
def test_floats_come_back(values: list[float | None]) -> None:
    texts = ["" if value is None else repr(value) for value in values]
    assert convert_column("float", texts, NULLS) == values


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("str", "NA ", "NA "),
        ("str", "NA", None),
        ("int", "-0", 0),
        ("bool", "TRUE", True),
        ("bool", "f", False),
        ("timestamp", "2013-01-01T10:00:00Z", 1357034400000),
        ("timestamp", "2013-01-01T10:00:00.001+01:00", 1357030800001),
        ("timestamp", "2013-01-01", 1356998400000),
    ],
)
def test_values(kind: str, text: str, value: Any) -> None:
    assert convert_column(kind, [text], NULLS) == [value]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("int", "1_000"),
        ("int", " 7"),
        ("int", "7.0"),
        ("int", "\u0667"),
        ("int", "na"),
        ("int", str(2**63)),
        ("float", "nan"),
        ("float", "1e999"),
        ("float", "1_0.5"),
        ("bool", "maybe"),
        ("timestamp", "yesterday"),
    ],
)
def test_faults(kind: str, text: str) -> None:
    for texts in ([text], ["1", text], [text, "NA"]):
        with pytest.raises(ValueError):
            convert_column(kind, texts, NULLS)


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("2013-01-01T10:00:00Z", "s", 1357034400000),
        ("2013-01-01 10:00:00", "ms", 1357034400000),
        (1357034400000, "ms", 1357034400000),
        (1357034400.5, "s", 1357034400500),
        ("1357034400", "s", 1357034400000),
        (1357034400000999, "us", 1357034400000),
    ],
)
def test_event_times(value: Any, unit: str, expected: int) -> None:
    assert event_time_ms(value, unit) == expected


@pytest.mark.parametrize("value", [None, "", "soon", True, -5, [], "1969-12-31", float("inf")])
def test_what_is_no_event_time(value: Any) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        event_time_ms(value, "ms")


def test_columns_are_declared_in_python_or_in_text() -> None:
    expected = {"a": "int", "b": "str", "c": "timestamp"}
    assert parse_columns({"a": int, "b": str, "c": datetime}) == expected
    assert parse_columns({"a": "int", "b": "str", "c": "timestamp"}) == expected
    assert parse_columns("a, b") == parse_columns(["a", "b"]) == {"a": "str", "b": "str"}
    with pytest.raises(ValueError, match=r"a must be one of str.*found 'integer'.*b must be"):
        parse_columns({"a": "integer", "b": 3})
    assert datetime.fromtimestamp(1357034400, UTC).isoformat() == "2013-01-01T10:00:00+00:00"
