"""What functions ask for, and what is refused."""

from __future__ import annotations

import functools
import operator
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from millstream.streams.context import Context
from millstream.streams.errors import TopologyError
from millstream.streams.functions import function_name, user_function
from millstream.streams.hints import UNKNOWN

if TYPE_CHECKING:
    from fractions import Fraction


@dataclass
class Order:
    amount: int


def arguments(call: Callable[..., Any], values: int = 1) -> tuple[tuple[str, str], ...]:
    return user_function(call, values, "test").arguments


def value_only(order: Order) -> Order:
    return order


def everything(order: Order, key: str, ctx: Context, *, window: object = None) -> Order:
    return order


def by_annotation(where: Context, order: Order) -> Order:
    return order


async def later(order: Order) -> Order:
    return order


async def many_later(order: Order) -> AsyncIterator[Order]:
    yield order


def many(order: Order) -> Iterator[Order]:
    yield order


def unresolvable(order: Order) -> Fraction:
    raise ArithmeticError


def test_parameters_are_asked_for_by_name() -> None:
    assert arguments(value_only) == (("0", ""),)
    assert arguments(everything) == (
        ("0", ""),
        ("key", ""),
        ("ctx", ""),
        ("window", "window"),
    )
    assert arguments(by_annotation) == (("ctx", ""), ("0", ""))
    assert arguments(lambda key: key, 0) == (("key", ""),)
    assert arguments(lambda state, value, key: key, 2) == (("0", ""), ("1", ""), ("key", ""))


def test_builtins_classes_and_partials_take_values() -> None:
    assert arguments(str.upper) == (("0", ""),)
    assert arguments(operator.itemgetter("a")) == (("0", ""),)
    assert arguments(max, 2) == (("0", ""), ("1", ""))
    assert arguments(Order) == (("0", ""),)
    assert arguments(functools.partial(value_only)) == (("0", ""),)
    assert arguments(lambda value, factor=2: value) == (("0", ""),)


def test_kinds() -> None:
    kinds = [user_function(f, 1, "t").kind for f in (value_only, many, later, many_later)]
    assert kinds == ["plain", "generator", "async", "async_generator"]


def test_types_come_from_annotations() -> None:
    assert user_function(value_only, 1, "t").value_type() is Order
    assert user_function(many, 1, "t").value_type() is Order
    assert user_function(many_later, 1, "t").value_type() is Order
    assert user_function(later, 1, "t").value_type() is Order
    assert user_function(lambda order: order, 1, "t").value_type() is UNKNOWN
    assert user_function(Order, 1, "t").value_type() is Order
    assert user_function(value_only, 1, "t").parameter_type(0) is Order


def test_an_optional_result_is_what_it_may_be() -> None:
    def maybe(order: Order) -> Order | None:
        return None

    assert user_function(maybe, 1, "t").value_type() is Order


def test_an_annotation_that_is_not_there_at_run_time() -> None:
    with pytest.raises(TopologyError, match=r"'Fraction' of unresolvable\(\) .* TYPE_CHECKING"):
        user_function(unresolvable, 1, "t").value_type()


@pytest.mark.parametrize(
    "call", [lambda: 0, lambda a, b: 0, lambda a, *, b: 0, lambda ctx: 0, lambda **each: 0]
)
def test_parameters_that_do_not_fit(call: Callable[..., Any]) -> None:
    with pytest.raises(TopologyError, match=r"filter: a lambda .* must take 1 value"):
        user_function(call, 1, "filter")


def test_what_is_no_function() -> None:
    number: Any = 5
    with pytest.raises(TopologyError, match="map needs a function, not 5"):
        user_function(number, 1, "map")


def test_names() -> None:
    assert function_name(lambda x: x) == ""
    assert function_name(functools.partial(value_only)) == "value_only"
    assert user_function(value_only, 1, "t").where.startswith("value_only() (test_functions.py:")


def test_only_a_plain_identity_is_one() -> None:
    assert user_function(lambda word: word, 1, "t").is_identity
    assert not user_function(lambda word: word + word, 1, "t").is_identity
    assert not user_function(lambda word, key: word, 1, "t").is_identity
