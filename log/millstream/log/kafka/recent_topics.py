"""Topics that were made a moment ago: the server that made one has answered, and not every other
server of the cluster knows of it yet."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from millstream.log.errors import LogUnavailableError, UnknownTopicError

__all__ = ["RecentTopics"]

KNOWN_WITHIN_S: Final = 15.0
"""How long a server may take to hear of a topic: it may be one that starts."""


class RecentTopics:
    """Names, from any thread."""

    def __init__(self) -> None:
        self._made: dict[str, float] = {}

    def add(self, name: str) -> None:
        """It was made, or was there already."""
        self._made[name] = time.monotonic()

    def discard(self, name: str) -> None:
        """It was deleted."""
        self._made.pop(name, None)

    def __contains__(self, name: str) -> bool:
        made = self._made.get(name)
        return made is not None and time.monotonic() < made + KNOWN_WITHIN_S

    @contextmanager
    def known(self, name: str) -> Iterator[None]:
        """In the body a topic that is unknown although it is one of these is there soon, which is
        raised as LogUnavailableError."""
        try:
            yield
        except UnknownTopicError as error:
            if name not in self:
                raise
            raise LogUnavailableError(
                f"Topic {name} was made a moment ago, and a server does not know of it yet: {error}"
            ) from error
