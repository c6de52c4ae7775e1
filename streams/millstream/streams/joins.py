"""Joins of a stream with a table or a global table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import OnError, TopologyError
from .functions import UserFunction
from .graph import Flow, TypeHint
from .nodes import JoinNode, Node
from .table import Table
from .topics import GlobalTable
from .topology import StoreSpec

__all__ = ["joined"]


def joined(
    flow: Flow,
    table: Table[Any, Any] | GlobalTable[Any, Any],
    joiner: Callable[..., Any],
    key: Callable[..., Any] | None,
    name: str | None,
    value_type: TypeHint,
    on_error: OnError | None,
    *,
    is_left: bool,
) -> Flow:
    """The flow behind a join; before it a repartition topic where the key was changed.

    Raises:
        TopologyError: it does not fit; the message says why.
    """
    role = "left_join" if is_left else "join"
    function = flow.function(joiner, role, values=2)
    # A join keeps no state: its name is claimed when it is given, or names a repartition topic.
    if isinstance(table, GlobalTable):
        if key is None:
            raise TopologyError(
                f"{role} with global table {table.spec.store.name!r} needs key=..., a function "
                "from the value to the table's key"
            )
        mapper = flow.function(key, f"the key function of {role}")
        chosen = flow.graph.step_name(name, role, function)
        return _behind(
            flow, chosen, function, table.spec.store, is_left, mapper, value_type, on_error
        )
    if key is not None:
        raise TopologyError(
            f"{role} with table {table.name!r} is by the record's key; key=... is for global "
            "tables: use .key_by(...) before the join"
        )
    row = table.flow_for_join()
    if flow.moved:
        chosen = flow.state_name(name, function, role)
        flow = flow.repartitioned(chosen, on_error=on_error)
    else:
        chosen = flow.graph.step_name(name, role, function)
    if flow.key != row.key:
        raise TopologyError(
            f"{role} {chosen!r}: the stream has keys of type {flow.key.type_name}, table "
            f"{table.name!r} has {row.key.type_name}; their bytes would never be equal"
        )
    return _behind(
        flow, chosen, function, table.store, is_left, None, value_type, on_error, row.node
    )


def _behind(
    flow: Flow,
    name: str,
    function: UserFunction,
    store: StoreSpec,
    is_left: bool,
    mapper: UserFunction | None,
    value_type: TypeHint,
    on_error: OnError | None,
    *table: Node,
) -> Flow:
    node = JoinNode(
        name=name,
        parents=(flow.node, *table),
        on_error=on_error,
        function=function,
        store=store,
        is_left=is_left,
        mapper=mapper,
    )
    return flow.then(node, value=flow.value_serde(function, value_type))
