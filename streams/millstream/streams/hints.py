"""What the annotations of a user function say, and how to take such types apart."""

from __future__ import annotations

import sys
import types
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import Any, Final, ForwardRef, Union, get_args, get_origin

from .errors import TopologyError

__all__ = ["UNKNOWN", "element_type", "pair_types", "resolve", "without_none"]


class _Unknown:
    """The type of what nobody annotated."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown()

_MANY = (Iterator, Iterable, Generator, AsyncIterator, AsyncIterable, AsyncGenerator, list, tuple)


def resolve(annotation: Any, owner: Callable[..., Any]) -> Any:
    """The type an annotation of `owner` (a function or a class) stands for.

    Annotations are texts under `from __future__ import annotations`; names are looked up where the
    owner was defined, and in the callers at hand, so that a class local to a test is found.

    Raises:
        NameError: a name in the text cannot be found.
    """
    if annotation is None:
        return None
    if isinstance(annotation, ForwardRef):  # NamedTuple makes these of texts
        annotation = annotation.__forward_arg__
    if not isinstance(annotation, str):
        return annotation
    module = sys.modules.get(owner.__module__)
    scopes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (getattr(owner, "__globals__", getattr(module, "__dict__", {})), _closure(owner))
    ]
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        scopes.append((frame.f_globals, frame.f_locals))
    missing: NameError | None = None
    for global_names, local_names in scopes:
        try:
            return eval(annotation, global_names, local_names)  # as typing.get_type_hints does
        except NameError as error:
            missing = missing or error
    raise missing or NameError(annotation)


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    names = getattr(getattr(function, "__code__", None), "co_freevars", ())
    cells = getattr(function, "__closure__", None) or ()
    return dict(zip(names, (cell.cell_contents for cell in cells), strict=True)) if cells else {}


def without_none(hint: Any) -> Any:
    """`X` for `X | None`, everything else as it is."""
    if get_origin(hint) in (Union, types.UnionType):
        rest = tuple(member for member in get_args(hint) if member is not type(None))
        if len(rest) < len(get_args(hint)):
            return rest[0] if len(rest) == 1 else Union[rest]  # noqa: UP007 - built at run time
    return hint


def element_type(hint: Any) -> Any:
    """`X` for `Iterator[X]`, `Generator[X, ...]`, `list[X]` and the like; else `UNKNOWN`."""
    if get_origin(hint) in _MANY and get_args(hint):
        return get_args(hint)[0]
    return UNKNOWN


def pair_types(hint: Any, where: str) -> tuple[Any, Any]:
    """`(K, V)` for `tuple[K, V]`; both `UNKNOWN` where the type says nothing.

    Raises:
        TopologyError: the type is known and is not a pair.
    """
    hint = without_none(hint)
    if hint is UNKNOWN or hint is Any or hint is tuple:
        return UNKNOWN, UNKNOWN
    arguments = get_args(hint)
    if get_origin(hint) is tuple and len(arguments) == 2 and arguments[1] is not Ellipsis:
        return arguments[0], arguments[1]
    raise TopologyError(f"{where} must return a pair (key, value), it is annotated {hint!r}")
