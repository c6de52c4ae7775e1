"""Streams grouped by key, and the folds over them."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, Final, Generic, Literal, TypeVar, get_origin

from .errors import OnError, TopologyError
from .functions import UserFunction
from .graph import Flow, TypeHint
from .hints import UNKNOWN, without_none
from .nodes import CountPartsNode, FoldNode, SinkNode
from .serde import Serde, serde_for
from .table import Table
from .topics import Topic
from .topology import StoreSpec
from .windows import Windowed, WindowSpec

__all__ = ["Grouped", "WindowedGrouped"]

K = TypeVar("K")
V = TypeVar("V")
S = TypeVar("S")

_IMMUTABLE: Final = (int, float, str, bytes, bool, tuple, frozenset, type(None))


class _Grouping(Generic[K, V]):
    """What grouped streams with and without windows have in common."""

    def __init__(
        self, flow: Flow, key_function: UserFunction | None, window: WindowSpec | None = None
    ) -> None:
        self._flow = flow
        self._key_function = key_function
        self._window = window
        self._late_to: Topic[Any, Any] | str | None = None

    def _count(self, name: str | None) -> Table[Any, int]:
        chosen = self._name(name, None, "count")
        flow = self._flow
        if flow.moved and self._window is None:
            sink = flow.repartition_sink(chosen, serde_for(int), None, None)
            parts = CountPartsNode(name=f"{chosen}-parts", parents=(flow.node,), sink=sink)
            flow.graph.add(parts)
            return self._fold(flow.behind(sink), chosen, "sum", serde_for(int))
        return self._fold(self._in_place(chosen), chosen, "count", serde_for(int))

    def _reduce(
        self, function: Callable[..., Any], name: str | None, on_error: OnError | None
    ) -> Table[Any, Any]:
        fold = self._fold_function(function, "reduce")
        chosen = self._name(name, fold, "reduce")
        flow = self._in_place(chosen, on_error)
        return self._fold(flow, chosen, "reduce", flow.value, fold, on_error=on_error)

    def _aggregate(
        self,
        init: Any,
        function: Callable[..., Any],
        name: str | None,
        value_type: TypeHint,
        on_error: OnError | None,
    ) -> Table[Any, Any]:
        fold = self._fold_function(function, "aggregate")
        chosen = self._name(name, fold, "aggregate")
        initial, constant = _initial(init, fold)
        hint = fold.value_type() if value_type is None else value_type
        if hint is UNKNOWN:
            hint = fold.parameter_type(0)
        if hint is UNKNOWN and constant and initial() is not None:
            hint = type(initial())
        flow = self._in_place(chosen, on_error)
        return self._fold(
            flow,
            chosen,
            "aggregate",
            serde_for(hint, Any),
            fold,
            initial=initial,
            constant_initial=constant,
            on_error=on_error,
        )

    def _name(self, name: str | None, function: UserFunction | None, kind: str) -> str:
        """Of the fold's function, else of the pipeline, the key function or where it comes from."""
        by_key = self._key_function.name if self._key_function is not None else ""
        if name is None and not (function and function.name) and not self._flow.graph.pipeline:
            name = f"{by_key}-{kind}" if by_key else None
        return self._flow.state_name(name, function, kind)

    def _fold_function(self, call: Callable[..., Any], role: str) -> UserFunction:
        return self._flow.function(call, role, values=2, windowed=self._window is not None)

    def _in_place(self, name: str, on_error: OnError | None = None) -> Flow:
        """The flow with every record in the partition of its key."""
        return self._flow.repartitioned(name, on_error=on_error) if self._flow.moved else self._flow

    def _fold(
        self,
        flow: Flow,
        name: str,
        how: Literal["count", "sum", "reduce", "aggregate"],
        value: Serde[Any],
        function: UserFunction | None = None,
        **options: Any,
    ) -> Table[Any, Any]:
        window = self._window
        store = StoreSpec(
            name,
            "kv" if window is None else "window",
            flow.key,
            value,
            window,
            retention_ms=window.size_ms + window.grace_ms + flow.delay_ms if window else None,
        )
        node = FoldNode(
            name=name,
            parents=(flow.node,),
            store=store,
            how=how,
            function=function,
            late_to=self._late_sink(flow, name),
            **options,
        )
        return Table(flow.then(node, value=value, anchor=name, moved=False), store)

    def _late_sink(self, flow: Flow, name: str) -> SinkNode | None:
        if self._late_to is None:
            return None
        topic = self._late_to if isinstance(self._late_to, str) else self._late_to.name
        return flow.sink(topic, f"{name}-late", parents=())


