"""Everything Connect can raise, in one tree. An error is named after what its reader should do.

    MillstreamError
    └── ConnectError
        ├── ConnectConfigError       change the settings (all faults are reported at once)
        ├── RetriableConnectError    the other system is busy or away: the worker tries again
        ├── BadRecordError           one record cannot be used: dead letter, or mend the input
        │   └── ConversionError      its key or value is not what the converter expects
        └── FatalConnectError        the connector stops, nothing is lost: mend the cause, restart
            ├── ConnectorFencedError another worker runs this connector now: leave it to it
            └── ConnectorFailedError one or more connectors of a worker failed

`retriable` says whether the worker may try again by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from millstream.log import MillstreamError

__all__ = [
    "BadRecordError",
    "ConfigFault",
    "ConnectConfigError",
    "ConnectError",
    "ConnectorFailedError",
    "ConnectorFencedError",
    "ConversionError",
    "FatalConnectError",
    "RetriableConnectError",
]


class ConnectError(MillstreamError):
    """The root of every error Connect raises on purpose."""


@dataclass(frozen=True, slots=True)
class ConfigFault:
    """One thing wrong with one setting of one connector.

    `value` is shown as given, or as `***` where the setting is a secret. `near` holds names that
    look like an unknown one. `source` is the configuration file, where there is one.
    """

    connector: str
    field: str
    reason: str
    value: str | None = None
    near: tuple[str, ...] = ()
    source: str = ""

    def __str__(self) -> str:
        found = f", found {self.value}" if self.value is not None else ""
        names = " or ".join(repr(name) for name in self.near)
        hint = f"; did you mean {names}?" if names else ""
        return f"{self.field}: {self.reason}{found}{hint}"


class ConnectConfigError(ConnectError):
    """Settings of one or more connectors are wrong. `faults` holds all; nothing was started."""

    def __init__(self, faults: Iterable[ConfigFault]) -> None:
        self.faults: tuple[ConfigFault, ...] = tuple(faults)
        super().__init__(_describe(self.faults))


def _describe(faults: Sequence[ConfigFault]) -> str:
    groups: dict[tuple[str, str], list[ConfigFault]] = {}
    for fault in faults:
        groups.setdefault((fault.source, fault.connector), []).append(fault)
    lines = []
    for (source, connector), group in groups.items():
        where = f" in {source}" if source else ""
        who = f"connector {connector!r}" if connector else "configuration"
        count = "1 fault" if len(group) == 1 else f"{len(group)} faults"
        lines.append(f"{who}{where}: {count} in its settings")
        lines += [f"  {fault}" for fault in group]
    return "\n".join(lines)


class RetriableConnectError(ConnectError):
    """The other system cannot answer now. The worker starts the task again from what was committed.

    `retry_after_ms` is how long to wait at least; None leaves it to the worker's back-off.
    """

    retriable = True

    def __init__(self, message: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class BadRecordError(ConnectError):
    """One record cannot be used. It goes to the dead-letter topic, or stops the connector."""


class ConversionError(BadRecordError):
    """A key or a value is not what its converter expects."""


class FatalConnectError(ConnectError):
    """The connector cannot go on. What was delivered is committed; a restart goes on behind it."""


class ConnectorFencedError(FatalConnectError):
    """Another worker took this connector over. This one has written nothing since: stop it."""


class ConnectorFailedError(FatalConnectError):
    """Connectors of this worker failed; `names` says which, the message says why."""

    def __init__(self, message: str, *, names: Sequence[str]) -> None:
        super().__init__(message)
        self.names = tuple(names)
