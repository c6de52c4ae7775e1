"""What a consumer without a group reads: every partition of its topics, those added later too.

Kafka's consumers learn of added partitions from metadata, within metadata.max.age.ms; here they are
told at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from millstream.log.broker.partitions import Partitions

from .fetcher import Fetcher

__all__ = ["WholeTopics"]


class WholeTopics:
    """The topics of one consumer.

    Args:
        wake: called when a poll that waits should stop waiting.
    """

    def __init__(
        self, partitions: Partitions, topics: Collection[str], wake: Callable[[], None]
    ) -> None:
        self._partitions = partitions
        self._topics = tuple(topics)
        self._wake = wake
        self._is_assigned = False
        self._changed = True
        partitions.on_partitions_added.add(self._added)

    def assign(self, fetcher: Fetcher) -> None:
        """Give the fetcher the partitions it does not have yet. Those added meanwhile are read from
        their beginning, wherever the consumer began to read the topic: nothing in them is older.

        Raises:
            UnknownTopicError: a topic does not exist; nothing is assigned.
        """
        if not self._changed:
            return
        wanted = [
            partition
            for topic in self._topics
            for partition in self._partitions.topic(topic).topic_partitions()
        ]
        added = set(wanted) - fetcher.assignment() if self._is_assigned else set()
        fetcher.assign(wanted)
        for partition in added:
            fetcher.seek(partition, self._partitions.beginning_offset(partition))
        self._changed, self._is_assigned = False, True

    def close(self) -> None:
        """Hear of no more partitions."""
        self._partitions.on_partitions_added.discard(self._added)

    def _added(self, topic: str) -> None:
        if topic in self._topics:
            self._changed = True
            self._wake()
