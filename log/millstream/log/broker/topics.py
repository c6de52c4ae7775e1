"""Which topics there are: a small table, replaced as a whole by an atomic rename.

On disk, `topics.json`:

    {"version": 1, "topics": {"orders": {"id": "mD3C...", "partitions": 4, "config":
        {"retention.ms": "1000"}}}}

`config` holds only what was set, under Kafka's names; what was not follows the defaults of the
release that reads it. The table is the truth about which topics exist: it is written before the
folders of a new topic are made and after its deletion was decided, so that a crash in between
leaves a folder to make or to remove, never a topic in doubt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import orjson

from millstream.log.config import (
    INTERNAL_TOPICS,
    PARTITIONS_PER_TOPIC_MAX,
    TopicConfig,
    check_topic_name,
)
from millstream.log.errors import ConfigError, StorageError, TopicExistsError, UnknownTopicError
from millstream.log.ids import random_id
from millstream.log.record import TopicDescription, TopicPartition
from millstream.log.settings import SettingValue

__all__ = ["TOPICS_FILE", "Topic", "TopicTable", "new_topic"]

TOPICS_FILE = "topics.json"
_VERSION = 1


class Topic(NamedTuple):
    """One topic. `overrides` is what was set, `config` everything."""

    name: str
    topic_id: str
    partitions: int
    overrides: Mapping[str, str]
    config: TopicConfig

    @property
    def internal(self) -> bool:
        """Whether the log itself keeps its state in it."""
        return self.name in INTERNAL_TOPICS

    def topic_partitions(self) -> Iterator[TopicPartition]:
        """Every partition, in order."""
        return (TopicPartition(self.name, number) for number in range(self.partitions))

    def describe(self) -> TopicDescription:
        """As the public interface shows it."""
        return TopicDescription(
            self.name, self.topic_id, self.partitions, self.config.to_strings(), self.internal
        )


def new_topic(name: str, partitions: int, config: Mapping[str, SettingValue] | None) -> Topic:
    """A topic with a fresh id.

    Raises:
        InvalidTopicError, ConfigError: the name, the count or a setting is none Kafka would take.
    """
    check_topic_name(name)
    if not 1 <= partitions <= PARTITIONS_PER_TOPIC_MAX:
        raise ConfigError(
            f"Topic {name}: {partitions} partitions; it can have 1 to {PARTITIONS_PER_TOPIC_MAX}."
        )
    parsed = TopicConfig.parse(config, topic=name)
    printed = parsed.to_strings()
    overrides = {key: printed[key] for key in config or {}}
    return Topic(name, random_id(), partitions, overrides, parsed)


class TopicTable:
    """All topics by name."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}

    def __iter__(self) -> Iterator[Topic]:
        return iter(list(self._topics.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._topics

    def __len__(self) -> int:
        return len(self._topics)

    def get(self, name: str) -> Topic:
        """Raises UnknownTopicError that says how to create it."""
        topic = self._topics.get(name)
        if topic is None:
            raise UnknownTopicError(
                f"Topic {name!r} does not exist. Create it: "
                f"await log.create_topic({name!r}, partitions=...)."
            )
        return topic

    def unknown_partition(self, topic_partition: TopicPartition) -> UnknownTopicError:
        """The error for a partition that is not there: names the topic or the valid numbers."""
        try:
            topic = self.get(topic_partition.topic)
        except UnknownTopicError as error:
            return error
        return UnknownTopicError(
            f"Topic {topic.name} has no partition {topic_partition.partition}; it has "
            f"{topic.partitions}, numbered from 0."
        )

    def check_absent(self, name: str) -> None:
        """Raises TopicExistsError."""
        if name in self._topics:
            raise TopicExistsError(
                f"Topic {name} exists already. Pass exist_ok=True to use it as it is."
            )

    def put(self, topic: Topic) -> None:
        """Add a topic, or replace it."""
        self._topics[topic.name] = topic

    def remove(self, name: str) -> None:
        """Forget a topic."""
        self._topics.pop(name, None)

    def encode(self) -> bytes:
        """The bytes of `topics.json`."""
        topics = {
            topic.name: {
                "id": topic.topic_id,
                "partitions": topic.partitions,
                "config": dict(topic.overrides),
            }
            for topic in self._topics.values()
        }
        return orjson.dumps({"version": _VERSION, "topics": topics}, option=orjson.OPT_INDENT_2)

    @classmethod
    def decode(cls, data: bytes, path: str) -> TopicTable:
        """From the bytes of `topics.json`; `path` is for messages.

        Raises:
            StorageError: it is not such a file. Nothing was changed.
        """
        table = cls()
        try:
            document = orjson.loads(data)
            if document["version"] != _VERSION:
                raise StorageError(
                    f"{path} has version {document['version']}; this release reads {_VERSION}. "
                    "Open the log with the release that wrote it, or a newer one."
                )
            for name, entry in document["topics"].items():
                config = TopicConfig.parse(entry["config"], topic=name)
                table.put(
                    Topic(name, entry["id"], int(entry["partitions"]), entry["config"], config)
                )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"{path} is damaged ({error!r}). Restore it from a backup: it names the topics and "
                "their partition counts; the partition folders beside it hold the records."
            ) from error
        return table
