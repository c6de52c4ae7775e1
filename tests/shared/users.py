"""Users of a log that is to be served."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

__all__ = ["add_user"]


def add_user(folder: Path, name: str, password: str) -> None:
    """By the command, as an operator does."""
    subprocess.run(
        [
            *(sys.executable, "-c", "from millstream.cli.main import main; main()"),
            *("users", "add", name, "--log", f"file:{folder}", "--password-file", "-"),
        ],
        input=password + "\n",
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
