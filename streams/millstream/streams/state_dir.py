"""Where the state of an app lies: one folder per store and partition.

    <state_dir>/<application id>/<store>/<partition>/

Named after stores, not after tasks: the number of a sub-topology may change with the app.

On a log that several processes may use, each worker has a folder of its own in it, `worker-0` and
so on, and a name that it finds there again: a worker that was killed is taken over by the next one
that starts, with its state and its transaction. A lock that ends with the process says who has
which.
"""

from __future__ import annotations

import fcntl
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TextIO

from .state import Backing, MemoryBacking, StateStoreError

__all__ = ["StateDirectory"]


class StateDirectory:
    """The state folder of one app, or memory when there is none."""

    def __init__(self, path: Path | None, *, is_shared: bool = False) -> None:
        self.path = path
        self._is_shared = is_shared

    @classmethod
    def of(cls, app_id: str, log_url: str, state_dir: Path | None) -> StateDirectory:
        """`state_dir/<app id>`; without `state_dir` beside a file: log, in `<its folder>-state`.

        A memory: log keeps state in memory: nothing there outlives the process. For logs elsewhere
        the state lies in `./millstream-state`.
        """
        scheme, _, rest = log_url.partition("?")[0].partition(":")
        if state_dir is None:
            if scheme == "memory":
                return cls(None)
            if scheme == "file":
                folder = Path(rest.removeprefix("//")).absolute()
                state_dir = folder.parent / f"{folder.name}-state"
            else:
                state_dir = Path("millstream-state")
        return cls(state_dir / app_id, is_shared=scheme not in {"file", "memory"})

    @contextmanager
    def claimed(self) -> Iterator[tuple[StateDirectory, str]]:
        """The part of one worker and the worker's name, which no other has meanwhile.

        Raises:
            StateStoreError: the folder cannot be written.
        """
        if self.path is None or not self._is_shared:
            yield self, "0"  # the log has one owner, and so has this
            return
        folder, file = _first_free(self.path)
        with file:
            yield StateDirectory(folder), _name_in(file)

    def backing(self, store: str, partition: int) -> Backing:
        """The committed part of a store.

        Raises:
            StateStoreError: it exists and cannot be opened.
        """
        if self.path is None:
            return MemoryBacking()
        from .state.rocks import RocksBacking

        return RocksBacking(str(self.path / store / str(partition)))

    def delete(self) -> None:
        """Remove the app's local state. Its changelogs, while they exist, hold it all."""
        if self.path is not None:
            from .state.removing import remove_folder

            remove_folder(str(self.path))


def _first_free(parent: Path) -> tuple[Path, TextIO]:
    """The first folder that no worker has, and the open file whose lock says so."""
    for number in count():
        folder = parent / f"worker-{number}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / "name").open("a+")
        except OSError as error:
            raise StateStoreError(
                f"{folder}: {error}. Let it be written, or choose another folder with state_dir=..."
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        return folder, file
    raise AssertionError("numbers do not end")


def _name_in(file: TextIO) -> str:
    file.seek(0)
    name = file.read()
    if not name:
        name = uuid.uuid4().hex
        file.write(name)
        file.flush()
    return name
