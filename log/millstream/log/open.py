"""`open_log`: from a URL to a log.

The engine is imported when a log is opened: who only wants the names in `millstream.log` (a command
that prints a topology, `--help`) need not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .clock import Clock
from .config import BrokerConfig, check_durability
from .errors import ConfigError
from .interface import Log
from .settings import SettingValue

if TYPE_CHECKING:
    from .broker.disk_threads import DiskThreads
    from .client.embedded_log import EmbeddedLog
    from .storage.files import Files

__all__ = ["folder_of", "open_log", "open_log_on"]

_MEMORY_FOLDER = "memory"


def open_log(
    url: str,
    *,
    durability: str | None = None,
    config: Mapping[str, SettingValue] | None = None,
) -> Log:
    """A log by URL, opened when it is entered:

        async with open_log("file:./data") as log:

    `file:DIR` is a log in that directory, which is made if it is not there; one process at a time
    may have it open. `memory:` is a log that is gone when it is closed, on the same code.
    `kafka://HOST:PORT,HOST:PORT?name=value` is a Kafka cluster or a Millstream server, with
    settings such as `security.protocol`.

    Args:
        url: as above; `file:DIR?durability=os` sets the durability too.
        durability: "fsync" (default): an acknowledged record survives a power cut. "os": it
            survives a killed process, not a power cut.
        config: broker settings under Kafka's names, such as `num.partitions`; of a cluster, how to
            reach it, like the options of its URL.

    Raises:
        ConfigError: no such kind of URL, or a wrong setting. Nothing was opened.
        LogLockedError: on entering; another process has the directory open.
        LogUnavailableError, LogTimeoutError, AuthenticationError: on entering; the cluster does not
            answer, or not to this user.
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "kafka" and rest:
        return _kafka_log(url, durability, config)
    path, _, query = rest.partition("?")
    shown = url.partition("?")[0]  # options may hold passwords, should the scheme be mistyped
    options = _options(shown, query)
    durability = options.pop("durability", None) if durability is None else durability
    if options:
        raise ConfigError(f"{shown}: unknown option {', '.join(options)}; there is durability.")
    settings = dict(config or {})
    if scheme == "memory" and colon and not path:
        from .storage.memory_files import MemoryFiles

        settings.setdefault("flush.threads", 0)
        return open_log_on(
            MemoryFiles(), _MEMORY_FOLDER, url=url, durability=durability, config=settings
        )
    folder = folder_of(url)
    if folder is not None:
        from .storage.files import RealFiles

        return open_log_on(
            RealFiles(), folder.rstrip("/") or "/", url=url, durability=durability, config=settings
        )
    raise ConfigError(
        f"{shown!r} is no log. Use file:DIR for a log in a directory, memory: for one that is gone "
        "when it is closed, or kafka://HOST:PORT for a cluster or a server."
    )


def _kafka_log(url: str, durability: str | None, config: Mapping[str, SettingValue] | None) -> Log:
    if durability is not None:
        raise ConfigError(
            f"{url.partition('?')[0]}: durability is the server's to say; leave it out here."
        )
    from .kafka.opening import kafka_log

    return kafka_log(url, config)


def folder_of(url: str) -> str | None:
    """The directory of a `file:` URL; None for any other."""
    scheme, _, rest = url.partition(":")
    folder = rest.partition("?")[0].removeprefix("//")
    return folder if scheme == "file" and folder else None


def open_log_on(
    files: Files,
    folder: str,
    *,
    url: str | None = None,
    durability: str | None = None,
    config: Mapping[str, SettingValue] | None = None,
    clock: Clock | None = None,
    threads: Callable[[int], DiskThreads] | None = None,
) -> EmbeddedLog:
    """A log in `folder` of any disk there is an object for, such as `testing.SimFiles`.

    `threads` makes what blocking disk work runs in; see `DiskThreads`.
    """
    from .client.embedded_log import EmbeddedLog

    return EmbeddedLog(
        url if url is not None else f"file:{folder}",
        files,
        folder,
        durability=check_durability(durability or "fsync"),
        config=BrokerConfig.parse(config),
        clock=clock,
        threads=threads,
    )


def _options(url: str, query: str) -> dict[str, str]:
    options = {}
    for part in query.split("&") if query else ():
        name, equals, value = part.partition("=")
        if not equals:
            raise ConfigError(f"{url}: {part!r} is no option; write durability=os.")
        options[name] = value
    return options
