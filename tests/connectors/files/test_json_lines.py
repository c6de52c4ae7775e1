"""JSON Lines: lines go through untouched, bad ones are refused alone."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from millstream.connectors.files import FileSourceConfig
from millstream.connectors.files.json_lines import JsonLinesFormat
from millstream.connectors.files.lines import LineReader
from millstream.connectors.files.rows import ParsedRows


class Whole:
    growing = False

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self) -> bytes:
        data, self._data = self._data, b""
        return data

    def close(self) -> None: ...


def parse(data: bytes, limit: int = 1000, rows_max: int = 100, **more: Any) -> ParsedRows:
    given = {"path": "f.jsonl", "topic": "t", **more}
    lines = LineReader(Whole(data), position=0, line=0, size_bytes_max=limit, tail=False)
    assert lines.fill()
    while lines.fill():
        pass
    config = FileSourceConfig.from_settings("f", given)
    return JsonLinesFormat(config, limit).parse(lines, rows_max)


def test_json_is_handed_on_as_it_stands() -> None:
    line = b'{"n": 12345678901234567890123, "x": 1.10}'
    [value] = parse(line + b"\n").values
    assert orjson.dumps(value) == line
    assert parse(line, value_converter="bytes").values == [line]

    class Own:
        def to_log(self, data: Any) -> bytes | None:
            return None

        def from_log(self, data: bytes | None) -> Any:
            return None

    assert parse(b'{"n": 1}', value_converter=Own()).values == [{"n": 1}]


def test_blank_lines_mean_nothing_and_bad_lines_are_refused_alone() -> None:
    data = b'{"k":1}\n\n \r\n{"k":\n"\xff"\n{"k":2}\r\n[]\n3\n' + b'"' + b"x" * 50 + b'"\n{"k":4}'
    parsed = parse(data, limit=40)
    assert [orjson.loads(orjson.dumps(value)) for value in parsed.values] == [
        {"k": 1},
        {"k": 2},
        [],
        3,
    ]
    reasons = {row.start + 1: str(row.error) for row in parsed.refused}
    assert list(reasons) == [4, 5]
    assert "not valid JSON: unexpected end of data" in reasons[4]
    assert "not UTF-8: byte 0xff at byte 1 of the line" in reasons[5]
    assert parsed.lines_count == 8  # the line that is too long comes alone


def test_a_line_that_is_too_long_is_refused() -> None:
    parsed = parse(b'"' + b"x" * 50 + b'"\n{"k":4}', limit=40)
    assert parsed.lines_count == 1
    assert "the line is 52 bytes long" in str(parsed.refused[0].error)


def test_keys_and_event_times_come_from_fields() -> None:
    data = b'{"k":"a","t":5}\n{"t":6}\n{"k":null,"t":"1970-01-01"}\n{"k":"b","t":"x"}\n[1]\n{"k":1}'
    parsed = parse(data, key="k", timestamp="t", timestamp_unit="s")
    assert parsed.keys == ["a", None]
    assert parsed.timestamps == [5000, 0]
    assert [row.index for row in parsed.refused] == [1, 2, 2, 2]
    assert [str(row.error) for row in parsed.refused] == [
        "has no field 'k'",
        "field 't' is not a time: ISO 8601, or a number since the epoch, found 'x'",
        "has no field 'k'",
        "has no field 't'",
    ]


@pytest.mark.parametrize("rows_max", [1, 2, 3])
def test_no_more_rows_than_asked_for(rows_max: int) -> None:
    parsed = parse(b"1\n2\n3\n4\n", rows_max=rows_max)
    assert len(parsed.values) == rows_max == parsed.lines_count
