"""Topics by a client's regular expression: as Python's `re` finds them, at a bounded cost."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.broker.modern_values import InvalidRegularExpressionError
from millstream.log.broker.topic_patterns import topics_matching

ATOMS = ["a", "b", ".", "[ab]", "[^a]", "(a|b)", "\\w", "(?:ab)", "^", "$", "\\.", "[a-c.]", "(a|)"]
ATOM = st.builds(
    str.__add__,
    st.sampled_from(ATOMS[:8] + ATOMS[10:]),
    st.sampled_from(["", "*", "+", "?", "{2}", "{1,2}", "{0,}", "*?"]),
)
PATTERN = st.lists(st.one_of(ATOM, st.sampled_from(["|", "^", "$"])), max_size=8).map("".join)
NAMES = st.lists(st.text("abc.", min_size=1, max_size=6), max_size=6)


@given(PATTERN, NAMES)
def test_a_pattern_means_what_it_means_to_python(pattern: str, names: list[str]) -> None:
    expected = {name for name in names if re.fullmatch(pattern, name)}
    assert topics_matching(pattern, names) == expected


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("orders-.*", {"orders-1", "orders-2"}),
        ("(?i)ORDERS-[0-1]", {"orders-1"}),
        ("\\Qa.b\\E|x", {"a.b"}),
        ("[[:alpha:]]+-\\d", {"orders-1", "orders-2"}),
        ("(?P<kind>orders|bills)-2$", {"orders-2"}),
        ("^(^orders-1|a.b)", {"orders-1", "a.b", "axb"}),
        ("a[^.]b", {"axb"}),
        ("a{b", set()),
        ("", set()),
    ],
)
def test_the_syntax_is_re2s(pattern: str, found: set[str]) -> None:
    assert topics_matching(pattern, ["orders-1", "orders-2", "a.b", "axb"]) == found


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        ")",
        "[a",
        "*",
        "a**",
        "\\",
        "\\b",
        "\\p{L}",
        "a{2,1}",
        "(?=a)",
        "(a{1000}){1000}",
        "[b-a]",
        "(" * 60 + ")" * 60,
    ],
)
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidRegularExpressionError, match="pattern") as raised:
        topics_matching(pattern, ["a"])
    assert raised.value.kafka_code == 128


def test_a_pattern_cannot_hold_up_everybody() -> None:
    """With Python's `re` the first of these takes years."""
    name = "a" * 100
    began = time.process_time()
    assert topics_matching("(a+)+(a+)+(a+)+b", [name]) == frozenset()
    with pytest.raises(InvalidRegularExpressionError, match="too long"):
        topics_matching("(a?){400}(b?){400}c", [f"{'a' * n}{'b' * n}" for n in range(1, 120)])
    with pytest.raises(InvalidRegularExpressionError, match="too long"):
        topics_matching(f".{{0,99}}[{'x' * 30_000}]", [f"{number}" * 99 for number in range(10)])
    assert time.process_time() - began < 10
