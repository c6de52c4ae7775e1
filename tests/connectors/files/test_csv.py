"""CSV: the rows the csv module reads from the whole text, at any batch size and any cut."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.connect import FatalConnectError
from millstream.connectors.files import FileSourceConfig
from millstream.connectors.files.csv_rows import CsvFormat, read_header
from millstream.connectors.files.lines import LineReader
from millstream.connectors.files.rows import FilePlace, FilePlaces

FIELD = st.text(st.sampled_from('ab,"\n\r é'), max_size=6)
SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=4)


class Pieces:
    growing = True

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.data = data
        self._sizes = sizes
        self._reads = 0

    def read(self) -> bytes:
        size = self._sizes[self._reads % len(self._sizes)]
        self._reads += 1
        piece, self.data = self.data[:size], self.data[size:]
        return piece

    def close(self) -> None: ...


def config(**more: Any) -> FileSourceConfig:
    return FileSourceConfig.from_settings("f", {"path": "f.csv", "topic": "t", **more})


class Result:
    """All rows of some bytes, good and refused, with their places."""

    def __init__(
        self, data: bytes, names: str, sizes: list[int], *, limit: int = 10_000, **more: Any
    ) -> None:
        self.data = data
        settings = config(batch_size=sizes[0], **more)
        parser = CsvFormat(settings, names.split(","), limit)
        lines = LineReader(
            Pieces(data, sizes), position=0, line=0, size_bytes_max=limit, tail=False
        )
        self.values: list[Any] = []
        self.raw: list[bytes] = []
        self.starts: list[dict[str, int]] = []
        self.offsets: list[dict[str, int]] = []
        self.refused: dict[int, str] = {}
        self.refused_raw: list[bytes] = []
        record = 0
        while lines.lines or lines.fill():
            base = FilePlace(record, lines.line, lines.position)
            parsed = parser.parse(lines, sizes[0])
            assert parsed.lines_count > 0
            places = FilePlaces(base, lines.take(parsed.lines_count), parsed, lines.position)
            self.values += parsed.values
            self.raw += [places.raw(i) for i in range(len(places))]
            self.starts += [dict(places.start(i)) for i in range(len(places))]
            self.offsets += [dict(offset) for offset in places]
            for row in parsed.refused:
                self.refused[base.line + row.start + 1] = str(row.error)
                self.refused_raw.append(places.raw_lines(row.start, row.stop))
            record += parsed.rows_count
        assert lines.position == len(data)


@given(st.lists(st.tuples(FIELD, FIELD), max_size=12), SIZES, st.sampled_from(["\n", "\r\n"]))
def test_what_a_csv_writer_writes_is_read(
    rows: list[tuple[str, str]], sizes: list[int], line_end: str
) -> None:
    text = io.StringIO()
    # the writer quotes a lone carriage return only where its own line end has one
    quoting = csv.QUOTE_ALL if line_end == "\n" else csv.QUOTE_MINIMAL
    csv.writer(text, lineterminator=line_end, quoting=quoting).writerows(rows)
    result = Result(text.getvalue().encode(), "a,b", sizes, null=[])
    assert [tuple(value.values()) for value in result.values] == rows
    assert result.refused == {}
    position = 0
    for number, (raw, start, after) in enumerate(
        zip(result.raw, result.starts, result.offsets, strict=True)
    ):
        assert start["position"] == position
        assert start["record"] == number
        assert start["line"] == result.data[:position].count(b"\n")
        assert result.data[position:].startswith(raw + b"\n")
        position += len(raw) + 1
        assert after == {
            "record": number + 1,
            "line": result.data[:position].count(b"\n"),
            "position": position,
        }


@given(st.lists(FIELD | st.just('"')).map("\n".join), SIZES)
def test_no_text_is_lost_or_loops(text: str, sizes: list[int]) -> None:
    """Every line is in exactly one row, good or refused, or blank."""
    result = Result(text.encode(), "a,b", sizes, null=[])
    kept = sorted(b"\n".join([*result.raw, *result.refused_raw]).split(b"\n"))
    assert [line for line in kept if line.strip(b"\r")] == sorted(
        line for line in text.encode().split(b"\n") if line.strip(b"\r")
    )


def test_one_bad_row_costs_one_row() -> None:
    data = (
        b"1,one\n"
        b"2,two,more\n"
        b"x,three\n"
        b"4\n"
        b"\n"
        b'5,"five\n'  # a quote that is never closed
        b"6,six\n"
        b'7,"se"ven\n'
        b"8,e\xffght\n"
        b"9,nine\rten\n"
        b'10,"ten\n still ten"\n'
        b"11,last"
    )
    for size in (1, 2, 3, 5, 100):
        result = Result(data, "n,text", [size, 7], columns={"n": int})
        assert [value["n"] for value in result.values] == [1, 6, 10, 11]
        assert result.values[2]["text"] == "ten\n still ten"
        assert result.refused == {
            2: "the row has 3 fields instead of 2 (n, text)",
            3: "column 'n' must be an integer, found 'x'",
            4: "the row has 1 fields instead of 2 (n, text)",
            6: "not a CSV row: ',' expected after '\"'",  # it ends at the quote in line 8
            8: "not a CSV row: ',' expected after '\"'",
            9: "not UTF-8: byte 0xff at byte 3 of the line",
            10: result.refused[10],
        }
        assert "new-line character" in result.refused[10]
        assert result.offsets[-1] == {"record": 11, "line": 13, "position": len(data)}
        assert [offset["record"] for offset in result.offsets] == [1, 6, 10, 11]
        assert [start["record"] for start in result.starts] == [0, 5, 9, 10]
        assert result.refused_raw[:2] == [b"2,two,more", b"x,three"]


def test_a_row_with_a_line_that_is_too_long() -> None:
    data = b"1,a\n2," + b"b" * 50 + b'\n3,"c\n' + b"d" * 50 + b'"\n4,e\n'
    result = Result(data, "n,text", [3, 9], limit=20)
    assert [value["n"] for value in result.values] == ["1", "4"]
    assert (
        "the line is 52 bytes long, and max.message.bytes of the topic is 20" in (result.refused[2])
    )
    assert "not closed" in result.refused[3]
    assert "the line is 51 bytes long" in result.refused[4]


def test_a_quoted_field_that_grows_beyond_the_limit_costs_its_first_line() -> None:
    data = b'1,"x\n' + b"2,b\n" * 100
    result = Result(data, "n,text", [5, 50], limit=100)
    assert len(result.values) == 100
    assert list(result.refused) == [1]


@pytest.mark.parametrize(("timestamp", "found"), [("soon", "'soon'"), ("", "''"), ("-5", "'-5'")])
def test_a_row_without_its_event_time_is_refused(timestamp: str, found: str) -> None:
    data = f"1,2013-01-01T00:00:00Z\n2,{timestamp}\n".encode()
    result = Result(data, "n,time", [10], timestamp="time")
    assert len(result.values) == 1
    assert "column 'time' is not a time" in result.refused[2]
    assert found in result.refused[2]


def test_nulls_keys_and_event_times() -> None:
    settings = config(
        null=["NA", "-"],
        key="k",
        timestamp="t",
        columns={"t": "timestamp", "v": float},
        timestamp_unit="s",
        delimiter=";",
    )
    lines = LineReader(
        Pieces(b"k;v;t\na;1.5;2013-01-01\nNA;-;2013-01-02\n", [100]),
        position=0,
        line=0,
        size_bytes_max=100,
        tail=False,
    )
    names = read_header(lines, "f.csv", settings, 100)
    assert names == ["k", "v", "t"]
    parsed = CsvFormat(settings, names, 100).parse(lines, 10)
    day = 86_400_000
    assert parsed.keys == ["a", None]
    assert parsed.timestamps == [1356998400000, 1356998400000 + day]
    assert parsed.values == [
        {"k": "a", "v": 1.5, "t": 1356998400000},
        {"k": None, "v": None, "t": 1356998400000 + day},
    ]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"a,b\n", r"no column 'k' \(key\), it has a, b|no column 'n' \(columns\), 'k' \(key\)"),
        (b"n,k,k\n", "names k more than once"),
        (b'"n"x,k\n', "the header row cannot be read"),
        (b"n,\xff\n", "the header row cannot be read: not UTF-8"),
    ],
)
def test_a_header_that_does_not_fit_stops_the_connector(header: bytes, reason: str) -> None:
    lines = LineReader(Pieces(header, [9]), position=0, line=0, size_bytes_max=99, tail=False)
    with pytest.raises(FatalConnectError, match=rf"dir/f.csv: .*{reason}"):
        read_header(lines, "dir/f.csv", config(columns={"n": int}, key="k"), 99)
