"""CSV rows as records: columns converted to their types, a column at a time.

Only when a column does not convert are its rows looked at one by one. A row that is refused costs
that row and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from millstream.connect import BadRecordError, FatalConnectError

from .config import FileSourceConfig
from .csv_scan import scan_rows
from .lines import LineReader
from .rows import ParsedRows, RefusedRow
from .type_mapping import ColumnType, convert_column, event_time_ms

__all__ = ["CsvFormat", "read_header"]

_TYPE_WORDS: Mapping[ColumnType, str] = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "timestamp": "an ISO 8601 time",
}


def read_header(
    lines: LineReader, path: str, config: FileSourceConfig, size_bytes_max: int
) -> list[str] | None:
    """Take the header row and return the names; None when the file does not have one yet.

    Raises:
        FatalConnectError: it is not a row of names, or lacks a column that is needed.
    """
    while lines.lines or lines.fill():
        scanned = scan_rows(lines, config.delimiter, 1, size_bytes_max)
        if not scanned.lines_count:
            return None
        lines.take(scanned.lines_count)
        if scanned.rows:
            row = scanned.rows[0]
            if isinstance(row, Exception):
                raise FatalConnectError(f"{path}: the header row cannot be read: {row}") from row
            _check_header(row, path, config)
            return row
    return None


def _check_header(names: Sequence[str], path: str, config: FileSourceConfig) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FatalConnectError(
            f"{path}: the header names {', '.join(twice)} more than once; rename a column"
        )
    needed = {**dict.fromkeys(config.columns, "columns")}
    for setting in ("key", "timestamp"):
        if getattr(config, setting) is not None:
            needed[getattr(config, setting)] = setting
    missing = [f"{name!r} ({setting})" for name, setting in needed.items() if name not in names]
    if missing:
        raise FatalConnectError(
            f"{path}: the header has no column {', '.join(missing)}; it has {', '.join(names)}. "
            "Mend the settings of the connector, or the file."
        )


class CsvFormat:
    """Rows of one file whose columns are known."""

    def __init__(self, config: FileSourceConfig, names: Sequence[str], size_bytes_max: int) -> None:
        self._names = tuple(names)
        self._types: list[ColumnType] = [config.columns.get(name, "str") for name in names]
        self._nulls = config.null
        self._delimiter = config.delimiter
        self._key = self._names.index(config.key) if config.key is not None else None
        self._timestamp = (
            self._names.index(config.timestamp) if config.timestamp is not None else None
        )
        self._unit = config.timestamp_unit
        self._size_bytes_max = size_bytes_max

    def parse(self, lines: LineReader, rows_max: int) -> ParsedRows:
        """See `Format.parse`."""
        scanned = scan_rows(lines, self._delimiter, rows_max, self._size_bytes_max)
        rows = scanned.rows
        faults = {i: fault for i, row in enumerate(rows) if (fault := self._misshapen(row))}
        try:
            parsed = self._convert([row for i, row in enumerate(rows) if i not in faults])
        except ValueError:
            faults = {i: fault for i, row in enumerate(rows) if (fault := self._fault(row))}
            parsed = self._convert([row for i, row in enumerate(rows) if i not in faults])
        good: Sequence[int] = range(len(rows))
        if faults:
            good = [i for i in good if i not in faults]
        parsed.lines_count = scanned.lines_count
        parsed.rows_count = len(rows)
        parsed.ordinals = good
        parsed.starts = [scanned.starts[i] for i in good]
        parsed.stops = [scanned.stops[i] for i in good]
        parsed.refused = [
            RefusedRow(scanned.starts[i], scanned.stops[i], i - before, i, fault)
            for before, (i, fault) in enumerate(faults.items())
        ]
        return parsed

    def _misshapen(self, row: list[str] | Exception) -> Exception | None:
        if isinstance(row, Exception):
            return row
        if len(row) == len(self._names):
            return None
        names = ", ".join(self._names)
        return BadRecordError(
            f"the row has {len(row)} fields instead of {len(self._names)} ({names})"
        )

    def _convert(self, rows: Sequence[Any]) -> ParsedRows:
        """The rows in columns. Raises ValueError when one of them has a fault."""
        if not rows:
            return ParsedRows()
        columns = [
            convert_column(kind, texts, self._nulls)
            for kind, texts in zip(self._types, zip(*rows, strict=True), strict=True)
        ]
        return ParsedRows(
            values=[dict(zip(self._names, row, strict=True)) for row in zip(*columns, strict=True)],
            keys=columns[self._key] if self._key is not None else None,
            timestamps=self._event_times(columns),
        )

    def _event_times(self, columns: Sequence[Sequence[Any]]) -> list[int] | None:
        if self._timestamp is None:
            return None
        # a column of type timestamp is in milliseconds already
        unit = "ms" if self._types[self._timestamp] == "timestamp" else self._unit
        return [event_time_ms(value, unit) for value in columns[self._timestamp]]

    def _fault(self, row: list[str] | Exception) -> Exception | None:
        """What is wrong with a row; None when it converts."""
        misshapen = self._misshapen(row)
        if misshapen is not None:
            return misshapen
        assert isinstance(row, list)
        for name, kind, text in zip(self._names, self._types, row, strict=True):
            try:
                convert_column(kind, [text], self._nulls)
            except ValueError:
                word = _TYPE_WORDS[kind]
                return BadRecordError(f"column {name!r} must be {word}, found {text!r:.80}")
        try:
            self._convert([row])
        except ValueError as error:
            assert self._timestamp is not None
            name, text = self._names[self._timestamp], row[self._timestamp]
            return BadRecordError(f"column {name!r} {error}, found {text!r:.80}")
        return None
