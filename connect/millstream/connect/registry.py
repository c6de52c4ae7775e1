"""Finding a connector by the name a configuration gives it.

In this order: the built-in names; `package.module:Name` or `path/file.py:Name`; names that
installed packages register under the entry point group `millstream.connectors`. What is found is
a connector class, or a connector made of a function.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .api import Connector
from .config import ConnectorConfig
from .errors import ConfigFault, ConnectConfigError
from .functions import FunctionSink, FunctionSource

__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "create_connector", "find_connector"]

ENTRY_POINT_GROUP = "millstream.connectors"

BUILT_IN: Mapping[str, str] = {
    "files": "millstream.connectors.files:FileSource",
    "sql": "millstream.connectors.sql:SqlSink",
}
"""Names known without looking at what is installed: that look-up costs more than the connector."""

AnyConnector = Connector[ConnectorConfig]


def create_connector(name: str, connector: str, settings: Mapping[str, Any]) -> AnyConnector:
    """The connector `connector` names, called `name` and with these settings.

    Raises:
        ConnectConfigError: there is no such connector, or its settings are wrong.
    """
    try:
        found = find_connector(connector)
    except ValueError as error:
        raise ConnectConfigError([ConfigFault(name, "connector", str(error))]) from error
    if isinstance(found, type):
        return found(name, **settings)
    return found.configured(name, settings)


def find_connector(connector: str) -> type[AnyConnector] | FunctionSource | FunctionSink:
    """The class, or decorated function, a name stands for.

    Raises:
        ValueError: there is none; the message says what was tried.
    """
    target = BUILT_IN.get(connector)
    if target is not None:
        found = _load(target)
    elif ":" in connector:
        found = _load(connector)
    else:
        found = _load_entry_point(connector)
    if isinstance(found, (FunctionSource, FunctionSink)):
        return found
    if isinstance(found, type) and issubclass(found, Connector):
        return found
    raise ValueError(
        f"{connector!r} is {found!r:.80}, which is neither a connector class nor a function under "
        "@source or @sink"
    )


def _load(target: str) -> Any:
    module_name, _, attribute = target.rpartition(":")
    module = _load_file(module_name) if module_name.endswith(".py") else _import(module_name)
    try:
        return getattr(module, attribute)
    except AttributeError:
        raise ValueError(f"{module_name!r} has no {attribute!r}") from None


def _import(module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not module_name.startswith(error.name):
            raise
        raise ValueError(
            f"there is no module {module_name!r}; install it, or give the file: path/file.py:Name"
        ) from None


def _load_file(path: str) -> Any:
    file = Path(path).absolute()
    if not file.is_file():
        raise ValueError(f"there is no file {path!r}")
    # a name of its own: a file called numbers.py must not pass for the module `numbers`
    name = f"_connectors_{zlib.crc32(str(file).encode()):08x}_{file.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations of classes in it are looked up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_entry_point(connector: str) -> Any:
    import difflib
    from importlib.metadata import entry_points

    registered = {entry.name: entry for entry in entry_points(group=ENTRY_POINT_GROUP)}
    if connector in registered:
        return registered[connector].load()
    known = [*BUILT_IN, *registered]
    near = difflib.get_close_matches(connector, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"there is no connector {connector!r}{hint} Known: {', '.join(known)}; or name a class as "
        "package.module:Class"
    )
