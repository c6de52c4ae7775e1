"""From lines to CSV rows (RFC 4180), with the lines each row was made of.

A quoted field may run over several lines. When it does not end where it should, only the line it
began in is refused, and reading goes on with the next line: one stray quote costs one row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Container
from dataclasses import dataclass, field

from millstream.connect import BadRecordError
from millstream.log import RecordTooLargeError

from .lines import LineReader

__all__ = ["ScannedRows", "scan_rows"]

_UNENDED_QUOTE = "unexpected end of data"
"""What the csv module says when its input ends inside a quoted field."""


@dataclass(slots=True)
class ScannedRows:
    """Rows, or the reason why one is refused, made of lines `starts[i]` to `stops[i]`.

    `lines_count` lines were looked at, those of blank rows included; 0 when more is needed.
    """

    rows: list[list[str] | Exception] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    stops: list[int] = field(default_factory=list)
    lines_count: int = 0

    def add(self, row: list[str] | Exception, start: int, stop: int) -> None:
        """One more row."""
        self.rows.append(row)
        self.starts.append(start)
        self.stops.append(stop)
        self.lines_count = stop


def scan_rows(
    lines: LineReader, delimiter: str, lines_max: int, size_bytes_max: int
) -> ScannedRows:
    """The rows in the first `lines_max` lines at hand; more lines are read only to end a first
    row.
    """
    if csv.field_size_limit() < size_bytes_max:
        # the module's own limit is one number for the whole process, so it is only ever raised
        csv.field_size_limit(size_bytes_max)
    scanned = ScannedRows()
    if lines.regular_count() == 0:
        _refuse_long_line(lines, scanned, size_bytes_max)
        return scanned
    stop = min(lines_max, lines.regular_count())
    while scanned.lines_count < stop:
        if _scan(lines, delimiter, stop, scanned):
            continue
        if scanned.lines_count > 0:
            return scanned  # the row that is not complete comes first next time
        more = _more_lines(lines, stop, size_bytes_max)
        if more > stop:
            stop = more
        elif lines.may_grow and more == stop:
            return scanned
        else:
            reason = "a quoted field is not closed"
            scanned.add(BadRecordError(reason), 0, 1)
    return scanned


def _refuse_long_line(lines: LineReader, scanned: ScannedRows, size_bytes_max: int) -> None:
    error = RecordTooLargeError(
        f"the line is {lines.too_long(0)} bytes long, and max.message.bytes of the topic is "
        f"{size_bytes_max}; raise it, or shorten the line"
    )
    scanned.add(error, 0, 1)


def _more_lines(lines: LineReader, stop: int, size_bytes_max: int) -> int:
    """How many lines to look at for a first row that `stop` lines do not end.

    `stop` itself when the file has no more, 0 when the row is too large already.
    """
    if lines.position_after(stop) - lines.position > size_bytes_max:
        return 0
    if stop == len(lines.lines):
        lines.fill()
    if stop == lines.regular_count() < len(lines.lines):
        return 0
    return min(2 * stop, lines.regular_count())


def _scan(lines: LineReader, delimiter: str, stop: int, scanned: ScannedRows) -> bool:
    """Add rows from behind those already there; False when the last one is not complete."""
    first = scanned.lines_count
    block = b"\n".join(lines.lines[first:stop]) + b"\n"
    not_utf8: Container[int] = ()
    try:
        text = block.decode()
    except UnicodeDecodeError:
        text = block.decode(errors="replace")
        not_utf8 = _lines_not_utf8(lines, first, stop)
    reader = csv.reader(io.StringIO(text, newline="\n"), delimiter=delimiter, strict=True)
    start = first
    while start < stop:
        row: list[str] | Exception
        try:
            row = next(reader)
        except csv.Error as error:
            if str(error) == _UNENDED_QUOTE:
                return False
            row = BadRecordError(f"not a CSV row: {error}")
        end = first + reader.line_num
        if not_utf8:
            row = _check_utf8(lines, start, end, not_utf8, row)
        if isinstance(row, BadRecordError) and end > start + 1:
            scanned.add(row, start, start + 1)
            return True  # again from the next line: this quote ended somewhere it should not
        if row:
            scanned.add(row, start, end)
        scanned.lines_count = start = end
    return True


def _lines_not_utf8(lines: LineReader, first: int, stop: int) -> set[int]:
    found = set()
    for i in range(first, stop):
        try:
            lines.lines[i].decode()
        except UnicodeDecodeError:
            found.add(i)
    return found


def _check_utf8(
    lines: LineReader, start: int, end: int, not_utf8: Container[int], row: list[str] | Exception
) -> list[str] | Exception:
    for i in range(start, end):
        if i in not_utf8:
            line = lines.lines[i]
            try:
                line.decode()
            except UnicodeDecodeError as fault:
                return BadRecordError(
                    f"not UTF-8: byte 0x{line[fault.start]:02x} at byte {fault.start} of the line"
                )
    return row
