"""A user function as the topology knows it: its name, what it asks for, what it gives.

A function asks by parameter name: `key` (the record's key), `window` (a `Window`), `ctx`, or any
parameter annotated `Context`. All other parameters are values, in order: the value for most steps,
state and value for a fold, both sides for a join.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from .context import Context
from .errors import TopologyError
from .hints import UNKNOWN, element_type, resolve, without_none

__all__ = ["Argument", "FunctionKind", "UserFunction", "function_name", "user_function"]

FunctionKind = Literal["plain", "generator", "async", "async_generator"]
Argument = tuple[str, str]
"""What is passed ("0", "1": the values; "key", "window", "ctx"), as which keyword ("" = none)."""

_BY_NAME = ("key", "window", "ctx")


def _identity(value: Any) -> Any:
    return value


_IDENTITY = (_identity.__code__.co_code, 1)


@dataclass(frozen=True, slots=True, eq=False)
class UserFunction:
    """A function and how to call it."""

    call: Callable[..., Any]
    name: str
    """`__name__`; empty for a lambda, which names nothing."""
    where: str
    """For messages: `late() (app.py:12)`."""
    kind: FunctionKind
    arguments: tuple[Argument, ...]

    def asks_for(self, name: str) -> bool:
        return any(what == name for what, _ in self.arguments)

    @property
    def is_identity(self) -> bool:
        """Whether it is a `lambda x: x`, which needs no call."""
        code = getattr(self.call, "__code__", None)
        return code is not None and (code.co_code, code.co_argcount) == _IDENTITY

    @property
    def is_async(self) -> bool:
        return self.kind in ("async", "async_generator")

    @property
    def gives_many(self) -> bool:
        return self.kind in ("generator", "async_generator")

    def result_type(self) -> Any:
        """The annotated result, `UNKNOWN` without annotation.

        Raises:
            TopologyError: the annotation names something that cannot be found at run time.
        """
        if isinstance(self.call, type):
            return self.call
        plain = _unwrapped(self.call)
        annotation = getattr(plain, "__annotations__", {}).get("return", UNKNOWN)
        try:
            return resolve(annotation, plain)
        except NameError as error:
            raise TopologyError(
                f"the result annotation {annotation!r} of {self.where} cannot be resolved "
                f"({error}): import the name outside `if TYPE_CHECKING`, or say value_type=... "
                f"(key_type=... for a key function) at the step"
            ) from error

    def value_type(self) -> Any:
        """Type of one result: of what is yielded for a generator, without `None`."""
        result = self.result_type()
        return without_none(element_type(result) if self.gives_many else result)

    def parameter_type(self, index: int) -> Any:
        """The annotated type of value parameter `index`, `UNKNOWN` where it says nothing."""
        plain = _unwrapped(self.call)
        try:
            parameters = list(inspect.signature(plain).parameters.values())
        except (ValueError, TypeError):
            return UNKNOWN
        values = [each for each in parameters if not _asks(each)]
        if index >= len(values) or values[index].annotation is inspect.Parameter.empty:
            return UNKNOWN
        try:
            return resolve(values[index].annotation, plain)
        except NameError:
            return UNKNOWN


def _unwrapped(call: Callable[..., Any]) -> Callable[..., Any]:
    while isinstance(call, functools.partial):
        call = call.func
    call = inspect.unwrap(call)
    return call if hasattr(call, "__code__") else getattr(call, "__call__", call)  # noqa: B004


def function_name(call: Callable[..., Any]) -> str:
    """The name a step takes from its function; empty for a lambda."""
    while isinstance(call, functools.partial):
        call = call.func
    name = getattr(call, "__name__", type(call).__name__)
    return "" if name == "<lambda>" else name


def _where(call: Callable[..., Any]) -> str:
    code = getattr(_unwrapped(call), "__code__", None)
    name = function_name(call)
    if code is None:
        return f"{name}()"
    file = code.co_filename.rpartition("/")[2]
    return f"{f'{name}()' if name else 'a lambda'} ({file}:{code.co_firstlineno})"


def _kind(call: Callable[..., Any]) -> FunctionKind:
    plain = _unwrapped(call)
    if inspect.isasyncgenfunction(plain):
        return "async_generator"
    if inspect.iscoroutinefunction(plain):
        return "async"
    return "generator" if inspect.isgeneratorfunction(plain) else "plain"


def user_function(call: Callable[..., Any], values: int, role: str) -> UserFunction:
    """Look at a function that is to be given `values` values.

    Args:
        role: what it is for, for messages: "filter", "the key function of group_by", ...

    Raises:
        TopologyError: not callable, or its parameters do not fit.
    """
    if not callable(call):
        raise TopologyError(f"{role} needs a function, not {call!r}")
    where = _where(call)
    try:
        signature = inspect.signature(call)
    except (ValueError, TypeError):  # some builtins have none; they take plain values
        arguments = tuple((str(i), "") for i in range(values))
    else:
        by_name = not isinstance(call, type)
        arguments = tuple(_arguments(signature, values, by_name, f"{role}: {where}"))
    return UserFunction(call, function_name(call), where, _kind(call), arguments)


def _arguments(
    signature: inspect.Signature, values: int, by_name: bool, what: str
) -> Iterator[Argument]:
    given = 0
    for parameter in signature.parameters.values():
        asked = _asks(parameter) if by_name else None
        keyword = parameter.name if parameter.kind is parameter.KEYWORD_ONLY else ""
        if parameter.kind is parameter.VAR_KEYWORD:
            continue
        if parameter.kind is parameter.VAR_POSITIONAL:
            yield from ((str(i), "") for i in range(given, values))
            given = values
        elif asked is not None:
            yield asked, keyword
        elif given < values and not keyword:
            yield str(given), ""
            given += 1
        elif parameter.default is parameter.empty:
            given = values + 1
            break
        elif not keyword:
            break  # a default nobody fills: what follows cannot be passed by position either
    if given != values:
        raise TopologyError(
            f"{what} must take {values} value{'s' if values > 1 else ''}, and may take "
            f"key, window and ctx by these names; its parameters are {signature}"
        )


def _asks(parameter: inspect.Parameter) -> str | None:
    annotation = parameter.annotation
    if annotation is Context:
        return "ctx"
    if isinstance(annotation, str) and annotation.rpartition(".")[2] == "Context":
        return "ctx"
    return parameter.name if parameter.name in _BY_NAME else None
