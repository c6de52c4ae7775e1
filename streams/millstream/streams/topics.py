"""Handles of topics and global tables, as `app.topic` and `app.global_table` return them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from .graph import Flow, Graph
from .nodes import TableNode
from .topology import GlobalTableSpec, StoreSpec, TopicSpec

if TYPE_CHECKING:  # a topic gives tables and streams, which lead to topics
    from .table import Table

__all__ = ["GlobalTable", "Topic", "flow_of_topic", "table_of_topic"]

K = TypeVar("K")
V = TypeVar("V")


class Topic(Generic[K, V]):
    """A topic with the types of its keys and values."""

    def __init__(self, graph: Graph, spec: TopicSpec) -> None:
        self._graph = graph
        self.spec = spec

    @property
    def name(self) -> str:
        return self.spec.name

    def table(self, *, name: str | None = None) -> Table[K, V]:
        """The topic as a table: the last value of each key; a null value deletes."""
        return table_of_topic(self._graph, self, name)

    def __repr__(self) -> str:
        return f"Topic({self.name!r})"


class GlobalTable(Generic[K, V]):
    """A topic that every worker holds whole, to be looked into by any key."""

    def __init__(self, graph: Graph, spec: GlobalTableSpec) -> None:
        self._graph = graph
        self.spec = spec

    def __repr__(self) -> str:
        return f"GlobalTable({self.spec.store.name!r})"


def flow_of_topic(graph: Graph, topic: TopicSpec) -> Flow:
    """The records of a topic."""
    source = graph.source(topic)
    return Flow(graph, source, topic.key_serde, topic.value_serde, topic.name)


def table_of_topic(graph: Graph, topic: Topic[K, V], name: str | None) -> Table[K, V]:
    """See `App.table_of`."""
    from .table import Table

    flow = flow_of_topic(graph, topic.spec)
    chosen = graph.claim(name or topic.name, f"the table of topic {topic.name!r}")
    store = StoreSpec(chosen, "kv", flow.key, flow.value)
    node = TableNode(name=chosen, parents=(flow.node,), store=store)
    return Table(flow.then(node, anchor=chosen), store)
