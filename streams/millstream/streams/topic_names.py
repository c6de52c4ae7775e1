"""Under which names an app's topics lie in the log.

Normally under their own. A replay writes to shadow topics, `<id>.<topic>`, and whatever the app
reads of its own output it must read there too; the topology itself keeps the names of the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from millstream.log.record import TopicPartition

__all__ = ["TopicNames"]


@dataclass(frozen=True, slots=True)
class TopicNames:
    """Names in the code to names in the log, and back. Topics not listed keep their name."""

    shadows: Mapping[str, str] = field(default_factory=dict)

    def in_log(self, topic: str) -> str:
        """Where a topic of the code lies in the log."""
        return self.shadows.get(topic, topic)

    def in_code(self, topic: str) -> str:
        """What the code calls a topic of the log."""
        for name, shadow in self.shadows.items():
            if shadow == topic:
                return name
        return topic

    def partition(self, topic: str, partition: int) -> TopicPartition:
        """A partition in the log of a topic of the code."""
        return TopicPartition(self.in_log(topic), partition)
