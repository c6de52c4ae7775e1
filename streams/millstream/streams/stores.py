"""What a task asks of a store. The state package gives stores that answer this.

Keys are serialised bytes, values are objects; None is never a value: in `overlay` it means deleted.
Generated code works on `overlay` and `windows` directly, for speed, so these are part of the
interface: plain dicts of what was written since the last commit. Their identity may change with a
commit, never while a task processes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

__all__ = ["KeyValueState", "Store", "WindowState"]


class KeyValueState(Protocol):
    """A key-value store as a task sees it."""

    overlay: dict[bytes, Any]

    def load(self, key: bytes) -> Any | None:
        """The value of a key of which `overlay.get(key)` is None.

        None when there is none, and also when the overlay says the key was deleted: generated code
        does not tell "not in the overlay" from "deleted there", this method does.
        """
        ...


class WindowState(Protocol):
    """A window store as a task sees it: for each window, by its start, keys and values."""

    windows: dict[int, dict[bytes, Any]]

    def open(self, start: int) -> dict[bytes, Any]:
        """The overlay of one window, made if there is none; also entered in `windows`."""
        ...

    def load(self, start: int, key: bytes) -> Any | None:
        """As `KeyValueState.load`, in the window that starts at `start`."""
        ...

    def starts(self) -> Iterable[int]:
        """Starts of all live windows, in the overlay or committed."""
        ...

    def items(self, start: int) -> Iterable[tuple[bytes, Any]]:
        """All keys and values of one window, overlay and committed merged."""
        ...

    def drop(self, start: int) -> None:
        """Forget a closed window."""
        ...


Store = KeyValueState | WindowState
