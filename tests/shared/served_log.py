"""A log that is served by a process of its own, to be stopped, killed and started again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from shared.ports import free_ports

__all__ = ["ServedLog", "until"]

SETTINGS = {
    "group.initial.rebalance.delay.ms": 0,
    "group.min.session.timeout.ms": 500,
    "offsets.topic.num.partitions": 2,
    "transaction.state.log.num.partitions": 2,
}
"""Groups and transactions in a hurry."""


class ServedLog:
    """Enter it to start it. Started again it has the address it had."""

    def __init__(self, folder: Path, config: Mapping[str, object] | None = None) -> None:
        self.folder = folder
        self._settings = {**SETTINGS, **(config or {})}
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-c", "from millstream.cli.main import main; main()", "serve"),
                *("--data", str(self.folder), "--listen", self.address),
                *(f"--config={name}={value}" for name, value in self._settings.items()),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline()
        assert ready.startswith("serving"), "the server did not start"

    def kill(self) -> None:
        """SIGKILL: nothing is finished."""
        assert self._process is not None
        self._process.kill()
        self._end()

    def stop(self) -> None:
        """A clean stop."""
        assert self._process is not None
        self._process.terminate()
        self._end()

    def _end(self) -> None:
        assert self._process is not None
        self._process.wait(30)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.stop()


def until(happened: Callable[[], bool], *, within_s: float = 20.0) -> None:
    """Ask again until it is so; what is asked does the waiting, by polling a client."""
    end = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < end, "it did not happen in time"
