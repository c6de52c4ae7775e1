"""How each step without state is written into the generated loop."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from millstream.streams.nodes import (
    AsyncNode,
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
from millstream.streams.serde import serde_for

from .code import Site
from .emitter import Emitter
from .scope import Scope, Slot

__all__ = [
    "emit_async",
    "emit_filter",
    "emit_key",
    "emit_map",
    "emit_merge",
    "emit_peek",
    "emit_sink",
    "emit_split",
    "emit_value",
]

_ANY = serde_for(object)
"""Objects made by functions are encoded with the serde of where they go; they have none here."""


def emit_filter(emitter: Emitter, node: FilterNode, scope: Scope) -> None:
    condition = emitter.call(node.function, scope, emitter.object_of(scope.value))
    negation = "" if node.keep else "not "
    with emitter.code.block(f"if {negation}{condition}:", Site(node, "function", node.function)):
        emitter.emit_children(node, scope.nested())


def emit_value(emitter: Emitter, node: ValueNode, scope: Scope) -> None:
    call = emitter.call(node.function, scope, emitter.object_of(scope.value))
    site = Site(node, "function", node.function)
    new = Slot(None, emitter.new("o"), _ANY, node, nullable=not node.drop_none)
    if not node.many:
        emitter.code.add(f"{new.obj} = {call}", site)
        _continue(emitter, node, scope.with_value(new))
        return
    nothing = "" if node.function.gives_many else " or ()"
    with emitter.code.block(f"for {new.obj} in {call}{nothing}:", site):
        _continue(emitter, node, scope.nested().with_value(new))


def _continue(emitter: Emitter, node: ValueNode | AsyncNode, scope: Scope) -> None:
    if scope.value.nullable:
        emitter.emit_children(node, scope)
        return
    with emitter.code.block(f"if {scope.value.obj} is not None:"):
        emitter.emit_children(node, scope.nested())


def emit_map(emitter: Emitter, node: MapNode, scope: Scope) -> None:
    call = emitter.call(node.function, scope, emitter.object_of(scope.value))
    site = Site(node, "function", node.function)
    key = Slot(None, emitter.new("k"), _ANY, node)
    value = Slot(None, emitter.new("o"), _ANY, node)
    inner = replace(scope.nested(), key=key, value=value, context=None, window=None)
    if not node.many:
        emitter.code.add(f"{key.obj}, {value.obj} = {call}", site)
        emitter.emit_children(node, inner)
        return
    with emitter.code.block(f"for {key.obj}, {value.obj} in {call} or ():", site):
        emitter.emit_children(node, inner)


def emit_key(emitter: Emitter, node: KeyNode, scope: Scope) -> None:
    value = emitter.object_of(scope.value)
    if node.function.is_identity and node.function.arguments == (("0", ""),):
        key = Slot(None, value, _ANY, node, nullable=scope.value.nullable)
    else:
        call = emitter.call(node.function, scope, value)
        key = Slot(None, emitter.new("k"), _ANY, node)
        emitter.code.add(f"{key.obj} = {call}", Site(node, "function", node.function))
    emitter.emit_children(node, replace(scope, key=key, context=None, window=None))


def emit_peek(emitter: Emitter, node: PeekNode, scope: Scope) -> None:
    call = emitter.call(node.function, scope, emitter.object_of(scope.value))
    emitter.code.add(call, Site(node, "function", node.function))
    emitter.emit_children(node, scope)


def emit_merge(emitter: Emitter, node: MergeNode, scope: Scope) -> None:
    emitter.emit_children(node, scope)


def emit_split(emitter: Emitter, node: SplitNode, scope: Scope) -> None:
    """Nested else blocks rather than elif: what a later predicate asks for is made when needed."""
    branches = {
        child.index: child
        for child in emitter.children.get(node, ())
        if isinstance(child, BranchNode)
    }
    _emit_branch(emitter, node, scope, branches, 0)


def _emit_branch(
    emitter: Emitter, node: SplitNode, scope: Scope, branches: dict[int, BranchNode], index: int
) -> None:
    if index == len(node.predicates):
        if index in branches:
            emitter.emit_children(branches[index], scope)
        return
    predicate = node.predicates[index]
    call = emitter.call(predicate, scope, emitter.object_of(scope.value))
    with emitter.code.block(f"if {call}:", Site(node, "function", predicate)):
        if index in branches:
            emitter.emit_children(branches[index], scope.nested())
    with emitter.code.block("else:"):
        _emit_branch(emitter, node, scope.nested(), branches, index + 1)


def emit_sink(emitter: Emitter, node: SinkNode, scope: Scope) -> None:
    emitter.send(node, scope, node)


def emit_async(emitter: Emitter, node: AsyncNode, scope: Scope) -> None:
    """The chain ends here for now: the call waits in a list until the task is drained."""
    value = emitter.object_of(scope.value)
    passed = emitter.arguments(node.function, scope, value)
    call = emitter.constant("call", node.function.call)
    later = f"{emitter.constant('partial', partial)}({', '.join([call, *passed])})"
    key = emitter.bytes_variable(scope.key, node.key_serde, node)
    pending = emitter.bound("pending", node, lambda task: task.pending(node))
    emitter.code.add(
        f"{pending}.append(({later}, {key}, {scope.timestamp}, {scope.now}, "
        f"{scope.headers or '()'}, {scope.origin}))"
    )
