"""Converters: both ways, and a clear reason for what they refuse."""

from __future__ import annotations

import contextlib
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.connect import BytesConverter, ConversionError, JsonConverter, StringConverter
from millstream.connect.converter import converter_for

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_json_comes_back_as_it_went(value: Any) -> None:
    converter = JsonConverter()
    assert converter.from_log(converter.to_log(value)) == value


@given(st.binary(max_size=40))
def test_no_bytes_make_a_converter_raise_anything_else(data: bytes) -> None:
    for converter in (JsonConverter(), StringConverter(), BytesConverter()):
        with contextlib.suppress(ConversionError):
            converter.from_log(data)


@pytest.mark.parametrize("converter", [JsonConverter(), StringConverter(), BytesConverter()])
def test_null_is_null(converter: Any) -> None:
    assert converter.to_log(None) is None
    assert converter.from_log(None) is None


@pytest.mark.parametrize(
    ("converter", "data", "reason"),
    [
        (JsonConverter(), b"{", "not valid JSON"),
        (JsonConverter(), b'"\xff"', "not UTF-8: byte 0xff at position 1"),
        (StringConverter(), b"ab\xfe", "not UTF-8: byte 0xfe at position 2"),
    ],
)
def test_unreadable_bytes_say_why(converter: Any, data: bytes, reason: str) -> None:
    with pytest.raises(ConversionError, match=reason):
        converter.from_log(data)


@pytest.mark.parametrize(
    ("converter", "value", "reason"),
    [
        (JsonConverter(), 2**70, "64-bit"),
        (JsonConverter(), object(), "cannot be written as JSON"),
        (StringConverter(), {"a": 1}, "must be text"),
        (StringConverter(), "\ud800", "UTF-8"),
        (BytesConverter(), "text", "must be bytes"),
    ],
)
def test_unwritable_values_say_why(converter: Any, value: Any, reason: str) -> None:
    with pytest.raises(ConversionError, match=reason):
        converter.to_log(value)


def test_json_text_goes_through_untouched() -> None:
    line = b'{"n": 123456789012345678901234567890.10}'
    assert JsonConverter().to_log(orjson.Fragment(line)) == line


def test_a_converter_is_named_by_text_type_or_itself() -> None:
    own = BytesConverter()
    assert converter_for(own) is own
    assert isinstance(converter_for("json"), JsonConverter)
    assert isinstance(converter_for(dict), JsonConverter)
    assert isinstance(converter_for(str), StringConverter)
    for wrong in ("jsn", 3, set):
        with pytest.raises(ValueError, match="must be one of json, string, bytes"):
            converter_for(wrong)
