"""Where to begin in a topic, as people write it: the beginning, the end, an offset, a time."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import click

from millstream.log.settings import LONG_MAX

__all__ = ["NUMBER", "Start", "parse_span", "parse_start", "parse_time"]

UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
NUMBER = re.compile(r"[0-9]{1,19}")
AGO = re.compile(r"([0-9]{1,15})\s*(ms|s|m|h|d|w)(\s+ago)?")
FORMS = (
    'beginning, end, an offset, or a time: ISO 8601, milliseconds as @1714564800000, or "2h ago"'
)


class Start(NamedTuple):
    """`value` is an offset, or milliseconds since the Unix epoch; 0 for beginning and end."""

    kind: Literal["beginning", "end", "offset", "time"]
    value: int = 0


def parse_start(text: str) -> Start:
    """Raises click.UsageError that names the forms there are."""
    if text == "beginning" or text == "end":
        return Start("beginning" if text == "beginning" else "end")
    if NUMBER.fullmatch(text):
        return Start("offset", int(text))
    timestamp = parse_time(text)
    if timestamp is None:
        raise click.UsageError(f"{text!r} is none of: {FORMS}.")
    return Start("time", timestamp)


def parse_time(text: str) -> int | None:
    """Milliseconds since the Unix epoch; None when it is no time, or none that 64 bits hold.

    ISO 8601 (UTC unless it says otherwise), `@` and milliseconds, or how long ago: `90s`, `2h ago`.
    """
    if text[:1] == "@" and NUMBER.fullmatch(text, 1):
        timestamp = int(text[1:])
        return timestamp if timestamp <= LONG_MAX else None
    ago = AGO.fullmatch(text.strip())
    if ago is not None:
        timestamp = time.time_ns() // 1_000_000 - int(ago[1]) * UNITS_MS[ago[2]]
        return timestamp if timestamp >= -LONG_MAX else None
    if not re.match(r"\d{4}-\d\d", text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def parse_span(option: str, text: str) -> int:
    """Milliseconds of a span such as `15m`. Raises click.UsageError."""
    span = AGO.fullmatch(text.strip())
    if span is None or span[3]:
        raise click.UsageError(f"{option} {text!r}: write a number and ms, s, m, h, d or w.")
    return int(span[1]) * UNITS_MS[span[2]]
