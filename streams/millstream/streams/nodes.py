"""The steps of a topology. Data only: `fuse` says how each runs, `build` how they hang together.

Few kinds, and everything of the DSL is made of them. A node knows its parents; children are found
when the topology is built. Nodes are compared by identity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .errors import OnError
from .functions import UserFunction
from .serde import Serde
from .topology import StoreSpec, TopicSpec
from .windows import WindowSpec

__all__ = [
    "AsyncNode",
    "BranchNode",
    "CountPartsNode",
    "FilterNode",
    "FinalNode",
    "FoldNode",
    "JoinNode",
    "KeyNode",
    "MapNode",
    "MergeNode",
    "Node",
    "PeekNode",
    "SinkNode",
    "SourceNode",
    "SplitNode",
    "TableNode",
    "ValueNode",
]


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """One step. `kind` is the word for it in messages and pictures."""

    name: str
    parents: tuple[Node, ...] = ()
    on_error: OnError | None = None
    """None: the app's."""

    @property
    def kind(self) -> str:
        return type(self).__name__.removesuffix("Node").lower()

    @property
    def functions(self) -> tuple[UserFunction, ...]:
        """The user functions it calls."""
        function: UserFunction | None = getattr(self, "function", None)
        return (function,) if function is not None else ()


@dataclass(frozen=True, eq=False, kw_only=True)
class SourceNode(Node):
    """Reads a topic."""

    topic: TopicSpec


@dataclass(frozen=True, eq=False, kw_only=True)
class SinkNode(Node):
    """Writes a topic; a repartition topic too."""

    topic: str
    key_serde: Serde[Any]
    value_serde: Serde[Any]
    windowed: bool = False
    """Keys are windowed: partitioned by the inner key."""
    partitions: int | None = None
    """Of a repartition topic, where the user asked for a number."""
    is_internal: bool = False
    """A repartition topic."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FilterNode(Node):
    """Passes on records for which the function answers `keep`."""

    function: UserFunction
    keep: bool = True


@dataclass(frozen=True, eq=False, kw_only=True)
class ValueNode(Node):
    """A new value, or many of them; the key stays."""

    function: UserFunction
    many: bool = False
    drop_none: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class MapNode(Node):
    """A new (key, value), or many of them."""

    function: UserFunction
    many: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class KeyNode(Node):
    """A new key; the value stays."""

    function: UserFunction


@dataclass(frozen=True, eq=False, kw_only=True)
class PeekNode(Node):
    """Shows the record to a function."""

    function: UserFunction


@dataclass(frozen=True, eq=False, kw_only=True)
class SplitNode(Node):
    """Sends each record to the branch whose function is the first to accept it."""

    predicates: tuple[UserFunction, ...]

    @property
    def functions(self) -> tuple[UserFunction, ...]:
        return self.predicates


@dataclass(frozen=True, eq=False, kw_only=True)
class BranchNode(Node):
    """One way out of a split: of predicate `index`, or of no predicate (index = their number)."""

    index: int


@dataclass(frozen=True, eq=False, kw_only=True)
class MergeNode(Node):
    """Passes on what any of its parents gives."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AsyncNode(Node):
    """As `ValueNode`, by an `async` function: up to `concurrency` at once, order kept."""

    function: UserFunction
    key_serde: Serde[Any]
    drop_none: bool
    concurrency: int | None
    """None: the app's."""

    @property
    def many(self) -> bool:
        return self.function.gives_many


@dataclass(frozen=True, eq=False, kw_only=True)
class FoldNode(Node):
    """Folds values into a state per key, or per key and window. Gives the new state.

    `how` "count" adds one, "sum" adds the value (partial counts), "reduce" starts with the first
    value, "aggregate" with `initial()`.
    """

    store: StoreSpec
    how: Literal["count", "sum", "reduce", "aggregate"]
    function: UserFunction | None = None
    initial: Callable[[], Any] | None = None
    constant_initial: bool = False
    """`initial()` is the same immutable value each time."""
    late_to: SinkNode | None = None

    @property
    def window(self) -> WindowSpec | None:
        return self.store.window


@dataclass(frozen=True, eq=False, kw_only=True)
class FinalNode(Node):
    """Gives each key of a window once, when the window closes. Its parent is a windowed fold."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TableNode(Node):
    """Keeps the last value per key; None deletes. Gives every change."""

    store: StoreSpec


@dataclass(frozen=True, eq=False, kw_only=True)
class JoinNode(Node):
    """Looks each record up in a table and gives what the joiner makes of both.

    `parents` are the stream and the table's node; for a global table only the stream, and `mapper`
    gives the key to look up.
    """

    function: UserFunction
    store: StoreSpec
    is_left: bool
    mapper: UserFunction | None = None

    @property
    def functions(self) -> tuple[UserFunction, ...]:
        return (self.function,) if self.mapper is None else (self.mapper, self.function)


@dataclass(frozen=True, eq=False, kw_only=True)
class CountPartsNode(Node):
    """Counts records per key until the next flush, and sends the counts to a repartition topic.

    Adding is associative, so the task behind the topic adds parts instead of ones and comes to the
    same sums, and each distinct key is serialised and sent once per commit instead of once per
    record. Only for counts without windows: what is late must not depend on when a commit happens.
    """

    sink: SinkNode
