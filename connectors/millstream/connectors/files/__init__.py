"""Files as connectors."""

from __future__ import annotations

from .config import FileSourceConfig
from .source import FileSource

__all__ = ["FileSource", "FileSourceConfig"]
