"""Decorated functions: a function and the stream or table it produces, in one.

Calling it calls the function, so it can be tested with nothing running; given to a decorator or a
method, it is the stream.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, TypeVar, overload

from .errors import OnError, TopologyError
from .functions import UserFunction
from .graph import Flow, TypeHint
from .hints import UNKNOWN
from .serde import Serde, serde_for
from .stream import Stream
from .table import Table
from .topics import Topic
from .topology import StoreSpec
from .value_step import value_node

__all__ = ["StreamFunction", "StreamSource", "TableFunction"]

K = TypeVar("K")
V = TypeVar("V")
P = ParamSpec("P")
R = TypeVar("R")
V2 = TypeVar("V2")


class StreamFunction(Stream[K, V], Generic[K, V, P, R]):
    """A function decorated with `@app.stream(...)`: the stream of its results."""

    def __init__(self, flow: Flow, function: Callable[P, R]) -> None:
        super().__init__(flow)
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)


class TableFunction(Table[K, V], Generic[K, V, P]):
    """A fold decorated with `@app.table(...)`: the table of its states."""

    def __init__(self, flow: Flow, store: StoreSpec, function: Callable[P, V]) -> None:
        super().__init__(flow, store)
        self._function = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> V:
        return self._function(*args, **kwargs)


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """What `app.stream` was given for the function it decorates."""

    to: Topic[Any, Any] | str | None = None
    name: str | None = None
    value_type: TypeHint = None
    on_error: OnError | None = None
    concurrency: int | None = None

    @property
    def given(self) -> list[str]:
        return [each for each in self.__slots__ if getattr(self, each) is not None]


class StreamSource(Stream[K, V]):
    """What `app.stream(source)` gives: a stream, and a decorator for a function over it."""

    def __init__(self, flow: Flow, options: StreamOptions) -> None:
        super().__init__(flow)
        self._options = options
        if options.given:
            flow.graph.unused[id(self)] = (
                f"app.stream({flow.anchor!r}, {options.given[0]}=...) decorates no function; "
                "methods take such options themselves"
            )

    @overload
    def __call__(
        self, function: Callable[P, AsyncIterator[V2]]
    ) -> StreamFunction[K, V2, P, AsyncIterator[V2]]: ...
    @overload
    def __call__(
        self, function: Callable[P, Awaitable[V2 | None]]
    ) -> StreamFunction[K, V2, P, Awaitable[V2 | None]]: ...
    @overload
    def __call__(
        self, function: Callable[P, Iterator[V2]]
    ) -> StreamFunction[K, V2, P, Iterator[V2]]: ...
    @overload
    def __call__(self, function: Callable[P, V2 | None]) -> StreamFunction[K, V2, P, V2 | None]: ...
    def __call__(self, function: Callable[..., Any]) -> StreamFunction[K, Any, Any, Any]:
        """Make the stream of what the function gives for each value.

        None drops the record; what a generator yields are many; an async function runs for up to
        `concurrency` records at once, with the results in the order of the records.
        """
        options, graph = self._options, self._flow.graph
        graph.unused.pop(id(self), None)
        flow = decorated_flow(self._flow, function, options)
        stream: StreamFunction[K, Any, Any, Any] = StreamFunction(flow, function)
        if options.to is not None:
            stream.to(options.to)
        return stream


def decorated_flow(flow: Flow, call: Callable[..., Any], options: StreamOptions) -> Flow:
    """The flow of a decorated function's results."""
    function = flow.function(call, "@app.stream", allow="async")
    if options.name is None and not function.name:
        raise TopologyError(
            "@app.stream: a lambda has no name to give to its stream; give name=..."
        )
    name = flow.graph.claim(options.name or function.name, f"the stream of {function.where}")
    node = value_node(
        flow,
        function,
        name,
        drop_none=True,
        on_error=options.on_error,
        concurrency=options.concurrency,
    )
    return flow.then(node, value=_value_serde(flow, function, options), anchor=name)


def _value_serde(flow: Flow, function: UserFunction, options: StreamOptions) -> Serde[Any]:
    """As said, as annotated, as the topic it goes to has it, else JSON."""
    if options.value_type is not None:
        return serde_for(options.value_type)
    hint = function.value_type()
    if hint is UNKNOWN and options.to is not None:
        topic = options.to if isinstance(options.to, str) else options.to.name
        spec = flow.graph.topics.get(topic)
        if spec is not None:
            return spec.value_serde
    return serde_for(hint, Any)
