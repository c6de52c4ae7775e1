"""The step from value to value, shared by `@app.stream` and `map_values`."""

from __future__ import annotations

from .errors import OnError, TopologyError
from .functions import UserFunction
from .graph import Flow
from .nodes import AsyncNode, Node, ValueNode

__all__ = ["value_node"]


def value_node(
    flow: Flow,
    function: UserFunction,
    name: str,
    *,
    drop_none: bool,
    on_error: OnError | None,
    concurrency: int | None,
) -> Node:
    """The step for a function that is plain, a generator or async.

    Raises:
        TopologyError: `concurrency` for a function that is not async.
    """
    if function.is_async:
        return AsyncNode(
            name=name,
            parents=(flow.node,),
            on_error=on_error,
            function=function,
            key_serde=flow.key,
            drop_none=drop_none,
            concurrency=concurrency,
        )
    if concurrency is not None:
        raise TopologyError(f"{function.where} is not async: concurrency=... says nothing about it")
    return ValueNode(
        name=name,
        parents=(flow.node,),
        on_error=on_error,
        function=function,
        many=function.gives_many,
        drop_none=drop_none,
    )
