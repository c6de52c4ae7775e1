"""`millstream serve` as a process of its own, as a user starts it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ServeCommand", "serving"]


class ServeCommand:
    """A running `millstream serve`."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        command = [
            *(sys.executable, "-c", "from millstream.cli.main import main; main()"),
            *("serve", "--data", str(folder), "--listen", "127.0.0.1:0", *arguments),
        ]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.ready = self.process.stdout.readline()
        self.address = self.ready.strip().rpartition(" ")[2]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; answers the exit code."""
        self.process.send_signal(number)
        self.out, self.errors = self.process.communicate(timeout=30)
        return self.process.returncode


@contextmanager
def serving(folder: Path, *arguments: str, says: str = "(?!)") -> Iterator[ServeCommand]:
    """A server while the body runs; it must stop well and have said nothing on stderr, but for
    lines like `says`."""
    server = ServeCommand(folder, *arguments)
    try:
        assert server.ready, server.process.communicate()
        yield server
    finally:
        if server.process.poll() is None:
            code = server.stop()
            errors = [each for each in server.errors.splitlines() if not re.match(says, each)]
            assert (code, errors) == (0, []), (code, errors[:20])
