"""How each step with state is written into the generated loop.

A fold looks into a dict, calls the function of the user and stores into the dict; counting does
without the call. Loading from below the overlay happens once per key and commit.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from millstream.streams.nodes import CountPartsNode, FoldNode, JoinNode, TableNode
from millstream.streams.serde import serde_for, windowed_serde
from millstream.streams.windows import WindowSpec

from .code import Site
from .emitter import Emitter
from .scope import Scope, Slot, WindowSlot

__all__ = ["COUNTED_AS_OBJECTS", "emit_count_parts", "emit_fold", "emit_join", "emit_table"]

COUNTED_AS_OBJECTS = (str, bytes, int)
"""Types of keys that are equal exactly when their bytes are."""


def emit_fold(emitter: Emitter, node: FoldNode, scope: Scope) -> None:
    """A record without key or value is dropped, as Kafka Streams does."""
    forms = [scope.key.any_form] if scope.key.nullable else []
    if scope.value.nullable:
        forms.append(scope.value.any_form)
    if not forms:
        _emit_fold(emitter, node, scope)
        return
    dropped = emitter.outliving("dropped", "0")
    with emitter.code.block(f"if {emitter.unless_null(*forms)}:"):
        _emit_fold(emitter, node, _without_nulls(scope))
    with emitter.code.block("else:"):
        emitter.code.add(f"{dropped} += 1")


def _without_nulls(scope: Scope) -> Scope:
    inner = scope.nested()
    inner.value.nullable = False
    inner.key.nullable = False
    return inner


def _emit_fold(emitter: Emitter, node: FoldNode, scope: Scope) -> None:
    if node.window is None:
        get, load, overlay = _key_value_access(emitter, node.store.name)
        key = emitter.bytes_variable(scope.key, node.store.key_serde, node)
        access = _Access(f"{get}({key})", f"{load}({key})", f"{overlay}[{key}]")
        _emit_update(emitter, node, scope, access, scope)
    elif node.window.advance_ms == node.window.size_ms:
        _emit_tumbling(emitter, node, node.window, scope)
    else:
        _emit_hopping(emitter, node, scope)


class _Access(NamedTuple):
    """Where a state is: in the overlay, below it, and where it is put."""

    get: str
    load: str
    place: str


def _key_value_access(emitter: Emitter, name: str) -> tuple[str, str, str]:
    store = emitter.bound("store", name, lambda task: task.key_value_store(name))
    overlay = emitter.local("overlay", name, f"{store}.overlay")
    get = emitter.local("get", name, f"{overlay}.get")
    return get, emitter.local("load", name, f"{store}.load"), overlay


def _emit_update(
    emitter: Emitter, node: FoldNode, scope: Scope, access: _Access, behind: Scope
) -> None:
    """Write: state = what is there; place = state = what comes of it; the steps behind."""
    state = emitter.new("s")
    value = "" if node.how == "count" else emitter.object_of(scope.value)
    call = ""
    if node.function is not None:
        call = emitter.call(node.function, scope, state, value)
    in_store = Site(node, "state")
    in_function = Site(node, "function", node.function)
    emitter.code.add(f"{state} = {access.get}", in_store)
    with emitter.code.block(f"if {state} is None:"):
        emitter.code.add(f"{state} = {access.load}", in_store)
        if node.how in ("count", "sum"):
            emitter.code.add(f"if {state} is None: {state} = 0")
        elif node.initial is not None:
            emitter.code.add(
                f"if {state} is None: {state} = {_initial(emitter, node)}", in_function
            )
    new = {
        "count": f"{state} + 1",
        "sum": f"{state} + {value}",
        "reduce": f"{value} if {state} is None else {call}",
        "aggregate": call,
    }[node.how]
    emitter.code.add(f"{access.place} = {state} = {new}", in_function)
    result = Slot(None, state, serde_for(object), node, nullable=bool(call))
    emitter.emit_children(node, behind.with_value(result))


def _initial(emitter: Emitter, node: FoldNode) -> str:
    assert node.initial is not None
    if node.constant_initial:
        return emitter.constant("initial", node.initial())
    return f"{emitter.constant('initial', node.initial)}()"


def _windows(emitter: Emitter, node: FoldNode) -> str:
    name = node.store.name
    return emitter.bound("windows", name, lambda task: task.open_windows(name))


def _emit_tumbling(emitter: Emitter, node: FoldNode, window: WindowSpec, scope: Scope) -> None:
    """The window of the last record is kept at hand: most records fall into the same one."""
    number = emitter.new("")
    low = emitter.outliving(f"low{number}", "1")
    high = emitter.outliving(f"high{number}", "0")
    overlay = emitter.outliving(f"window{number}", "None")
    get = emitter.outliving(f"get{number}", "None")
    emitter.resets.append(f"{low} = 1; {high} = 0")
    ts, windows, code = scope.timestamp, _windows(emitter, node), emitter.code
    outside = f"not {low} <= {ts} < {high}"
    if node in emitter.deferred:
        outside = f"{scope.now} >= {low} + {node.store.retention_ms} or {outside}"
    with code.block(f"if {outside}:"):
        code.add(f"if {ts} < 0: {windows}.refuse({ts})", Site(node, "timestamp"))
        code.add(f"{low} = {ts} - {ts} % {window.size_ms}")
        code.add(f"{high} = {low} + {window.size_ms}")
        code.add(f"{overlay} = None")
        with code.block(f"if {low} + {node.store.retention_ms} > {scope.now}:"):
            code.add(f"{overlay} = {windows}.open({low})", Site(node, "state"))
            code.add(f"{get} = {overlay}.get")
            emitter.note_opened(node, low)
    with code.block(f"if {overlay} is None:"):
        _emit_late(emitter, node, scope)
    with code.block("else:"):
        _emit_in_window(emitter, node, scope.nested(), (low, high, overlay, get))


def _emit_hopping(emitter: Emitter, node: FoldNode, scope: Scope) -> None:
    number = emitter.new("")
    low = emitter.outliving(f"low{number}", "1")
    high = emitter.outliving(f"high{number}", "0")
    hops = emitter.outliving(f"hops{number}", "()")
    missed = emitter.outliving(f"missed{number}", "False")
    emitter.resets.append(f"{low} = 1; {high} = 0")
    ts, windows, code = scope.timestamp, _windows(emitter, node), emitter.code
    # Behind an async step windows are over before they are closed: nothing is kept at hand.
    outside = "True" if node in emitter.deferred else f"not {low} <= {ts} < {high}"
    with code.block(f"if {outside}:"):
        found = f"{low}, {high}, {hops}, {missed}"
        code.add(f"{found} = {windows}.hops({ts}, {scope.now})", Site(node, "timestamp"))
        with code.block(f"if {hops}:"):
            emitter.note_opened(node, f"{hops}[0][0]")
    with code.block(f"if {missed}:"):
        _emit_late(emitter, node, scope)
    start, end, overlay = emitter.new("start"), emitter.new("end"), emitter.new("window")
    with code.block(f"for {start}, {end}, {overlay} in {hops}:"):
        _emit_in_window(emitter, node, scope.nested(), (start, end, overlay, f"{overlay}.get"))


def _emit_in_window(
    emitter: Emitter, node: FoldNode, scope: Scope, variables: tuple[str, str, str, str]
) -> None:
    """The function of the fold sees the key as it was; the steps behind see it windowed."""
    start, end, overlay, get = variables
    serde = node.store.key_serde
    key = emitter.bytes_variable(scope.key, serde, node)
    load = emitter.local("load", node.store.name, f"{_windows(emitter, node)}.store.load")
    inner = Slot(key, scope.key.obj, serde, node, nullable=False)
    windowed = WindowSlot(inner, start, end, windowed_serde(serde, node.store.window_size_ms))
    behind = replace(scope, key=windowed, context=None, window=None)
    if node.function is not None and node.function.asks_for("window"):
        scope.window = emitter.window_of(behind)
    access = _Access(f"{get}({key})", f"{load}({start}, {key})", f"{overlay}[{key}]")
    _emit_update(emitter, node, scope, access, behind)


def _emit_late(emitter: Emitter, node: FoldNode, scope: Scope) -> None:
    emitter.code.add(f"{emitter.outliving('late', '0')} += 1")
    if node.late_to is not None:
        emitter.send(node.late_to, scope.nested(), node)


def emit_count_parts(emitter: Emitter, node: CountPartsNode, scope: Scope) -> None:
    """Count under the key as an object where that is safe: it is serialised at the flush."""
    serde = node.sink.key_serde
    dropped = emitter.outliving("dropped", "0")
    as_object = serde.type in COUNTED_AS_OBJECTS and scope.key.obj is not None
    if as_object:
        key = emitter.object_of(scope.key, "key")
    else:
        key = emitter.bytes_variable(scope.key, serde, node)
    parts = emitter.bound("parts", node, lambda task: task.parts(node, as_object))
    counts = emitter.local("counts", node, f"{parts}.counts")
    get = emitter.local("get", node, f"{counts}.get")
    emitter.note_latest(parts, scope)
    forms = [form.any_form for form in (scope.key, scope.value) if form.nullable]
    count = f"{counts}[{key}] = {get}({key}, 0) + 1"
    if not forms:
        emitter.code.add(count, Site(node, "state"))
        return
    with emitter.code.block(f"if {emitter.unless_null(*forms)}:"):
        emitter.code.add(count, Site(node, "state"))
    with emitter.code.block("else:"):
        emitter.code.add(f"{dropped} += 1")


def emit_table(emitter: Emitter, node: TableNode, scope: Scope) -> None:
    """A null value deletes; the change is passed on either way."""
    _, _, overlay = _key_value_access(emitter, node.store.name)
    key = emitter.bytes_variable(scope.key, node.store.key_serde, node)
    with emitter.code.block(f"if {scope.key.any_form} is not None:"):
        inner = scope.nested()
        value = emitter.object_of(inner.value)
        emitter.code.add(f"{overlay}[{key}] = {value}", Site(node, "state"))
        emitter.emit_children(node, inner)
    with emitter.code.block("else:"):
        emitter.code.add(f"{emitter.outliving('dropped', '0')} += 1")


def emit_join(emitter: Emitter, node: JoinNode, scope: Scope) -> None:
    """A null value joins nothing. A null key finds nothing: an inner join drops it."""
    if not scope.value.nullable:
        _emit_lookup(emitter, node, scope)
        return
    with emitter.code.block(f"if {scope.value.any_form} is not None:"):
        inner = scope.nested()
        inner.value.nullable = False
        _emit_lookup(emitter, node, inner)
    with emitter.code.block("else:"):
        emitter.code.add(f"{emitter.outliving('dropped', '0')} += 1")


def _emit_lookup(emitter: Emitter, node: JoinNode, scope: Scope) -> None:
    value = emitter.object_of(scope.value)
    wanted: Slot | WindowSlot = scope.key
    if node.mapper is not None:
        wanted = Slot(None, emitter.new("k"), serde_for(object), node)
        call = emitter.call(node.mapper, scope, value)
        emitter.code.add(f"{wanted.obj} = {call}", Site(node, "function", node.mapper))
    get, load, _ = _key_value_access(emitter, node.store.name)
    key = emitter.bytes_variable(wanted, node.store.key_serde, node)
    found = emitter.new("t")
    emitter.code.add(f"{found} = {get}({key})", Site(node, "state"))
    is_null = f" and {wanted.any_form} is not None" if wanted.nullable else ""
    with emitter.code.block(f"if {found} is None{is_null}:"):
        emitter.code.add(f"{found} = {load}({key})", Site(node, "state"))
    if node.is_left:
        _emit_joined(emitter, node, scope, value, found)
        return
    with emitter.code.block(f"if {found} is not None:"):
        _emit_joined(emitter, node, scope.nested(), value, found)


def _emit_joined(emitter: Emitter, node: JoinNode, scope: Scope, value: str, found: str) -> None:
    result = Slot(None, emitter.new("o"), serde_for(object), node)
    call = emitter.call(node.function, scope, value, found)
    emitter.code.add(f"{result.obj} = {call}", Site(node, "function", node.function))
    emitter.emit_children(node, scope.with_value(result))
