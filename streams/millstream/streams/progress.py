"""How far a run is: a function that whoever started it may pass in."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "no_progress"]


class Progress(Protocol):
    """Told now and then; must return at once."""

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """`stage` is `restore`, `process`, `source NAME` or `sink NAME`; counts are records."""
        ...


def no_progress(stage: str, done: int, total: int | None) -> None:
    """For those who do not want to know."""
