"""The regular expressions of RE2 that clients name topics by, as trees.

Literals, `.`, classes, groups, `|`, repetitions, `^`, `$`, `(?i)`; no word boundaries, no Unicode
properties.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import NamedTuple

from .modern_values import InvalidRegularExpressionError

__all__ = ["Char", "Edge", "Either", "Node", "Repeat", "Sequence", "Test", "parsed", "wrong"]

_DEPTH_MAX = 50
_REPEATS_MAX = 1_000

Test = Callable[[str], bool]
"""Whether a character fits."""


class Char(NamedTuple):
    """One character. `cost`: about how many steps a test takes."""

    test: Test
    cost: int = 1


class Edge(NamedTuple):
    """The start or the end of the text."""

    is_start: bool


class Sequence(NamedTuple):
    """One after the other."""

    nodes: tuple[Node, ...]


class Either(NamedTuple):
    """One of them."""

    nodes: tuple[Node, ...]


class Repeat(NamedTuple):
    """`least` times to `most` times, or as often as there is."""

    node: Node
    least: int
    most: int | None


Node = Char | Edge | Sequence | Either | Repeat

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_WORD = frozenset(string.ascii_letters + string.digits + "_")
_CLASSES = {"d": frozenset(string.digits), "w": _WORD, "s": frozenset("\t\n\f\r ")}
_NAMED = {
    "alnum": frozenset(string.ascii_letters + string.digits),
    "alpha": frozenset(string.ascii_letters),
    "digit": frozenset(string.digits),
    "lower": frozenset(string.ascii_lowercase),
    "punct": frozenset(string.punctuation),
    "upper": frozenset(string.ascii_uppercase),
    "word": _WORD,
    "xdigit": frozenset(string.hexdigits),
}


def parsed(pattern: str) -> Node:
    """Raises InvalidRegularExpressionError: it is no pattern."""
    return _Parser(pattern).tree()


def wrong(pattern: str, why: str) -> InvalidRegularExpressionError:
    """The error for this pattern."""
    shown = pattern if len(pattern) <= 100 else f"{pattern[:100]}..."
    return InvalidRegularExpressionError(
        f"The pattern {shown!r} for topics {why}. Patterns are RE2's, without word boundaries and "
        "Unicode properties."
    )


class _Parser:
    """A pattern as a tree."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._text = pattern
        self._at = 0
        self._depth = 0
        self._any_case = False
        if pattern.startswith(("(?i)", "(?s)")):
            self._any_case = pattern.startswith("(?i)")
            self._at = 4

    def tree(self) -> Node:
        node = self._either()
        if self._at < len(self._text):
            raise self._error("closes a group that was not opened")
        return node

    def _error(self, why: str) -> InvalidRegularExpressionError:
        return wrong(self._pattern, why)

    def _take(self, token: str) -> bool:
        if self._text.startswith(token, self._at):
            self._at += len(token)
            return True
        return False

    def _next(self) -> str:
        if self._at >= len(self._text):
            raise self._error("ends too early")
        self._at += 1
        return self._text[self._at - 1]

    def _either(self) -> Node:
        branches = [self._sequence()]
        while self._take("|"):
            branches.append(self._sequence())
        return branches[0] if len(branches) == 1 else Either(tuple(branches))

    def _sequence(self) -> Node:
        nodes: list[Node] = []
        while self._at < len(self._text) and self._text[self._at] not in "|)":
            if self._take("\\Q"):
                end = self._text.find("\\E", self._at)
                literal = self._text[self._at : end if end >= 0 else None]
                self._at += len(literal) + (2 if end >= 0 else 0)
                nodes += [self._char(frozenset(each)) for each in literal]
            else:
                nodes.append(self._repeated(self._atom()))
        return Sequence(tuple(nodes))

    def _repeated(self, node: Node) -> Node:
        bounds = self._bounds()
        if bounds is None:
            return node
        self._take("?")  # what a lazy one matches in the end is the same
        if self._bounds() is not None:
            raise self._error("repeats a repetition")
        return Repeat(node, *bounds)

    def _bounds(self) -> tuple[int, int | None] | None:
        for token, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self._take(token):
                return bounds
        end = self._text.find("}", self._at)
        if end < 0 or self._text[self._at : self._at + 1] != "{":
            return None
        low, comma, high = self._text[self._at + 1 : end].partition(",")
        if not _is_number(low) or (high and not _is_number(high)):
            return None  # a brace like any other character
        self._at = end + 1
        least = int(low)
        most = int(high) if high else None if comma else least
        if max(least, most or 0) > _REPEATS_MAX or (most is not None and most < least):
            raise self._error("repeats too often, or in the wrong order")
        return least, most

    def _atom(self) -> Node:
        char = self._next()
        if char == "(":
            return self._group()
        if char in "^$":
            return Edge(is_start=char == "^")
        if char == ".":
            return Char(_anything)
        if char == "[":
            return self._class()
        if char in "*+?":
            raise self._error("repeats nothing")
        return self._escape() if char == "\\" else self._char(frozenset(char))

    def _group(self) -> Node:
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise self._error("has groups in groups too deep")
        if self._take("?P<") or self._take("?<"):
            end = self._text.find(">", self._at)
            if end < 0 or not self._text[self._at : end].isidentifier():
                raise self._error("has a group of which the name is none")
            self._at = end + 1
        elif not self._take("?:") and self._take("?"):
            raise self._error("has a kind of group that is not known")
        node = self._either()
        if not self._take(")"):
            raise self._error("has a group that is not closed")
        self._depth -= 1
        return node

    def _escape(self) -> Node:
        if self._take("A"):
            return Edge(is_start=True)
        if self._take("z"):
            return Edge(is_start=False)
        chars, negated = self._escaped()
        return self._char(chars, negated=negated)

    def _escaped(self) -> tuple[frozenset[str], bool]:
        char = self._next()
        if char.lower() in _CLASSES:
            return _CLASSES[char.lower()], char.isupper()
        if char in _ESCAPES:
            return frozenset(_ESCAPES[char]), False
        if char.isascii() and char.isalnum():
            raise self._error(f"has \\{char}, which is not known")
        return frozenset(char), False

    def _class(self) -> Node:
        negated = self._take("^")
        tests: list[Test] = []
        first = True
        while first or not self._take("]"):
            first = False
            tests.append(self._range())
        if self._any_case:
            tests = [_any_case(each) for each in tests]
        return Char(lambda char: any(test(char) for test in tests) is not negated, len(tests))

    def _range(self) -> Test:
        """One item of a class."""
        if self._take("[:"):
            end = self._text.find(":]", self._at)
            name = self._text[self._at : max(end, self._at)]
            if name not in _NAMED:
                raise self._error("has a named class that is not known")
            self._at = end + 2
            return _NAMED[name].__contains__
        low, is_negated = self._item()
        rest = self._text[self._at : self._at + 2]
        if len(low) != 1 or is_negated or rest[:1] != "-" or rest in ("-", "-]"):
            return lambda char: (char in low) is not is_negated
        self._at += 1
        high, is_negated = self._item()
        if len(high) != 1 or is_negated or min(high) < min(low):
            raise self._error("has a range in the wrong order")
        least, most = min(low), min(high)
        return lambda char: least <= char <= most

    def _item(self) -> tuple[frozenset[str], bool]:
        char = self._next()
        return self._escaped() if char == "\\" else (frozenset(char), False)

    def _char(self, chars: frozenset[str], *, negated: bool = False) -> Node:
        test: Test = lambda char: (char in chars) is not negated  # noqa: E731
        return Char(_any_case(test) if self._any_case else test)


def _anything(_char: str) -> bool:
    return True


def _any_case(test: Test) -> Test:
    return lambda char: test(char.lower()) or test(char.upper())


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 4
