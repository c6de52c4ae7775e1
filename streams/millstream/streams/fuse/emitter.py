"""Writes the body of a generated function: names, decoding where needed, one step after another.

Every variable has a number of its own, so nothing is ever shadowed. Where the nesting becomes too
deep for Python, the rest of the chain goes into a local function.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

from millstream.streams.context import Context
from millstream.streams.errors import TopologyError
from millstream.streams.functions import UserFunction
from millstream.streams.nodes import FoldNode, Node, SinkNode
from millstream.streams.serde import Serde
from millstream.streams.windows import Window, Windowed

from .code import Code, Site
from .environment import Environment
from .scope import Scope, Slot, WindowSlot

__all__ = ["Binding", "Emitter"]

Binding = Callable[[Environment], Any]
"""Answers what a name of the generated code stands for in one task."""

NESTING_MAX: Final = 15
"""Python refuses more than 20 nested loops in one function, and more than 100 indents."""

STEPS_MAX: Final = 5_000
"""Steps written into one program. One behind branches that are merged again is written once for
each way to it, and the ways double with every such pair."""


class Emitter:
    """Collects the lines of one program.

    Args:
        children: the steps behind each step.
        with_headers: whether records of this variant have headers.
        deferred: folds behind an async step: their windows close when the task was drained, so they
            may be over before they are closed.
    """

    def __init__(
        self,
        children: Mapping[Node, tuple[Node, ...]],
        emitters: Mapping[type[Node], Callable[[Emitter, Any, Scope], None]],
        *,
        with_headers: bool,
        deferred: Collection[Node] = (),
    ) -> None:
        self.children = children
        self.with_headers = with_headers
        self.deferred = deferred
        self.constants: dict[str, Any] = {}
        self.bindings: dict[str, Binding] = {}
        self.prologue = Code(1)
        self.functions: list[tuple[str, Code]] = []
        self.body = Code(4)
        self.state: list[str] = []
        """Variables that outlive a record, and that local functions assign."""
        self.resets: list[str] = []
        """Statements to run after windows were closed."""
        self.epilogue: list[str] = []
        self.batch_timestamps: str | None = None
        """An expression for the timestamps of all records of the batch, where they are as read."""
        self._noted: set[str] = set()
        self._emitters = emitters
        self._named: dict[Any, str] = {}
        self._count = 0
        self._steps = 0

    @property
    def code(self) -> Code:
        return self.body

    def new(self, prefix: str) -> str:
        """A variable nobody else has."""
        self._count += 1
        return f"{prefix}{self._count}"

    def constant(self, prefix: str, value: Any) -> str:
        """A name for an object that is the same in every task."""
        if (name := self._named.get(id(value))) is None:
            name = self._named[id(value)] = self.new(f"{prefix}_")
            self.constants[name] = value
        return name

    def bound(self, prefix: str, key: Any, binding: Binding) -> str:
        """A name for an object that each task has its own of; once per `key`."""
        if (name := self._named.get((prefix, key))) is None:
            name = self._named[prefix, key] = self.new(f"{prefix}_")
            self.bindings[name] = binding
        return name

    def local(self, prefix: str, key: Any, expression: str) -> str:
        """A variable set once per batch, before the loop; once per `key`."""
        if (name := self._named.get((prefix, key, "local"))) is None:
            name = self._named[prefix, key, "local"] = self.new(prefix)
            self.prologue.add(f"{name} = {expression}")
        return name

    def outliving(self, name: str, expression: str) -> str:
        """A variable set before the loop and changed in it."""
        if name not in self.state:
            self.state.append(name)
            self.prologue.add(f"{name} = {expression}")
        return name

    def emit_children(self, node: Node, scope: Scope) -> None:
        for child in self.children.get(node, ()):
            self.emit(child, scope)

    def emit(self, node: Node, scope: Scope) -> None:
        """Write a step and all behind it.

        Raises:
            TopologyError: more than `STEPS_MAX` were written.
        """
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise TopologyError(
                f"step {node.name!r}: too many ways lead through branches that are merged again; "
                "put a .repartition() behind a merge"
            )
        emitter = self._emitters.get(type(node))
        if emitter is None:
            return
        if self.code.depth < NESTING_MAX:
            emitter(self, node, scope)
            return
        name = self.new("rest")
        passed = [each for each in scope.variables() if each[-1].isdigit()]
        passed = [each for each in passed if each not in self.state]
        outer, self.body = self.body, Code(2)
        emitter(self, node, scope.nested())
        self.functions.append((f"def {name}({', '.join(passed)}):", self.body))
        self.body = outer
        self.code.add(f"{name}({', '.join(passed)})")

    def object_of(self, slot: Slot | WindowSlot, part: str = "value") -> str:
        """A variable with the object, decoded here if it was not yet."""
        if slot.obj is not None:
            return slot.obj
        if isinstance(slot, WindowSlot):
            inner = self.object_of(slot.inner, "key")
            slot.obj = self.new("wk")
            windowed = self.constant("Windowed", Windowed)
            self.code.add(f"{slot.obj} = {windowed}({inner}, {slot.start}, {slot.end})")
            return slot.obj
        if slot.serde.type is bytes:
            slot.obj = slot.raw
            return slot.any_form
        slot.obj = self.new("k" if part == "key" else "o")
        decode = self.constant("decode", slot.serde.deserialize)
        null = f" if {slot.raw} is not None else None" if slot.nullable else ""
        site = Site(slot.origin, "key" if part == "key" else "value")
        self.code.add(f"{slot.obj} = {decode}({slot.raw}){null}", site)
        return slot.obj

    def bytes_of(self, slot: Slot | WindowSlot, serde: Serde[Any], part: str = "value") -> str:
        """An expression for the bytes: a variable where nothing was changed, else a call."""
        if slot.raw is not None and slot.serde == serde:
            return slot.raw
        if isinstance(slot, WindowSlot) and serde.window_size_ms:
            pack = self.constant("pack", _pack_start)
            return f"{self.bytes_of(slot.inner, slot.inner.serde, 'key')} + {pack}({slot.start})"
        obj = self.object_of(slot, part)
        call = f"{self.constant('encode', serde.serialize)}({obj})"
        return f"{call} if {obj} is not None else None" if slot.nullable else call

    def bytes_variable(
        self, slot: Slot | WindowSlot, serde: Serde[Any], node: Node, part: str = "key"
    ) -> str:
        """A variable with the bytes; kept for others who want the same."""
        expression = self.bytes_of(slot, serde, part)
        if expression.isidentifier():
            return expression
        name = self.new("kb" if part == "key" else "vb")
        self.code.add(f"{name} = {expression}", Site(node, "serialize"))
        if slot.raw is None:
            slot.raw, slot.serde = name, serde
        return name

    def call(self, function: UserFunction, scope: Scope, *values: str) -> str:
        """An expression that calls a user function with what it asks for."""
        passed = self.arguments(function, scope, *values)
        return f"{self.constant(_readable(function.name), function.call)}({', '.join(passed)})"

    def arguments(self, function: UserFunction, scope: Scope, *values: str) -> list[str]:
        """What a user function is passed, as written in a call."""
        passed = []
        for what, keyword in function.arguments:
            if what == "key":
                argument = self.object_of(scope.key, "key")
            elif what == "window":
                argument = self.window_of(scope)
            elif what == "ctx":
                argument = self.context_of(scope)
            else:
                argument = values[int(what)]
            passed.append(f"{keyword}={argument}" if keyword else argument)
        return passed

    def window_of(self, scope: Scope) -> str:
        if scope.window is None:
            key = scope.key
            scope.window = self.new("window")
            if isinstance(key, WindowSlot):
                make = self.constant("Window", Window)
                self.code.add(f"{scope.window} = {make}({key.start}, {key.end})")
            else:
                self.code.add(f"{scope.window} = {self.object_of(key, 'key')}.window")
        return scope.window

    def context_of(self, scope: Scope) -> str:
        if scope.context is None:
            key = self.object_of(scope.key, "key")
            scope.context = self.new("ctx")
            self.code.add(
                f"{scope.context} = {self.constant('Context', Context)}(topic, partition, "
                f"{scope.offset}, {scope.timestamp}, {key}, {scope.headers or '()'}, {scope.now})"
            )
        return scope.context

    def send(self, sink: SinkNode, scope: Scope, node: Node) -> None:
        """Write the appends of a sink. What may raise comes first, so that columns stay even."""
        key = self.bytes_variable(scope.key, sink.key_serde, node)
        value = self.bytes_variable(scope.value, sink.value_serde, node, "value")
        topic, windowed = sink.topic, sink.windowed
        buffer = self.bound("sink", topic, lambda task: task.buffer(topic, windowed))
        values = self.local("values", topic, f"{buffer}.values")
        keys = self.local("keys", topic, f"{buffer}.keys")
        timestamps = self.local("timestamps", topic, f"{buffer}.timestamps")
        self.code.add(f"{values}.append({value})")
        self.code.add(f"{keys}.append({key})")
        self.code.add(f"{timestamps}.append({scope.timestamp})")
        if self.with_headers:
            headers = self.local("headers", topic, f"{buffer}.with_headers()")
            self.code.add(f"{headers}.append({scope.headers or '()'})")

    def task(self) -> str:
        return self.bound("task", "task", lambda task: task)

    def due(self) -> str:
        """A variable: the stream time at which the next window closes."""
        return self.outliving("due", f"{self.task()}.next_close")

    def note_opened(self, fold: FoldNode, start: str) -> None:
        """After a window was opened: it may be the next to close."""
        if "due" in self.state and fold not in self.deferred:
            close = f"{start} + {fold.store.retention_ms}"
            self.code.add(f"if {close} < due: due = {close}")

    def note_latest(self, parts: str, scope: Scope) -> None:
        """Keep the largest timestamp of what was counted: once per batch where that is possible."""
        if self.batch_timestamps is None:
            later = f"if {scope.timestamp} > {parts}.timestamp: "
            self.code.add(f"{later}{parts}.timestamp = {scope.timestamp}")
        elif parts not in self._noted:
            self._noted.add(parts)
            latest = f"max({parts}.timestamp, max({self.batch_timestamps}))"
            self.epilogue.append(f"{parts}.timestamp = {latest}")

    def unless_null(self, *forms: str) -> str:
        """The condition under which none of these is None; empty for none."""
        return " and ".join(f"{form} is not None" for form in dict.fromkeys(forms))


def _pack_start(start: int) -> bytes:
    return start.to_bytes(8, "big", signed=True)


def _readable(name: str) -> str:
    return name if name.isidentifier() and name.isascii() else "function"
