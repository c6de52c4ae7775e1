"""Names of topics by a regular expression that came over the network.

Python's `re` tries possibilities one after the other, which a pattern can make take for ever. Here
all are followed at once, in steps that are counted: a pattern costs so much and not more.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from .pattern_syntax import Char, Edge, Either, Node, Sequence, Test, parsed, wrong

__all__ = ["topics_matching"]

_STATES_MAX = 2_000
_STEPS_MAX = 1_000_000
"""Well below a second."""
_KEPT = 64


def topics_matching(pattern: str, names: Iterable[str]) -> frozenset[str]:
    """Those of the names that the whole pattern is about.

    Raises:
        InvalidRegularExpressionError: it is no pattern, or one that costs too much.
    """
    return _matching(pattern, tuple(names))


@lru_cache(_KEPT)
def _matching(pattern: str, names: tuple[str, ...]) -> frozenset[str]:
    machine = _Machine(pattern)
    return frozenset(name for name in names if machine.matches(name))


class _Machine:
    """A state has a character to pass, or an edge, or nothing; and where it leads."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._tests: list[Test | None] = [None]
        self._costs: list[int] = [1]
        self._edges: list[bool | None] = [None]  # True: passed at the start only; False: the end
        self._next: list[list[int]] = [[]]
        self._steps_left = _STEPS_MAX
        self._after: dict[tuple[frozenset[int], str], frozenset[int]] = {}
        first = self._built(parsed(pattern), 0)
        self._first = self._closed({first}, at_start=True)

    def matches(self, text: str) -> bool:
        """Whether it is all of this text (not empty) that the pattern is about."""
        states = self._first
        for char in text:
            known = self._after.get((states, char))
            if known is None:
                known = self._passed(states, char)
                self._after[states, char] = known
            states = known
            self._spend(1)
        return 0 in self._closed(states, at_end=True)

    def _passed(self, states: frozenset[int], char: str) -> frozenset[int]:
        self._spend(sum(self._costs[state] for state in states))
        reached: set[int] = set()
        for state in states:
            test = self._tests[state]
            if test is not None and test(char):
                reached.update(self._next[state])
        return self._closed(reached)

    def _closed(
        self, states: Iterable[int], *, at_start: bool = False, at_end: bool = False
    ) -> frozenset[int]:
        """Also what is reached from there without a character."""
        found: set[int] = set()
        waiting = list(states)
        while waiting:
            state = waiting.pop()
            if state in found:
                continue
            found.add(state)
            edge = self._edges[state]
            passes = edge is None or (at_start if edge else at_end)
            if self._tests[state] is None and passes:
                waiting += self._next[state]
                self._spend(len(self._next[state]))
        self._spend(len(found))
        return frozenset(found)

    def _spend(self, steps: int) -> None:
        self._steps_left -= steps
        if self._steps_left < 0:
            raise wrong(self._pattern, "takes too long")

    def _state(self, test: Test | None, edge: bool | None, *following: int, cost: int = 1) -> int:
        if len(self._next) >= _STATES_MAX:
            raise wrong(self._pattern, "is too large")
        self._tests.append(test)
        self._costs.append(cost)
        self._edges.append(edge)
        self._next.append(list(following))
        return len(self._next) - 1

    def _built(self, node: Node, then: int) -> int:
        """The state to begin in for `node` and what is in `then` after it."""
        if isinstance(node, Char):
            return self._state(node.test, None, then, cost=node.cost)
        if isinstance(node, Edge):
            return self._state(None, node.is_start, then)
        if isinstance(node, Sequence):
            for each in reversed(node.nodes):
                then = self._built(each, then)
            return then
        if isinstance(node, Either):
            return self._state(None, None, *(self._built(each, then) for each in node.nodes))
        if node.most is None:
            loop = self._state(None, None, then)
            self._next[loop].append(self._built(node.node, loop))
            then = loop
        else:
            for _ in range(node.most - node.least):
                then = self._state(None, None, then, self._built(node.node, then))
        for _ in range(node.least):
            then = self._built(node.node, then)
        return then
