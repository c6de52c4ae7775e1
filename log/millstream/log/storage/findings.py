"""What a look at a closed log finds: one value for each thing that is not as it should be."""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["Finding", "Severity", "error", "notice"]

Severity = Literal["error", "notice"]
"""An "error" is damage: stored bytes are not what was written, or files disagree. A "notice" is no
damage: something that a stop left behind and the next opening mends, or a file nobody needs."""


class Finding(NamedTuple):
    """One thing found, and what to do about it. `position` is a byte of the file, -1 when it is
    about the file as a whole."""

    severity: Severity
    path: str
    position: int
    what: str
    advice: str

    def __str__(self) -> str:
        where = self.path if self.position < 0 else f"{self.path} at position {self.position}"
        return f"{self.severity}: {where}: {self.what}. {self.advice}."


def error(path: str, position: int, what: str, advice: str) -> Finding:
    """Damage."""
    return Finding("error", path, position, what, advice)


def notice(path: str, what: str, advice: str) -> Finding:
    """No damage."""
    return Finding("notice", path, -1, what, advice)
