"""Databases as connectors, through SQLAlchemy, which is imported only when a database is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import ColumnSpec, SqlSinkConfig
from .sink import SqlSink

if TYPE_CHECKING:
    from .reading import read_table

__all__ = ["ColumnSpec", "SqlSink", "SqlSinkConfig", "read_table"]


def __getattr__(name: str) -> Any:
    if name == "read_table":
        from .reading import read_table

        return read_table
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
