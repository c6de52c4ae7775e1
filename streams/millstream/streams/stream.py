"""Streams: records, one after another, and the steps they can be put through.

Each method adds a step to the topology and gives the stream behind it; nothing runs. Functions get
the value, and may ask by parameter name for `key`, `window` and `ctx` too. What a method calls a
function with, and what it makes of the result, is all that tells the methods apart.

Types of results come from annotations of the functions, or from `value_type=` and `key_type=`; what
nobody says is JSON for values and str for keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from .errors import OnError, TopologyError
from .functions import UserFunction
from .graph import Flow, TypeHint
from .grouped import Grouped
from .hints import UNKNOWN, element_type, pair_types
from .joins import joined
from .nodes import (
    BranchNode,
    FilterNode,
    KeyNode,
    MapNode,
    MergeNode,
    PeekNode,
    SinkNode,
    SplitNode,
    ValueNode,
)
from .serde import serde_for
from .table import Table
from .topics import GlobalTable, Topic, flow_of_topic
from .value_step import value_node

__all__ = ["Stream"]

K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
R = TypeVar("R")
T = TypeVar("T")


class Stream(Generic[K, V]):
    """A stream of records with keys of type K and values of type V."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def filter(
        self,
        function: Callable[..., object],
        *,
        name: str | None = None,
        on_error: OnError | None = None,
    ) -> Stream[K, V]:
        """Keep the records for which the function answers something true."""
        return self._filter(function, True, name, on_error)

    def filter_not(
        self,
        function: Callable[..., object],
        *,
        name: str | None = None,
        on_error: OnError | None = None,
    ) -> Stream[K, V]:
        """Keep the records for which the function answers something false."""
        return self._filter(function, False, name, on_error)

    def map_values(
        self,
        function: Callable[..., R],
        *,
        name: str | None = None,
        value_type: TypeHint = None,
        on_error: OnError | None = None,
        concurrency: int | None = None,
    ) -> Stream[K, R]:
        """A new value for each record; None is a null value.

        The function may be async: then up to `concurrency` calls (the app's, if not given) run at
        once, and the results keep the order of the records.
        """
        flow = self._flow
        what = flow.function(function, "map_values", allow="async")
        if what.gives_many:
            raise TopologyError(f"map_values: {what.where} yields; use flat_map_values")
        chosen = flow.graph.step_name(name, "map_values", what)
        node = value_node(
            flow, what, chosen, drop_none=False, on_error=on_error, concurrency=concurrency
        )
        return Stream(flow.then(node, value=flow.value_serde(what, value_type)))

    def flat_map_values(
        self,
        function: Callable[..., Iterable[R]],
        *,
        name: str | None = None,
        value_type: TypeHint = None,
        on_error: OnError | None = None,
    ) -> Stream[K, R]:
        """Any number of new values for each record: what the function yields or returns."""
        flow = self._flow
        what = flow.function(function, "flat_map_values", allow="many")
        hint = element_type(what.result_type()) if value_type is None else value_type
        node = ValueNode(
            name=flow.graph.step_name(name, "flat_map_values", what),
            parents=(flow.node,),
            on_error=on_error,
            function=what,
            many=True,
        )
        return Stream(flow.then(node, value=serde_for(hint, Any)))

    def map(
        self,
        function: Callable[..., tuple[K2, R]],
        *,
        name: str | None = None,
        key_type: TypeHint = None,
        value_type: TypeHint = None,
        on_error: OnError | None = None,
    ) -> Stream[K2, R]:
        """A new key and value for each record: `function(value) -> (key, value)`."""
        return self._map(function, False, name, key_type, value_type, on_error)

    def flat_map(
        self,
        function: Callable[..., Iterable[tuple[K2, R]]],
        *,
        name: str | None = None,
        key_type: TypeHint = None,
        value_type: TypeHint = None,
        on_error: OnError | None = None,
    ) -> Stream[K2, R]:
        """Any number of new (key, value) pairs for each record."""
        return self._map(function, True, name, key_type, value_type, on_error)

    def key_by(
        self,
        function: Callable[..., K2],
        *,
        name: str | None = None,
        key_type: TypeHint = None,
        on_error: OnError | None = None,
    ) -> Stream[K2, V]:
        """A new key for each record. It moves to the partition of that key when that matters."""
        return Stream(self._key_by(function, "key_by", name, key_type, on_error)[0])

    def group_by(
        self,
        function: Callable[..., K2],
        *,
        name: str | None = None,
        key_type: TypeHint = None,
        on_error: OnError | None = None,
    ) -> Grouped[K2, V]:
        """Group by a new key: records go through a repartition topic to the partition of it."""
        return Grouped(*self._key_by(function, "group_by", name, key_type, on_error))

    def group_by_key(self) -> Grouped[K, V]:
        """Group by the key as it is; through a repartition topic only where it was changed."""
        return Grouped(self._flow, None)

    def repartition(
        self, *, name: str | None = None, partitions: int | None = None
    ) -> Stream[K, V]:
        """Send every record through an internal topic to the partition of its key.

        Args:
            partitions: of that topic; else as many as a join behind it needs, or as the input has.
        """
        chosen = self._flow.state_name(name, None, "repartition")
        return Stream(self._flow.repartitioned(chosen, partitions=partitions))

    def merge(self, *others: Stream[K, V]) -> Stream[K, V]:
        """The records of this stream and the others; the order within each is kept.

        Raises:
            TopologyError: the keys are of different types.
        """
        flow = self._flow
        flows = [flow, *(other._flow for other in others)]
        for other in flows:
            if other.key != flow.key:
                raise TopologyError(
                    f"merge brings together keys of type {flow.key.type_name} and "
                    f"{other.key.type_name}: make them the same with key_by first"
                )
        node = MergeNode(
            name=flow.graph.step_name(None, "merge"), parents=tuple(each.node for each in flows)
        )
        moved = any(each.moved for each in flows)
        return Stream(flow.then(node, moved=moved, delay_ms=max(each.delay_ms for each in flows)))

    def branch(self, *predicates: Callable[..., object]) -> tuple[Stream[K, V], ...]:
        """One stream for each predicate, and one for the rest.

        A record goes to the first that accepts it: `late, rest = flights.branch(is_late)`.
        """
        flow = self._flow
        functions = tuple(flow.function(each, "branch") for each in predicates)
        name = flow.graph.step_name(None, "branch")
        split = flow.then(SplitNode(name=name, parents=(flow.node,), predicates=functions))
        branches = []
        for i in range(len(functions) + 1):
            label = functions[i].name if i < len(functions) and functions[i].name else str(i)
            node = BranchNode(name=f"{name}-{label}", parents=(split.node,), index=i)
            branches.append(Stream[K, V](split.then(node)))
        return tuple(branches)

    def peek(
        self,
        function: Callable[..., object],
        *,
        name: str | None = None,
        on_error: OnError | None = None,
    ) -> Stream[K, V]:
        """Show each record to a function; what it returns is ignored."""
        flow = self._flow
        what = flow.function(function, "peek")
        node = PeekNode(
            name=flow.graph.step_name(name, "peek", what),
            parents=(flow.node,),
            on_error=on_error,
            function=what,
        )
        return Stream(flow.then(node))

    def print(self, label: str = "") -> Stream[K, V]:
        """Print each record to standard output."""
        shown = f"[{label or self._flow.anchor}]"

        def show(value: object, key: object) -> None:
            print(shown, key, value)

        return self.peek(show)

    def to(self, topic: Topic[Any, Any] | str) -> None:
        """Write each record to a topic: in the topic's types, for a bare name in the stream's."""
        self._to(topic)

    def through(self, topic: Topic[K, V] | str) -> Stream[K, V]:
        """Write each record to a topic, and go on with what is read from it."""
        sink = self._to(topic)
        graph = self._flow.graph
        spec = graph.topics[sink.topic]
        if spec.key_serde != sink.key_serde:
            raise TopologyError(
                f"through {spec.name!r}: windowed keys are written, but the topic is declared with "
                f"keys of type {spec.key_serde.type_name}; declare it with windowed_serde(...)"
            )
        return Stream(flow_of_topic(graph, spec))

    def join(
        self,
        table: Table[Any, T] | GlobalTable[Any, T],
        joiner: Callable[..., R],
        *,
        key: Callable[..., Any] | None = None,
        name: str | None = None,
        value_type: TypeHint = None,
        on_error: OnError | None = None,
    ) -> Stream[K, R]:
        """What `joiner(value, table_value)` makes of each record and its row; without row, nothing.

        The table is looked into as it is when the record is processed; its changes trigger nothing.
        The result has the record's key and timestamp.

        Args:
            key: for a global table: the key to look up, made from the value.
        """
        flow = joined(self._flow, table, joiner, key, name, value_type, on_error, is_left=False)
        return Stream(flow)

    def left_join(
        self,
        table: Table[Any, T] | GlobalTable[Any, T],
        joiner: Callable[..., R],
        *,
        key: Callable[..., Any] | None = None,
        name: str | None = None,
        value_type: TypeHint = None,
        on_error: OnError | None = None,
    ) -> Stream[K, R]:
        """As `join`, with None for the row where there is none."""
        flow = joined(self._flow, table, joiner, key, name, value_type, on_error, is_left=True)
        return Stream(flow)

    def _filter(
        self,
        function: Callable[..., object],
        keep: bool,
        name: str | None,
        on_error: OnError | None,
    ) -> Stream[K, V]:
        flow = self._flow
        what = flow.function(function, "filter")
        node = FilterNode(
            name=flow.graph.step_name(name, "filter", what),
            parents=(flow.node,),
            on_error=on_error,
            function=what,
            keep=keep,
        )
        return Stream(flow.then(node))

    def _map(
        self,
        function: Callable[..., Any],
        many: bool,
        name: str | None,
        key_type: TypeHint,
        value_type: TypeHint,
        on_error: OnError | None,
    ) -> Stream[Any, Any]:
        flow = self._flow
        role = "flat_map" if many else "map"
        what = flow.function(function, role, allow="many" if many else "plain")
        known = what.result_type() if key_type is None or value_type is None else UNKNOWN
        hints = pair_types(element_type(known) if many else known, f"{role}: {what.where}")
        node = MapNode(
            name=flow.graph.step_name(name, role, what),
            parents=(flow.node,),
            on_error=on_error,
            function=what,
            many=many,
        )
        key = serde_for(hints[0] if key_type is None else key_type, str)
        value = serde_for(hints[1] if value_type is None else value_type, Any)
        return Stream(flow.then(node, key=key, value=value, moved=True))

    def _key_by(
        self,
        function: Callable[..., Any],
        role: str,
        name: str | None,
        key_type: TypeHint,
        on_error: OnError | None,
    ) -> tuple[Flow, UserFunction]:
        flow = self._flow
        what = flow.function(function, role)
        node = KeyNode(
            name=flow.graph.step_name(name, role, what),
            parents=(flow.node,),
            on_error=on_error,
            function=what,
        )
        key = flow.key_serde(what, key_type)
        return flow.then(node, key=key, moved=True), what

    def _to(self, topic: Topic[Any, Any] | str) -> SinkNode:
        flow = self._flow
        written = topic if isinstance(topic, str) else topic.name
        name = flow.graph.step_name(None, f"to-{written}")
        node = flow.sink(written, name, parents=(flow.node,))
        flow.then(node)
        return node

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._flow.node.name!r})"
