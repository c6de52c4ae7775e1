"""What the generated code knows about the record at one point: which variable holds what.

A key or a value is there as bytes, as an object, or both; decoding is written where it is first
needed, and what is written in a block is known in that block and inside it only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from millstream.streams.nodes import Node
from millstream.streams.serde import Serde

__all__ = ["Scope", "Slot", "WindowSlot"]


@dataclass(slots=True)
class Slot:
    """A key or a value. At least one of `raw` and `obj` names a variable."""

    raw: str | None
    obj: str | None
    serde: Serde[Any]
    origin: Node
    """The step that gave it, for errors in decoding."""
    nullable: bool = True

    @property
    def any_form(self) -> str:
        """A variable that is None exactly when this is null."""
        return self.raw or self.obj or "None"

    def variables(self) -> list[str]:
        return [each for each in (self.raw, self.obj) if each is not None]

    def copy(self) -> Slot:
        return replace(self)


@dataclass(slots=True)
class WindowSlot:
    """A windowed key: the inner key, and the variables of the window."""

    inner: Slot
    start: str
    end: str
    serde: Serde[Any]
    raw: str | None = None
    obj: str | None = None
    nullable: bool = False

    @property
    def any_form(self) -> str:
        return self.inner.any_form

    def variables(self) -> list[str]:
        own = [each for each in (self.raw, self.obj) if each is not None]
        return [*self.inner.variables(), self.start, self.end, *own]

    def copy(self) -> WindowSlot:
        return replace(self, inner=self.inner.copy())


@dataclass(slots=True)
class Scope:
    """The record at hand."""

    key: Slot | WindowSlot
    value: Slot
    timestamp: str
    headers: str | None
    """None where no record has headers."""
    offset: str
    now: str
    """Stream time as of this record."""
    origin: str
    """An expression: the record as it was read, as a tuple, for errors behind an async step."""
    window: str | None = None
    """A `Window` object."""
    context: str | None = None

    def with_value(self, value: Slot) -> Scope:
        """The record with another value; the key is still shared."""
        return replace(self, value=value)

    def with_key(self, key: Slot | WindowSlot) -> Scope:
        # A Context shows the key, so a new key needs a new one.
        return replace(self, key=key, context=None)

    def nested(self) -> Scope:
        """The record inside a block: what is decoded there is not known outside."""
        return replace(self, key=self.key.copy(), value=self.value.copy())

    def variables(self) -> list[str]:
        """Every variable that was made on the way here, once."""
        names = [*self.key.variables(), *self.value.variables(), self.timestamp]
        names += [each for each in (self.window, self.context) if each is not None]
        return list(dict.fromkeys(names))
