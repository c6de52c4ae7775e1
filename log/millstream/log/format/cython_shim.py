"""Stands in for the `cython` module where Cython is not installed and the codec runs interpreted.

The names are those `codec.py` uses; each decorator gives the function back unchanged, each type is
None, because interpreted code does not look at them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

compiled = False

longlong = None
p_uchar = None
Py_ssize_t = None
uint = None
ulonglong = None


def _same(function: Decorated) -> Decorated:
    return function


def _with_arguments(*_types: object, **_named: object) -> Callable[[Decorated], Decorated]:
    return _same


cfunc = inline = _same
exceptval = locals = returns = _with_arguments
