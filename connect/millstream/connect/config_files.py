"""Configuration files of `millstream connect`: TOML or JSON, one or several connectors each.

Three shapes mean the same; `connector` names what to run, everything else is a setting of it:

    name = "flights-file"          [[connector]]                  [flights-file]
    connector = "files"            name = "flights-file"          connector = "files"
    path = "flights.csv"           connector = "files"            path = "flights.csv"
                                   path = "flights.csv"

JSON files have the same shapes, and Kafka Connect's `{"name": ..., "config": {...}}`.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from .api import Connector
from .config import ConnectorConfig
from .errors import ConfigFault, ConnectConfigError
from .registry import create_connector

__all__ = ["connectors_in"]


def connectors_in(paths: Iterable[str]) -> list[Connector[ConnectorConfig]]:
    """Every connector of these files, ready to run.

    Raises:
        ConnectConfigError: with all faults of all files.
    """
    faults: list[ConfigFault] = []
    connectors: list[Connector[ConnectorConfig]] = []
    seen: dict[str, str] = {}
    for path in paths:
        for name, given in _entries(path, faults):
            if name in seen:
                reason = f"used twice, first in {seen[name]}; a connector's name is its identity"
                faults.append(ConfigFault(name, "name", reason, source=path))
                continue
            seen[name] = path
            try:
                connectors.append(_create(name, given))
            except ConnectConfigError as error:
                faults += [dataclasses.replace(fault, source=path) for fault in error.faults]
    if not connectors and not faults:
        faults.append(ConfigFault("", "connector", "there is no connector in these files"))
    if faults:
        raise ConnectConfigError(faults)
    return connectors


def _create(name: str, given: Mapping[str, Any]) -> Connector[ConnectorConfig]:
    settings = {key: value for key, value in given.items() if key not in ("name", "connector")}
    kind = given.get("connector", given.get("connector.class"))
    settings.pop("connector.class", None)
    if not isinstance(kind, str):
        reason = "required, and not given: files, sql, or package.module:Class"
        raise ConnectConfigError([ConfigFault(name, "connector", reason)])
    return create_connector(name, kind, settings)


def _entries(path: str, faults: list[ConfigFault]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, settings) of each connector in one file; what cannot be read becomes a fault."""
    try:
        content = _read(path)
    except OSError as error:
        faults.append(ConfigFault("", path, f"cannot be read: {error.strerror}"))
        return
    except ValueError as error:
        faults.append(ConfigFault("", path, f"is not valid: {error}"))
        return
    for name, given in _split(content, Path(path).stem):
        if isinstance(name, str) and isinstance(given, Mapping):
            yield name, given
        else:
            reason = "must be a table that describes a connector"
            faults.append(ConfigFault("", str(name), reason, repr(given), source=path))


def _read(path: str) -> dict[str, Any]:
    data = Path(path).read_bytes()
    content = orjson.loads(data) if path.endswith(".json") else tomllib.loads(data.decode())
    if not isinstance(content, dict):
        raise ValueError("a connector is a table of settings")  # noqa: TRY004 - the file is wrong
    return content


def _split(content: Mapping[str, Any], stem: str) -> Iterator[tuple[Any, Any]]:
    listed = content.get("connector")
    if isinstance(listed, list):
        for number, given in enumerate(listed, 1):
            name = given.get("name", f"{stem}-{number}") if isinstance(given, Mapping) else number
            yield name, given
    elif isinstance(listed, str) or "connector.class" in content:
        yield content.get("name", stem), content
    elif isinstance(content.get("config"), Mapping):
        yield content.get("name", stem), content["config"]
    else:
        yield from content.items()
