"""Tables for people: drawn on a terminal, plain columns elsewhere; sizes and times one can read."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import click

__all__ = ["print_table", "size_text", "span_text", "time_text"]

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
SPANS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings; numbers to the right. "-" stands for what is not there."""
    cells = [["-" if cell is None else _cell(cell) for cell in row] for row in rows]
    is_number = [
        bool(cells) and all(row[i][:1].isdigit() or row[i] == "-" for row in cells)
        for i in range(len(columns))
    ]
    if sys.stdout is not None and sys.stdout.isatty():
        _draw(columns, cells, is_number)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in [list(columns), *cells]:
        line = "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        )
        click.echo(line.rstrip())


def _cell(cell: object) -> str:
    return str(cell) if not isinstance(cell, bool) else "yes" if cell else "no"


def _draw(columns: Sequence[str], cells: list[list[str]], is_number: list[bool]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name, right in zip(columns, is_number, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    Console().print(table)


def size_text(size_bytes: int) -> str:
    """Such as "512 B" or "1.5 MiB"."""
    size, unit = float(size_bytes), 0
    while size >= 1024 and unit + 1 < len(UNITS):
        size, unit = size / 1024, unit + 1
    return f"{size_bytes} B" if unit == 0 else f"{size:.1f} {UNITS[unit]}"


def span_text(span_ms: int) -> str:
    """Such as "250ms", "4s" or "2h 5m": the two largest units."""
    if span_ms < 1000:
        return f"{max(span_ms, 0)}ms"
    parts: list[str] = []
    for unit_ms, name in SPANS:
        if span_ms >= unit_ms and len(parts) < 2:
            parts.append(f"{span_ms // unit_ms}{name}")
            span_ms %= unit_ms
        elif parts:
            break
    return " ".join(parts)


def time_text(timestamp_ms: int) -> str:
    """ISO 8601 in UTC with milliseconds; "-" for -1, the number where no calendar reaches."""
    if timestamp_ms == -1:
        return "-"
    try:
        moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return str(timestamp_ms)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{timestamp_ms % 1000:03d}Z"
