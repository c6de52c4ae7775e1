"""The topics a consumer subscribed to, by name or by pattern, looked up anew now and then.

librdkafka has patterns of its own, in another dialect. These are Python's, as everywhere else, and
what they match is looked up here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection

from millstream.log.config import INTERNAL_TOPICS
from millstream.log.errors import ConfigError

from .kafka_admin import KafkaAdmin

__all__ = ["TopicSelection"]


class TopicSelection:
    """What `subscribe` was given.

    Args:
        topics: names; one that begins with "^" is a pattern that the name must begin with.
        pattern: a pattern that a whole name must match.
        group: None: whole topics are read, whose partitions may become more.
        max_age_ms: after which topics are looked up anew.

    Raises:
        ConfigError: a pattern is no regular expression, or there is no group to share topics that
            match one.
    """

    def __init__(
        self,
        topics: Collection[str],
        pattern: re.Pattern[str] | None,
        group: str | None,
        max_age_ms: int,
    ) -> None:
        if isinstance(topics, str):
            raise TypeError("subscribe takes a collection of topic names, not one name")
        self._names = tuple(sorted({each for each in topics if not each.startswith("^")}))
        self._prefixes = [_compiled(each) for each in topics if each.startswith("^")]
        self._pattern = pattern
        has_pattern = bool(self._prefixes) or pattern is not None
        if has_pattern and group is None:
            raise ConfigError(
                "This consumer has no group; make it with log.consumer(..., group=...)."
            )
        self._has_pattern = has_pattern
        self._is_looked_up_anew = has_pattern or group is None
        self._max_age_s = max_age_ms / 1000
        self._due_s = 0.0
        self._found: tuple[str, ...] | None = None

    async def changed(self, admin: KafkaAdmin) -> tuple[str, ...] | None:
        """The topics that are meant now, sorted; None when it is not time to look, or they are
        those that `are_read`. Patterns leave Kafka's own topics out."""
        is_due = self._is_looked_up_anew and time.monotonic() >= self._due_s
        if self._found is not None and not is_due:
            return None
        self._due_s = time.monotonic() + self._max_age_s
        found = self._names
        if self._has_pattern:
            matching = {each for each in await admin.names() if self._matches(each)}
            found = tuple(sorted(matching.union(self._names)))
            if found == self._found:
                return None
        self._found = None
        return found

    def are_read(self, topics: tuple[str, ...]) -> None:
        """What was answered is read now. Who fails before asks again."""
        self._found = topics

    def _matches(self, topic: str) -> bool:
        if topic in INTERNAL_TOPICS:
            return False
        if self._pattern is not None and self._pattern.fullmatch(topic):
            return True
        return any(each.match(topic) for each in self._prefixes)


def _compiled(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(
            f"Topic {text!r} begins with ^, so it is a pattern, and it is none: {error}."
        ) from error
