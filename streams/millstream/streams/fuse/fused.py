"""All programs of one sub-topology, compiled when first needed and shared by its tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from millstream.streams.nodes import (
    AsyncNode,
    CountPartsNode,
    FilterNode,
    FinalNode,
    FoldNode,
    JoinNode,
    KeyNode,
    MapNode,
    MergeNode,
    Node,
    PeekNode,
    SinkNode,
    SourceNode,
    SplitNode,
    TableNode,
    ValueNode,
)
from millstream.streams.topology import SubTopology

from . import state_steps, steps
from .emitter import Emitter
from .program import FusedProgram, closing_program, results_program, source_program

__all__ = ["FusedSubTopology", "fuse"]

_EMITTERS: Final[Mapping[type[Node], Any]] = {
    AsyncNode: steps.emit_async,
    CountPartsNode: state_steps.emit_count_parts,
    FilterNode: steps.emit_filter,
    FoldNode: state_steps.emit_fold,
    JoinNode: state_steps.emit_join,
    KeyNode: steps.emit_key,
    MapNode: steps.emit_map,
    MergeNode: steps.emit_merge,
    PeekNode: steps.emit_peek,
    SinkNode: steps.emit_sink,
    SplitNode: steps.emit_split,
    TableNode: state_steps.emit_table,
    ValueNode: steps.emit_value,
}
"""A final step is entered by its closing program only, a branch by its split."""


class FusedSubTopology:
    """The programs of one sub-topology."""

    def __init__(self, subtopology: SubTopology, app_id: str) -> None:
        self._app_id = app_id
        self._children = _children(subtopology.nodes)
        self.sources = {
            node.topic.name: node for node in subtopology.nodes if isinstance(node, SourceNode)
        }
        self.async_nodes = [node for node in subtopology.nodes if isinstance(node, AsyncNode)]
        self.folds = [
            node for node in subtopology.nodes if isinstance(node, FoldNode) and node.window
        ]
        """Windowed folds, in the order their windows close."""
        behind = self._behind(self.async_nodes)
        self.deferred = frozenset(fold for fold in self.folds if fold in behind)
        """Folds behind an async step: their windows close when the task was drained."""
        self._programs: dict[tuple[Node, bool], FusedProgram] = {}

    def has_final(self, fold: FoldNode) -> bool:
        return any(isinstance(child, FinalNode) for child in self._children.get(fold, ()))

    def program(self, entry: Node, with_headers: bool = False) -> FusedProgram:
        """The program that begins at a source, behind an async step, or with a closing window."""
        if (entry, with_headers) not in self._programs:
            self._programs[entry, with_headers] = self._write(entry, with_headers)
        return self._programs[entry, with_headers]

    def _write(self, entry: Node, with_headers: bool) -> FusedProgram:
        emitter = Emitter(
            self._children, _EMITTERS, with_headers=with_headers, deferred=self.deferred
        )
        name = f"{self._app_id} {entry.name}"
        if isinstance(entry, SourceNode):
            behind = self._behind([entry])
            folds = [fold for fold in self.folds if fold in behind]
            return source_program(emitter, entry, folds, name)
        if isinstance(entry, AsyncNode):
            return results_program(emitter, entry, name)
        assert isinstance(entry, FoldNode)
        return closing_program(emitter, entry, self._app_id, name)

    def _behind(self, nodes: Iterable[Node]) -> set[Node]:
        found: set[Node] = set()
        waiting = list(nodes)
        while waiting:
            for child in self._children.get(waiting.pop(), ()):
                if child not in found:
                    found.add(child)
                    waiting.append(child)
        return found


def _children(nodes: Iterable[Node]) -> dict[Node, tuple[Node, ...]]:
    """A join is a child of its stream only: a change of the table triggers nothing."""
    found: dict[Node, list[Node]] = {}
    for node in nodes:
        parents = node.parents[:1] if isinstance(node, JoinNode) else node.parents
        for parent in parents:
            found.setdefault(parent, []).append(node)
    return {parent: tuple(children) for parent, children in found.items()}


@lru_cache(maxsize=256)
def fuse(subtopology: SubTopology, app_id: str) -> FusedSubTopology:
    """The programs of a sub-topology; the same object for all its tasks."""
    return FusedSubTopology(subtopology, app_id)
