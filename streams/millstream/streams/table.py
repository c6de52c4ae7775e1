"""Tables: the last state of every key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .errors import TopologyError
from .graph import Flow
from .nodes import FinalNode
from .serde import windowed_serde
from .topology import StoreSpec

if TYPE_CHECKING:  # a table gives streams, and a stream tables
    from .stream import Stream
    from .topics import Topic

__all__ = ["Table"]

K = TypeVar("K")
V = TypeVar("V")


class Table(Generic[K, V]):
    """The result of a fold, or a topic read as a table. Its store bears its name.

    Keys of a windowed table are `Windowed`: a key in one window.
    """

    def __init__(self, flow: Flow, store: StoreSpec) -> None:
        self._flow = flow
        self.store = store

    @property
    def name(self) -> str:
        """The name of the table and its store."""
        return self.store.name

    def changes(self) -> Stream[K, V]:
        """Every update as a record: the key and its new state; null where it was deleted.

        The timestamp is that of the record that caused the update.
        """
        return _stream(self._windowed_flow())

    to_stream = changes

    def final(self) -> Stream[K, V]:
        """Each key of a window once, when the window closes; in the order of windows, then of keys.

        The timestamp is the last millisecond of the window (`end - 1`).

        Raises:
            TopologyError: the table has no windows, so nothing is ever final.
        """
        flow = self._windowed_flow()
        window = self.store.window
        if window is None:
            raise TopologyError(
                f"table {self.name!r} has no windows, so no result is ever final: "
                "use .changes(), or give the fold a window"
            )
        name = flow.graph.step_name(None, f"{self.name}-final")
        node = FinalNode(name=name, parents=(flow.node,))
        return _stream(flow.then(node, delay_ms=flow.delay_ms + window.grace_ms))

    def to(self, topic: Topic[Any, Any] | str) -> None:
        """Write every update to a topic: short for `.changes().to(topic)`."""
        self.changes().to(topic)

    def flow_for_join(self) -> Flow:
        """Where the table stands, for a join with it.

        Raises:
            TopologyError: a windowed table cannot be joined with: a key has no one state.
        """
        if self.store.window is not None:
            raise TopologyError(
                f"table {self.name!r} is windowed: join with its .final() or .changes() written "
                "to a topic and read as a table"
            )
        return self._flow

    def _windowed_flow(self) -> Flow:
        size_ms = self.store.window_size_ms
        if not size_ms:
            return self._flow
        key = windowed_serde(self.store.key_serde, size_ms)
        return replace(self._flow, key=key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def _stream(flow: Flow) -> Stream[Any, Any]:
    from .stream import Stream

    return Stream(flow)
