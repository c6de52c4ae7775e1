"""A topology as text for people, as a Mermaid flowchart, or as Kafka Streams prints it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .build import sinks_of
from .nodes import CountPartsNode, FoldNode, JoinNode, Node, SinkNode, SourceNode, TableNode
from .topology import StoreSpec, SubTopology, Topology, changelog_topic
from .windows import WindowSpec

__all__ = ["describe"]

_UNITS = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)]


def describe(topology: Topology, form: str = "text") -> str:
    """The sub-topologies with their steps, stores and topics.

    Args:
        form: `text`, `mermaid`, or `kafka` for the text of Kafka Streams' Topology.describe(),
            which its viewers read.
    """
    if form == "kafka":
        return "\n".join(_kafka(topology))
    return _mermaid(topology) if form == "mermaid" else _text(topology)


def _text(topology: Topology) -> str:
    lines = [f"app {topology.app_id}"]
    for table in topology.global_tables:
        lines += ["", f"global table {table.store.name} <- topic {table.topic.name}"]
    for subtopology in topology.subtopologies:
        lines += ["", f"sub-topology {subtopology.id}"]
        rows = [_row(node) for node in subtopology.nodes]
        kind_width = max((len(kind) for kind, _, _ in rows), default=0)
        name_width = max((len(name) for _, name, _ in rows), default=0)
        lines += [
            f"  {kind:{kind_width}}  {name:{name_width}}  {rest}".rstrip()
            for kind, name, rest in rows
        ]
        lines += [f"  store {_store(topology.app_id, store)}" for store in subtopology.stores]
    return "\n".join(lines)


def _row(node: Node) -> tuple[str, str, str]:
    rest = "" if not node.parents else "<- " + ", ".join(parent.name for parent in node.parents)
    if isinstance(node, SourceNode):
        rest = f"<- topic {node.topic.name}"
    elif isinstance(node, SinkNode):
        rest += f" -> topic {node.topic}"
    elif isinstance(node, CountPartsNode):
        rest += f" -> topic {node.sink.topic}"
    elif isinstance(node, JoinNode) and node.mapper is not None:
        rest += f", looks into {node.store.name}"
    return node.kind, node.name, rest


def _store(app_id: str, store: StoreSpec) -> str:
    window = "" if store.window is None else f" ({_window(store.window)})"
    changelog = f", changelog {changelog_topic(app_id, store.name)}" if store.logged else ""
    return f"{store.name}{window}{changelog}"


def _window(window: WindowSpec) -> str:
    every = "" if window.advance_ms == window.size_ms else f" every {_time(window.advance_ms)}"
    return f"windows of {_time(window.size_ms)}{every}, grace {_time(window.grace_ms)}"


def _time(duration_ms: int) -> str:
    for unit, size_ms in _UNITS:
        if duration_ms >= size_ms and duration_ms % size_ms == 0:
            return f"{duration_ms // size_ms}{unit}"
    return f"{duration_ms}ms"


def _mermaid(topology: Topology) -> str:
    picture = _Picture()
    for subtopology in topology.subtopologies:
        picture.add(subtopology)
    for table in topology.global_tables:
        picture.topic(table.topic.name)
    return "\n".join(["flowchart TD", *picture.lines, *picture.topics.values(), *picture.arrows])


class _Picture:
    """Gathers the lines of a flowchart; steps are numbered because names may be anything."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.arrows: list[str] = []
        self.topics: dict[str, str] = {}
        self._ids: dict[Node, str] = {}

    def topic(self, name: str) -> str:
        known = [*self.topics, name]
        ident = f"t{known.index(name)}"
        self.topics.setdefault(name, f'  {ident}[("{name}")]')
        return ident

    def add(self, subtopology: SubTopology) -> None:
        self.lines.append(f'  subgraph s{subtopology.id}["sub-topology {subtopology.id}"]')
        for node in subtopology.nodes:
            ident = self._ids[node] = f"n{len(self._ids)}"
            self.lines.append(f'    {ident}["{_label(node)}"]')
        self.lines.append("  end")
        for node in subtopology.nodes:
            ident = self._ids[node]
            self.arrows += [
                f"  {self._ids[parent]} --> {ident}"
                for parent in node.parents
                if parent in self._ids
            ]
            if isinstance(node, SourceNode):
                self.arrows.append(f"  {self.topic(node.topic.name)} --> {ident}")
            elif isinstance(node, SinkNode | CountPartsNode):
                sink = node if isinstance(node, SinkNode) else node.sink
                self.arrows.append(f"  {ident} --> {self.topic(sink.topic)}")


def _label(node: Node) -> str:
    return f"{node.kind} {node.name}".replace('"', "'")


def _kafka(topology: Topology) -> Iterator[str]:
    """Source: TopologyDescription.toString() of Kafka Streams: the first indent is one wider."""
    yield "Topologies:"
    indent = "   "
    for subtopology in topology.subtopologies:
        yield f"{indent}Sub-topology: {subtopology.id}"
        indent = "  "
        for node in subtopology.nodes:
            children = [each.name for each in subtopology.nodes if node in each.parents]
            yield from _kafka_node(node, children)
        yield ""
    for number, table in enumerate(topology.global_tables, len(topology.subtopologies)):
        yield f"{indent}Sub-topology: {number} for global store (will not generate tasks)"
        indent = "  "
        source, store = f"{table.store.name}-source", table.store.name
        yield from _kafka_lines(f"Source: {source} (topics: [{table.topic.name}])", [store], None)
        yield from _kafka_lines(f"Processor: {store} (stores: [{store}])", [], [source])
        yield ""


def _kafka_node(node: Node, children: Sequence[str]) -> Iterator[str]:
    parents = [parent.name for parent in node.parents]
    if isinstance(node, SourceNode):
        yield from _kafka_lines(
            f"Source: {node.name} (topics: [{node.topic.name}])", children, None
        )
    elif isinstance(node, SinkNode):
        yield from _kafka_lines(f"Sink: {node.name} (topic: {node.topic})", None, parents)
    else:
        store = node.store.name if isinstance(node, FoldNode | TableNode | JoinNode) else ""
        own = list(sinks_of(node))
        below = [*children, *(sink.name for sink in own)]
        yield from _kafka_lines(f"Processor: {node.name} (stores: [{store}])", below, parents)
        for sink in own:
            yield from _kafka_lines(f"Sink: {sink.name} (topic: {sink.topic})", None, [node.name])


def _kafka_lines(
    head: str, children: Sequence[str] | None, parents: Sequence[str] | None
) -> Iterator[str]:
    yield f"    {head}"
    for arrow, names in (("-->", children), ("<--", parents)):
        if names is not None:
            yield f"      {arrow} {', '.join(names) or 'none'}"
