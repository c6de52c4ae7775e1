"""Rows: every value checked against its column, with a message that names the column."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from millstream.connect import BadRecordError
from millstream.connectors.sql.config import ColumnSpec
from millstream.connectors.sql.rows import RowMaker, TargetColumn
from millstream.connectors.sql.type_mapping import kind_named


def column(
    name: str,
    kind: str | None,
    *,
    field: str = "",
    nullable: bool = True,
    length: int | None = None,
) -> TargetColumn:
    return TargetColumn(ColumnSpec(name, kind, field), kind, nullable, length)


@pytest.mark.parametrize(
    ("kind", "value", "fit"),
    [
        ("str", "x", "x"),
        ("int", 2**63 - 1, 2**63 - 1),
        ("float", 3, 3.0),
        ("bool", False, False),
        ("decimal", "1.10", Decimal("1.10")),
        ("decimal", 3, Decimal(3)),
        ("date", "2013-01-31", date(2013, 1, 31)),
        ("timestamp", "2013-01-31T01:00:00+01:00", datetime(2013, 1, 31, tzinfo=UTC)),
        ("timestamp", 1359590400000, datetime(2013, 1, 31, tzinfo=UTC)),
        ("json", {"a": [1]}, {"a": [1]}),
        (None, b"as it comes", b"as it comes"),
    ],
)
def test_values_that_fit(kind: str | None, value: Any, fit: Any) -> None:
    row = RowMaker([column("c", kind)], []).row(None, {"c": value, "more": 1})
    assert row == {"c": fit}
    assert type(row["c"]) is type(fit)


@pytest.mark.parametrize(
    ("kind", "value", "needed"),
    [
        ("str", 5, "text, found int 5"),
        ("int", "5", "an integer, found str '5'"),
        ("int", 5.0, "an integer, found float 5.0"),
        ("int", True, "an integer, found bool True"),
        ("int", 2**63, "an integer of at most 64 bits"),
        ("float", "1", "a number"),
        ("bool", 1, "true or false"),
        ("decimal", "much", "a decimal number"),
        ("decimal", "NaN", "a decimal number"),
        ("date", "31.1.2013", "a date like 2013-01-31"),
        ("timestamp", "soon", "a time: ISO 8601"),
        ("timestamp", 10**30, "a time: ISO 8601"),
    ],
)
def test_values_that_do_not(kind: str, value: Any, needed: str) -> None:
    with pytest.raises(BadRecordError, match=f"column 'c' must be {needed}"):
        RowMaker([column("c", kind)], []).row(None, {"c": value})


def test_null_and_absent_are_the_same() -> None:
    maker = RowMaker([column("a", "str"), column("b", "int", nullable=False)], ["b"])
    assert maker.row(None, {"a": None, "b": 1}) == maker.row(None, {"b": 1}) == {"a": None, "b": 1}
    with pytest.raises(BadRecordError, match=r"column 'b' must not be null; field 'value.b' is"):
        maker.row(None, {"a": "x"})


def test_values_may_come_from_the_key() -> None:
    maker = RowMaker(
        [
            column("id", "str", field="key", nullable=False),
            column("v", "int", field="value.amount"),
            column("key", "int"),
        ],
        ["id"],
    )
    value = {"amount": 3, "key": 4}
    assert maker.row(b"k1", value) == {"id": "k1", "v": 3, "key": 4}
    assert maker.row("k1", value) == {"id": "k1", "v": 3, "key": 4}
    assert maker.key_row(b"k1") == {"id": "k1"}
    assert maker.identity(maker.row(b"k1", value)) == ("k1",)
    with pytest.raises(
        BadRecordError, match="the record key is not UTF-8: byte 0xff at position 1"
    ):
        maker.row(b"k\xff", value)
    with pytest.raises(BadRecordError, match="column 'id' must not be null; the record key is"):
        maker.row(None, value)


def test_values_may_come_from_fields_of_the_key() -> None:
    maker = RowMaker([column("id", "int", field="key.id")], ["id"])
    assert maker.row(b'{"id": 7}', {}) == maker.row({"id": 7}, {}) == {"id": 7}
    for key, reason in ((b"{", "is not valid JSON"), (b"[1]", "must be a JSON object, found list")):
        with pytest.raises(BadRecordError, match=reason):
            maker.row(key, {})


@pytest.mark.parametrize("value", [[1], "text", 3, True])
def test_a_value_must_be_an_object(value: Any) -> None:
    with pytest.raises(BadRecordError, match="the value must be a JSON object, found"):
        RowMaker([column("c", "int")], []).row(None, value)


def test_text_that_is_too_long_is_refused_here_though_sqlite_would_take_it() -> None:
    maker = RowMaker([column("c", "str", length=2)], [])
    assert maker.row(None, {"c": "ab"}) == {"c": "ab"}
    with pytest.raises(BadRecordError, match="column 'c' holds 2 characters, found 3"):
        maker.row(None, {"c": "abc"})


def test_kinds_are_named_by_text_or_type() -> None:
    assert kind_named("int") == kind_named(int) == "int"
    assert kind_named(dict) == kind_named(list) == "json"
    for wrong in ("integer", bytes, 3, None):
        with pytest.raises(ValueError, match="type must be one of str, int"):
            kind_named(wrong)