class Grouped(_Grouping[K, V]):
    """A stream grouped by its key. Records with a null key or a null value are dropped."""

    def count(self, *, name: str | None = None) -> Table[K, int]:
        """How many records each key has."""
        return self._count(name)

    def reduce(
        self,
        function: Callable[..., V],
        *,
        name: str | None = None,
        on_error: OnError | None = None,
    ) -> Table[K, V]:
        """Fold with `function(state, value)`; the first value of a key is its first state.

        A result of None deletes the key.
        """
        return self._reduce(function, name, on_error)

    def aggregate(
        self,
        init: Any,
        function: Callable[..., S],
        *,
        name: str | None = None,
        value_type: TypeHint = None,
        on_error: OnError | None = None,
    ) -> Table[K, S]:
        """Fold with `function(state, value)`, beginning with `init`, a value or a callable for one.

        A result of None deletes the key. The state belongs to the store: do not keep it and change
        it later.
        """
        return self._aggregate(init, function, name, value_type, on_error)

    def window(
        self, window: WindowSpec, *, late_to: Topic[Any, Any] | str | None = None
    ) -> WindowedGrouped[K, V]:
        """Fold per window of event time.

        Args:
            late_to: a topic for records that come after a window they fall into was closed; they
                are counted and dropped otherwise.
        """
        grouped: WindowedGrouped[K, V] = WindowedGrouped(self._flow, self._key_function, window)
        grouped._late_to = late_to
        return grouped


class WindowedGrouped(_Grouping[K, V]):
    """A stream grouped by key and window."""

    def count(self, *, name: str | None = None) -> Table[Windowed[K], int]:
        """How many records each key has in each window."""
        return self._count(name)

    def reduce(
        self,
        function: Callable[..., V],
        *,
        name: str | None = None,
        on_error: OnError | None = None,
    ) -> Table[Windowed[K], V]:
        """As `Grouped.reduce`, per window."""
        return self._reduce(function, name, on_error)

    def aggregate(
        self,
        init: Any,
        function: Callable[..., S],
        *,
        name: str | None = None,
        value_type: TypeHint = None,
        on_error: OnError | None = None,
    ) -> Table[Windowed[K], S]:
        """As `Grouped.aggregate`, per window."""
        return self._aggregate(init, function, name, value_type, on_error)


def _initial(init: Any, fold: UserFunction) -> tuple[Callable[[], Any], bool]:
    """How a state begins, and whether it begins with one immutable value each time."""
    if callable(init):
        return init, False
    if init is not None:
        if isinstance(init, _IMMUTABLE):
            return (lambda: init), True
        return (lambda: copy.deepcopy(init)), False
    hint = fold.parameter_type(0)
    if hint is UNKNOWN or hint is Any:
        raise TopologyError(
            f"{fold.where}: the state has to begin somehow; annotate the first parameter "
            "(int begins with 0, dict with {}, a dataclass with its defaults) or give init=..."
        )
    if hint is None or without_none(hint) is not hint:
        return (lambda: None), True
    return _zero(hint, fold)


def _zero(hint: Any, fold: UserFunction) -> tuple[Callable[[], Any], bool]:
    make: Any = get_origin(hint) or hint
    needed = _fields_without_default(make)
    try:
        zero = make() if not needed else None
    except TypeError:
        needed = ["arguments"]
    if needed:
        raise TopologyError(
            f"{fold.where}: a state of type {getattr(hint, '__name__', hint)} cannot begin by "
            f"itself ({', '.join(needed)} without default); give init=..."
        )
    return (make, False) if not isinstance(zero, _IMMUTABLE) else ((lambda: zero), True)


def _fields_without_default(make: Any) -> list[str]:
    if not dataclasses.is_dataclass(make):
        return []
    missing = dataclasses.MISSING
    return [
        field.name
        for field in dataclasses.fields(make)
        if field.init and field.default is missing and field.default_factory is missing
    ]
