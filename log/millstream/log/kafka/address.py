"""`kafka://HOST:PORT,HOST:PORT?name=value`: where a cluster is, and how to speak to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote

from millstream.log.errors import ConfigError
from millstream.log.settings import SettingValue

__all__ = ["KafkaAddress", "parse_address"]


class KafkaAddress(NamedTuple):
    """`url` has no options: they may hold passwords, and it is shown in messages."""

    url: str
    bootstrap_servers: str
    settings: Mapping[str, SettingValue]


def parse_address(url: str, config: Mapping[str, SettingValue] | None = None) -> KafkaAddress:
    """The parts of a URL; what `config` says goes before what its options say.

    Raises:
        ConfigError: there is no host, a port is no number, or an option has no value.
    """
    rest = url.removeprefix("kafka:").removeprefix("//")
    hosts, _, query = rest.partition("?")
    hosts = hosts.rstrip("/")
    shown = f"kafka://{hosts}"
    for host in hosts.split(","):
        _check_host(host, shown)
    settings: dict[str, SettingValue] = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise ConfigError(f"{shown}: {name!r} has no value. Write ?name=value&name=value.")
        settings[unquote(name)] = unquote(value)
    return KafkaAddress(shown, hosts, {**settings, **(config or {})})


def _check_host(text: str, shown: str) -> None:
    host, colon, port = text.rpartition(":")
    if text.endswith("]") or not colon:
        host, port = text, "9092"
    if not host or not port.isdigit() or not 0 < int(port) < 65536 or "@" in text or "/" in text:
        raise ConfigError(
            f"{shown}: {text!r} is no HOST:PORT. Write kafka://HOST:PORT[,HOST:PORT]?name=value; "
            "who you are goes into the options sasl.username and sasl.password."
        )
