"""One entry of a dump as a line for people."""

from __future__ import annotations

from typing import Any

from .tables import time_text

__all__ = ["entry_text"]

TIMES = {"timestamp", "base_timestamp", "max_timestamp", "delete_horizon_ms"}


def entry_text(entry: dict[str, Any]) -> str:
    """`name: value` for each field; a line of a text file as it stands."""
    if set(entry) == {"line"}:
        return str(entry["line"])
    return "  ".join(f"{name}: {_text(name, value)}" for name, value in entry.items())


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name in TIMES and isinstance(value, int):
        return time_text(value)
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "{" + entry_text(value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_text("", each) for each in value) + "]"
    return str(value)
