"""Generated source: lines, how deep they stand, and which step each belongs to."""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from types import CodeType, TracebackType
from typing import Final, Literal

from millstream.streams.functions import UserFunction
from millstream.streams.nodes import Node

__all__ = ["Code", "Program", "Site"]

Part = Literal["function", "key", "value", "timestamp", "serialize", "state"]

_numbers: Final = count()


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """What a generated line does: which part of which step."""

    node: Node
    part: Part
    function: UserFunction | None = None

    @property
    def is_deserialization(self) -> bool:
        return self.part in ("key", "value", "timestamp")


class Code:
    """Lines under construction."""

    def __init__(self, depth: int = 0) -> None:
        self.depth = depth
        self.lines: list[tuple[str, Site | None]] = []

    def add(self, text: str, site: Site | None = None) -> None:
        self.lines.append(("    " * self.depth + text, site))

    def extend(self, other: Code) -> None:
        """Append lines that were written with their final depth."""
        self.lines.extend(other.lines)

    @contextmanager
    def block(self, header: str, site: Site | None = None) -> Iterator[None]:
        """A line that ends with a colon, and what stands under it; `pass` if nothing does."""
        self.add(header, site)
        before = len(self.lines)
        self.depth += 1
        yield
        if len(self.lines) == before:
            self.add("pass")
        self.depth -= 1


class Program:
    """Compiled source, and the way back from one of its lines to the step."""

    def __init__(self, name: str, code: Code) -> None:
        self.source = "\n".join(text for text, _ in code.lines) + "\n"
        self._sites = {i: site for i, (_, site) in enumerate(code.lines, 1) if site is not None}
        self.filename = f"<millstream {name} {next(_numbers)}>"
        self.code: CodeType = compile(self.source, self.filename, "exec")
        # Tracebacks then show the generated line, as they do for a file.
        linecache.cache[self.filename] = (
            len(self.source),
            None,
            self.source.splitlines(keepends=True),
            self.filename,
        )

    def site_of(self, traceback: TracebackType | None) -> Site | None:
        """The step an exception came from; None when it came from no step of this program."""
        site = None
        while traceback is not None:
            if traceback.tb_frame.f_code.co_filename == self.filename:
                site = self._sites.get(traceback.tb_lineno, site)
            traceback = traceback.tb_next
        return site
