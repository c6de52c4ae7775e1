"""Removing a folder of state, at once or not at all.

A process that is killed while it removes a database file by file would leave half of one, which no
start can open. So the folder gets another name first, in one step; what then is left under that
name means nothing.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["REMOVED", "remove_folder"]

REMOVED: Final = ".removed"
"""What is added to the name of a folder that is being removed."""


def remove_folder(path: str) -> None:
    """Remove the folder at `path` if there is one, and what an earlier removal left.

    Raises:
        OSError: it cannot be renamed; it is there as before.
    """
    removed = path + REMOVED
    shutil.rmtree(removed, ignore_errors=True)
    with suppress(FileNotFoundError):
        Path(path).rename(removed)
    shutil.rmtree(removed, ignore_errors=True)
