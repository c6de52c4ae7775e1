"""JSON Lines (jsonlines.org): one JSON value on each line; blank lines mean nothing."""

from __future__ import annotations

from typing import Any

import orjson

from millstream.connect import BadRecordError, BytesConverter, JsonConverter
from millstream.log import RecordTooLargeError

from .config import FileSourceConfig
from .lines import LineReader
from .rows import ParsedRows, RefusedRow
from .type_mapping import event_time_ms

__all__ = ["JsonLinesFormat"]


class JsonLinesFormat:
    """Checks each line, and hands its JSON on as it stands: no number loses a digit on the way."""

    def __init__(self, config: FileSourceConfig, size_bytes_max: int) -> None:
        self._key = config.key
        self._timestamp = config.timestamp
        self._unit = config.timestamp_unit
        self._size_bytes_max = size_bytes_max
        self._as_bytes = isinstance(config.value_converter, BytesConverter)
        self._as_json = isinstance(config.value_converter, JsonConverter)

    def parse(self, lines: LineReader, rows_max: int) -> ParsedRows:
        """See `Format.parse`."""
        parsed = ParsedRows(keys=[] if self._key is not None else None)
        parsed.timestamps = [] if self._timestamp is not None else None
        places: list[int] = []
        ordinals: list[int] = []
        for i, line in enumerate(lines.lines[: min(rows_max, lines.regular_count() or 1)]):
            parsed.lines_count = i + 1
            if not line or line.isspace():
                continue
            try:
                self._add(parsed, line, lines.too_long(i))
                places.append(i)
                ordinals.append(parsed.rows_count)
            except (BadRecordError, RecordTooLargeError) as error:
                parsed.refused.append(
                    RefusedRow(i, i + 1, len(parsed.values), parsed.rows_count, error)
                )
            parsed.rows_count += 1
        parsed.starts = places
        parsed.stops = [i + 1 for i in places]
        parsed.ordinals = ordinals
        return parsed

    def _add(self, parsed: ParsedRows, line: bytes, too_long: int | None) -> None:
        if too_long is not None:
            raise RecordTooLargeError(
                f"the line is {too_long} bytes long, and max.message.bytes of the topic is "
                f"{self._size_bytes_max}; raise it, or shorten the line"
            )
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise BadRecordError(_reason(line, error)) from None
        key = self._field(value, self._key) if self._key is not None else None
        timestamp = self._event_time(value) if self._timestamp is not None else 0
        parsed.values.append(
            line if self._as_bytes else orjson.Fragment(line) if self._as_json else value
        )
        if parsed.keys is not None:
            parsed.keys.append(key)
        if parsed.timestamps is not None:
            parsed.timestamps.append(timestamp)

    def _field(self, value: Any, name: str) -> Any:
        try:
            return value[name]
        except (KeyError, TypeError, IndexError):
            raise BadRecordError(f"has no field {name!r}") from None

    def _event_time(self, value: Any) -> int:
        assert self._timestamp is not None
        given = self._field(value, self._timestamp)
        try:
            return event_time_ms(given, self._unit)
        except ValueError as error:
            reason = f"field {self._timestamp!r} {error}, found {given!r:.80}"
            raise BadRecordError(reason) from None


def _reason(line: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as fault:
        return f"not UTF-8: byte 0x{line[fault.start]:02x} at byte {fault.start} of the line"
    return f"not valid JSON: {error.msg} at column {error.colno}"
