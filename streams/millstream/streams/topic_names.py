"""Under which names an app's topics lie in the log.

Normally under their own. A replay writes to shadow topics, `<id>.<topic>`, and whatever the app
reads of its own output it must read there too; the topology itself keeps the names of the code.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["TopicNames"]


class TopicNames:
    """Names in the code to names in the log, and back. Topics not listed keep their name."""

    def __init__(self, shadows: Mapping[str, str] | None = None) -> None:
        self._in_log = dict(shadows or {})
        self._in_code = {shadow: name for name, shadow in self._in_log.items()}

    def in_log(self, topic: str) -> str:
        """Where a topic of the code lies in the log."""
        return self._in_log.get(topic, topic)

    def in_code(self, topic: str) -> str:
        """What the code calls a topic of the log."""
        return self._in_code.get(topic, topic)
