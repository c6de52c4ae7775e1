"""Stream processing: apps of decorated functions over the topics of a Millstream log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .app import App
from .context import Context
from .errors import ProcessingError, SerdeError, StreamsError, TopologyError
from .serde import Serde
from .stream import Stream
from .table import Table
from .topics import GlobalTable, Topic
from .windows import Window, Windowed, hopping, tumbling

if TYPE_CHECKING:
    from .queries import UnknownStoreError
    from .run import RunResult, run_app
    from .testing import TestDriver

__all__ = [
    "App",
    "Context",
    "GlobalTable",
    "ProcessingError",
    "RunResult",
    "Serde",
    "SerdeError",
    "Stream",
    "StreamsError",
    "Table",
    "TestDriver",
    "Topic",
    "TopologyError",
    "UnknownStoreError",
    "Window",
    "Windowed",
    "hopping",
    "run_app",
    "tumbling",
]

_LATER = {
    "RunResult": "run",
    "TestDriver": "testing",
    "UnknownStoreError": "queries",
    "run_app": "run",
}
"""Names whose modules bring the runtime along: imported when they are used."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
