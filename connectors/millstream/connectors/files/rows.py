"""What a format makes of lines: records in columns, rows it refuses, and the place of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, overload

from millstream.connect import Rejection, SourceOffset, SourcePartition

from .lines import LineReader

__all__ = ["FilePlace", "FilePlaces", "Format", "ParsedRows", "RefusedRow", "rejections_of"]


@dataclass(frozen=True, slots=True)
class FilePlace:
    """A place in a file, in front of a record.

    Args:
        record: How many records (also refused ones) come before it.
        line: How many lines come before it.
        position: How many unpacked bytes come before it.
    """

    record: int = 0
    line: int = 0
    position: int = 0

    def as_offset(self) -> SourceOffset:
        """As it is committed."""
        return {"record": self.record, "line": self.line, "position": self.position}


@dataclass(slots=True)
class RefusedRow:
    """A row that cannot be used: lines `start` to `stop`, after `index` good rows."""

    start: int
    stop: int
    index: int
    ordinal: int
    error: Exception


@dataclass(slots=True)
class ParsedRows:
    """Rows made of the first `lines_count` lines at hand.

    Row `i` of the columns is made of lines `starts[i]` to `stops[i]`, and is the `ordinals[i]`-th
    of all rows, refused ones included.
    """

    lines_count: int = 0
    rows_count: int = 0
    values: list[Any] = field(default_factory=list)
    keys: list[Any] | None = None
    timestamps: list[int] | None = None
    starts: Sequence[int] = ()
    stops: Sequence[int] = ()
    ordinals: Sequence[int] = ()
    refused: list[RefusedRow] = field(default_factory=list)


class Format(Protocol):
    """Turns lines into rows."""

    def parse(self, lines: LineReader, rows_max: int) -> ParsedRows:
        """At most `rows_max` rows of the lines at hand; it may ask for more lines, and takes
        none.
        """
        ...


class FilePlaces(Sequence[SourceOffset]):
    """Source offsets of a batch, made only when asked for, and the evidence for dead letters."""

    def __init__(
        self,
        base: FilePlace,
        taken: Sequence[bytes],
        parsed: ParsedRows,
        end_position: int,
    ) -> None:
        self._base = base
        self._lines = taken
        self._parsed = parsed
        self._end_position = end_position

    def place(self, record: int, lines_count: int) -> FilePlace:
        """The place in front of row `record` of the batch, behind its first `lines_count` lines."""
        position = self._end_position
        if lines_count < len(self._lines):
            before = sum(map(len, self._lines[:lines_count])) + lines_count
            position = self._base.position + before
        return FilePlace(self._base.record + record, self._base.line + lines_count, position)

    def __len__(self) -> int:
        return len(self._parsed.values)

    @overload
    def __getitem__(self, i: int) -> SourceOffset: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[SourceOffset]: ...
    def __getitem__(self, i: int | slice) -> SourceOffset | Sequence[SourceOffset]:
        if isinstance(i, slice):
            return [self[n] for n in range(*i.indices(len(self)))]
        parsed = self._parsed
        return self.place(parsed.ordinals[i] + 1, parsed.stops[i]).as_offset()

    def __iter__(self) -> Iterator[SourceOffset]:
        return (self[i] for i in range(len(self)))

    def start(self, i: int) -> SourceOffset:
        """Where record `i` begins."""
        return self.place(self._parsed.ordinals[i], self._parsed.starts[i]).as_offset()

    def raw(self, i: int) -> bytes:
        """The bytes of record `i`."""
        return self.raw_lines(self._parsed.starts[i], self._parsed.stops[i])

    def raw_lines(self, start: int, stop: int) -> bytes:
        """The bytes of these lines."""
        return b"\n".join(self._lines[start:stop])


def rejections_of(
    parsed: ParsedRows, places: FilePlaces, partition: SourcePartition
) -> list[Rejection]:
    """The refused rows as rejections, with the line each begins at (counted from 1)."""
    return [
        Rejection(
            row.error,
            "TASK_POLL",
            value=places.raw_lines(row.start, row.stop),
            source_partition=partition,
            source_offset=_seen_by_people(places.place(row.ordinal, row.start)),
            index=row.index,
        )
        for row in parsed.refused
    ]


def _seen_by_people(place: FilePlace) -> SourceOffset:
    return {"line": place.line + 1, "record": place.record + 1, "position": place.position}
