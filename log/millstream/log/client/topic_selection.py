"""The topics a consumer subscribed to: by name, or by pattern and then those created later too."""

from __future__ import annotations

import re
from collections.abc import Collection

from millstream.log.broker.partitions import Partitions
from millstream.log.config import INTERNAL_TOPICS
from millstream.log.errors import ConfigError

__all__ = ["TopicSelection"]


class TopicSelection:
    """What `subscribe` was given.

    Args:
        topics: names; one that begins with "^" is a pattern that the name must begin with, as in
            librdkafka.
        pattern: a pattern that a whole name must match, as in Kafka's `subscribe(Pattern)`.

    Raises:
        ConfigError: a pattern is no regular expression.
    """

    def __init__(self, topics: Collection[str], pattern: re.Pattern[str] | None = None) -> None:
        if isinstance(topics, str):
            raise TypeError("subscribe takes a collection of topic names, not one name")
        self.names = tuple(sorted({each for each in topics if not each.startswith("^")}))
        self._prefixes = [_compiled(each) for each in topics if each.startswith("^")]
        self._pattern = pattern

    @property
    def has_pattern(self) -> bool:
        """Whether topics that do not exist yet may be meant."""
        return bool(self._prefixes) or self._pattern is not None

    def topics(self, partitions: Partitions) -> tuple[str, ...]:
        """The topics that are meant now, sorted. Patterns leave the log's own topics out.

        Raises:
            UnknownTopicError: one that was named does not exist.
        """
        for name in self.names:
            partitions.topic(name)
        if not self.has_pattern:
            return self.names
        matching = {each for each in partitions.topics() if self._matches(each)}
        return tuple(sorted(matching.union(self.names)))

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
