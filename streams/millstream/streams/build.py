"""From the steps of an app to its topology: what hangs together, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .errors import TopologyError, check_policy
from .graph import Graph
from .nodes import CountPartsNode, FoldNode, JoinNode, Node, SinkNode, SourceNode, TableNode
from .topology import (
    CopartitionGroup,
    RepartitionTopic,
    StoreSpec,
    SubTopology,
    Topology,
)

__all__ = ["build", "sinks_of"]


def build(graph: Graph) -> Topology:
    """The topology of all steps.

    Raises:
        TopologyError: options were given to a decorator that decorates nothing, or a step's
            `on_error` is no policy.
    """
    for problem in graph.unused.values():
        raise TopologyError(problem)
    for node in graph.nodes:
        if node.on_error is not None:
            check_policy(f"step {node.name!r}: on_error", node.on_error)
    parts = _in_order([_Part(nodes) for nodes in _connected(graph.nodes)])
    ids = {id(part): number for number, part in enumerate(parts)}
    subtopologies = tuple(
        SubTopology(
            id=number,
            sources=part.sources,
            sinks=part.sinks,
            stores=part.stores,
            upstream=frozenset(ids[id(each)] for each in part.writers(parts)),
            global_tables=part.global_tables,
            nodes=tuple(part.nodes),
        )
        for number, part in enumerate(parts)
    )
    return Topology(
        app_id=graph.app_id,
        topics=dict(graph.topics),
        subtopologies=subtopologies,
        repartition_topics=tuple(_repartition_topics(graph.nodes)),
        global_tables=tuple(graph.global_tables.values()),
        copartitioned=tuple(_copartitioned(graph.nodes)),
    )


def sinks_of(node: Node) -> Iterator[SinkNode]:
    """The sinks a step is or writes by the way."""
    if isinstance(node, SinkNode):
        yield node
    elif isinstance(node, CountPartsNode):
        yield node.sink
    elif isinstance(node, FoldNode) and node.late_to is not None:
        yield node.late_to


class _Part:
    """The nodes of a sub-topology in the making."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = nodes
        self.sources = _unique(n.topic.name for n in nodes if isinstance(n, SourceNode))
        self.sinks = _unique(sink.topic for node in nodes for sink in sinks_of(node))
        self.stores: tuple[StoreSpec, ...] = tuple(
            node.store for node in nodes if isinstance(node, FoldNode | TableNode)
        )
        joins = [node for node in nodes if isinstance(node, JoinNode)]
        self.global_tables = _unique(n.store.name for n in joins if n.mapper is not None)

    def writers(self, parts: Iterable[_Part]) -> list[_Part]:
        """The parts that write what this one reads."""
        read = set(self.sources)
        return [part for part in parts if part is not self and read & set(part.sinks)]


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _connected(nodes: Sequence[Node]) -> list[list[Node]]:
    """The nodes in groups that are linked by parents; both in the order they were made."""
    group_of: dict[Node, list[Node]] = {}
    for node in nodes:
        merged = [node]
        for group in {id(group_of[each]): group_of[each] for each in node.parents}.values():
            merged = group + merged
        for each in merged:
            group_of[each] = merged
    position = {node: i for i, node in enumerate(nodes)}
    groups = {id(group): sorted(group, key=position.__getitem__) for group in group_of.values()}
    return sorted(groups.values(), key=lambda group: position[group[0]])


def _in_order(parts: list[_Part]) -> list[_Part]:
    """Upstream before downstream; where topics lead in a circle, the first made goes first."""
    ordered: list[_Part] = []
    waiting = list(parts)
    while waiting:
        free = [part for part in waiting if not part.writers(waiting)]
        ordered.append((free or waiting)[0])
        waiting.remove(ordered[-1])
    return ordered


def _repartition_topics(nodes: Iterable[Node]) -> Iterator[RepartitionTopic]:
    for node in nodes:
        for sink in sinks_of(node):
            if sink.is_internal:
                yield RepartitionTopic(sink.topic, sink.partitions)


def _copartitioned(nodes: Iterable[Node]) -> Iterator[CopartitionGroup]:
    """Steps that bring the records of one key together from several topics."""
    for node in nodes:
        is_join = isinstance(node, JoinNode) and node.mapper is None
        if is_join or isinstance(node, FoldNode):
            topics = _topics_above(node)
            if len(topics) > 1:
                yield CopartitionGroup(node.name, topics)


def _topics_above(node: Node) -> tuple[str, ...]:
    found: dict[Node, None] = {}
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found[current] = None
            waiting.extend(reversed(current.parents))
    return _unique(each.topic.name for each in found if isinstance(each, SourceNode))
