"""Finds the app that a command names: `path/app.py` or `package.module`, with `:name` if not
`app`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from .app import App
from .errors import StreamsError

__all__ = ["AppNotFoundError", "load_app"]


class AppNotFoundError(StreamsError):
    """APP names no app. The message says what was looked for and where."""


def load_app(reference: str) -> App:
    """Import the module and answer its app. The file's folder can be imported from, too.

    Raises:
        AppNotFoundError: no such file, module or name, or it is not an App.
    """
    where, name = _split(reference)
    module = _load_file(Path(where)) if where.endswith(".py") else _load_module(where)
    app = getattr(module, name, None)
    if isinstance(app, App):
        return app
    others = [key for key, value in vars(module).items() if isinstance(value, App)]
    hint = f"it has {', '.join(others)}: use {where}:{others[0]}" if others else "it has no App"
    raise AppNotFoundError(f"{where} has no App called {name!r}; {hint}")


def _split(reference: str) -> tuple[str, str]:
    where, colon, name = reference.rpartition(":")
    return (where, name) if colon and name.isidentifier() else (reference, "app")


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise AppNotFoundError(f"there is no file {path}")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    name = path.stem if path.stem not in sys.modules else f"{path.stem}@{path.resolve()}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise AppNotFoundError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    spec.loader.exec_module(module)
    return module


def _load_module(name: str) -> ModuleType:
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
            raise  # the module is there; something it imports is not
        raise AppNotFoundError(
            f"there is no module {name!r}; APP is path/app.py or package.module, with :name if the "
            "app is not called `app`"
        ) from error
