"""Shows how far a run is: bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ["ProgressDisplay"]

LINE_INTERVAL_S: Final = 5.0


class ProgressDisplay:
    """A `Progress` for people, on stderr. Use as a context manager."""

    def __init__(self) -> None:
        self._bars: Bars | None = None
        self._bar_of: dict[str, TaskID] = {}
        self._shown_s = time.monotonic()

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            self._bars = _new_bars()
            self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if self._bars is not None:
            if stage not in self._bar_of:
                self._bar_of[stage] = self._bars.add_task(stage, total=total)
            self._bars.update(self._bar_of[stage], completed=done, total=total)
        elif time.monotonic() - self._shown_s >= LINE_INTERVAL_S:
            self._shown_s = time.monotonic()
            of_total = "" if total is None else f" of {total:,}"
            print(f"{stage}: {done:,}{of_total} records", file=sys.stderr, flush=True)


def _new_bars() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("records"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )
