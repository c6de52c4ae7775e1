"""Where the state of an app lies: one folder per store and partition.

    <state_dir>/<application id>/<store>/<partition>/

Named after stores, not after tasks: the number of a sub-topology may change with the app.
"""

from __future__ import annotations

from pathlib import Path

from .state import Backing, MemoryBacking

__all__ = ["StateDirectory"]


class StateDirectory:
    """The state folder of one app, or memory when there is none."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    @classmethod
    def of(cls, app_id: str, log_url: str, state_dir: Path | None) -> StateDirectory:
        """`state_dir/<app id>`; without `state_dir` beside a file: log, in `<its folder>-state`.

        A memory: log keeps state in memory: nothing there outlives the process. For logs elsewhere
        the state lies in `./millstream-state`.
        """
        if state_dir is None:
            scheme, _, rest = log_url.partition("?")[0].partition(":")
            if scheme == "memory":
                return cls(None)
            if scheme == "file":
                folder = Path(rest.removeprefix("//")).absolute()
                state_dir = folder.parent / f"{folder.name}-state"
            else:
                state_dir = Path("millstream-state")
        return cls(state_dir / app_id)

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
