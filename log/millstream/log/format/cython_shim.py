"""Stands in for the `cython` module where Cython is not installed and the codec runs interpreted.

The names are those the compiled modules use. Each decorator gives back what it decorates and each
type is None, because interpreted code does not look at them; type checkers read this module, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

compiled: Literal[False] = False

longlong: Final = None
p_uchar: Final = None
Py_ssize_t: Final = None
uint: Final = None
ulonglong: Final = None


def declare(_type: object, value: Any = None) -> Any:
    """The C type of a global or an attribute, here its value alone."""
    return value


def _same(decorated: Decorated) -> Decorated:
    return decorated


def _with_arguments(*_types: object, **_named: object) -> Callable[[Decorated], Decorated]:
    return _same


cclass = cfunc = final = inline = _same
boundscheck = exceptval = locals = returns = _with_arguments  # noqa: A001  (Cython's name)
