"""A topology as text for people, or as a Mermaid flowchart."""

from __future__ import annotations

from .nodes import CountPartsNode, JoinNode, Node, SinkNode, SourceNode
from .topology import StoreSpec, SubTopology, Topology, changelog_topic
from .windows import WindowSpec

__all__ = ["describe"]

_UNITS = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)]


def describe(topology: Topology, form: str = "text") -> str:
    """The sub-topologies with their steps, stores and topics; `form` is `text` or `mermaid`."""
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
