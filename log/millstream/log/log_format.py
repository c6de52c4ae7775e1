"""Log lines for a console or for a machine: what `millstream --log-format` switches on.

    text   2026-01-31T12:00:00.123Z info millstream.log segment rolled partition=orders-0 ...
    json   {"time": ..., "level": "info", "logger": "millstream.log", "event": "segment rolled",
            "message": ..., "partition": "orders-0", ...}

One line each, whatever the message holds. A line that is not an event (see events.py) has its
message as `event`.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from .errors import ConfigError

__all__ = ["FORMATS", "JsonLines", "TextLines", "write_log_lines"]

_RESERVED = frozenset({"time", "level", "logger", "event", "message", "error"})


class TextLines(logging.Formatter):
    """Time, level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_time(record)} {record.levelname.lower()} {record.name} {record.getMessage()}"
        if record.exc_info:
            line = f"{line} {self.formatException(record.exc_info)}"
        return line.replace("\n", "\\n")


class JsonLines(logging.Formatter):
    """One JSON object; the fields of an event are keys of it."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": getattr(record, "event", message),
            "message": message,
        }
        for name, value in getattr(record, "fields", {}).items():
            key = f"{name}_" if name in _RESERVED else name
            line[key] = value if type(value) in (int, float, bool, type(None)) else str(value)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


FORMATS: dict[str, type[logging.Formatter]] = {"text": TextLines, "json": JsonLines}


def write_log_lines(form: str, *, level: int = logging.INFO) -> logging.Handler:
    """Write the lines of all packages to standard error, in this form, from this level on.

    Returns:
        The handler, for who wants it gone again.

    Raises:
        ConfigError: no such form.
    """
    if form not in FORMATS:
        raise ConfigError(f"Log format {form!r}: it can be {' or '.join(FORMATS)}.")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATS[form]())
    logger = logging.getLogger("millstream")
    logger.addHandler(handler)
    logger.setLevel(level)
    logger.propagate = False
    return handler


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
