"""Which topics there are: a small table, replaced as a whole by an atomic rename.

On disk, `topics.json`:

    {"version": 1, "topics": {"orders": {"id": "mD3C...", "partitions": 4, "config":
        {"retention.ms": "1000"}}}, "deleted": ["x9Qz..."]}

`config` holds only what was set, under Kafka's names; what was not follows the defaults of the
release that reads it. `deleted` holds ids of topics whose folders may still be there, to be removed
when the log is opened. The table is the truth about which topics exist: one rename of it creates,
alters or deletes a topic, and what a crash leaves of folders follows from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from millstream.log.config import (
    INTERNAL_TOPICS,
    TopicConfig,
    check_topic_name,
)
from millstream.log.errors import (
    ConfigError,
    InvalidPartitionsError,
    InvalidTopicError,
    StorageError,
    TopicExistsError,
    UnknownTopicError,
)
from millstream.log.ids import is_id, random_id
from millstream.log.limits import PARTITIONS_PER_TOPIC_MAX, TOPIC_NAME_LENGTH_MAX
from millstream.log.record import TopicDescription, TopicPartition
from millstream.log.settings import SettingValue

__all__ = ["Topic", "TopicChange", "TopicTable", "new_topic"]

_VERSION = 1


TopicChange = Mapping[str, SettingValue | None]
"""Settings of a topic to set; None: the default again."""


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
            self.name,
            self.topic_id,
            self.partitions,
            self.config.to_strings(),
            self.internal,
            dict(self.overrides),
        )

    def altered(self, config: TopicChange | None, partitions: int | None) -> Topic:
        """The topic with some settings changed (None: the default again) and more partitions.

        Raises:
            ConfigError, InvalidPartitionsError: a setting, their combination or the count is none
                Kafka would take.
        """
        known = self.config.to_strings()
        kept: dict[str, SettingValue] = dict(self.overrides)
        for key, value in (config or {}).items():
            kept.pop(key, None)
            if value is not None:
                kept[key] = value
            elif key not in known:
                kept[key] = ""  # for `parse` to name it
        parsed, overrides = _parsed(self.name, kept)
        count = self.partitions if partitions is None else partitions
        if partitions is not None:
            self._check_more(partitions)
        return Topic(self.name, self.topic_id, count, overrides, parsed)

    def _check_more(self, partitions: int) -> None:
        _check_count(self.name, partitions)
        if self.internal:
            raise InvalidTopicError(
                f"Topic {self.name} is the log's own: its settings can be changed, the number of "
                "its partitions cannot."
            )
        if partitions <= self.partitions:
            raise InvalidPartitionsError(
                f"Topic {self.name} has {self.partitions} partitions; {partitions} is not more. "
                "Partitions can be added and not taken away: make another topic and copy the "
                "records."
            )


def new_topic(name: str, partitions: int, config: Mapping[str, SettingValue] | None) -> Topic:
    """A topic with a fresh id.

    Raises:
        InvalidTopicError, InvalidPartitionsError, ConfigError: the name, the count or a setting is
            none Kafka would take.
    """
    check_topic_name(name)
    _check_count(name, partitions)
    parsed, overrides = _parsed(name, config or {})
    return Topic(name, random_id(), partitions, overrides, parsed)


def _check_count(name: str, partitions: int) -> None:
    if not 1 <= partitions <= PARTITIONS_PER_TOPIC_MAX:
        raise InvalidPartitionsError(
            f"Topic {name}: {partitions} partitions; it can have 1 to {PARTITIONS_PER_TOPIC_MAX}."
        )


def _parsed(name: str, config: Mapping[str, SettingValue]) -> tuple[TopicConfig, dict[str, str]]:
    """All settings, and those that were set as they are written down."""
    parsed = TopicConfig.parse(config, topic=name)
    printed = parsed.to_strings()
    return parsed, {key: printed[key] for key in config}


def _stored(name: str, entry: dict[str, Any]) -> Topic:
    """A topic from the file. What is in there becomes names and numbers of folders.

    Raises:
        ConfigError, ValueError, KeyError, TypeError: it cannot have been written there.
    """
    check_topic_name(name)
    count = entry["partitions"]
    if type(count) is not int:
        raise ValueError(f"topic {name} has {count!r} partitions")
    _check_count(name, count)
    parsed, overrides = _parsed(name, entry["config"])
    return Topic(name, _checked_id(entry["id"]), count, overrides, parsed)


def _checked_id(value: object) -> str:
    if isinstance(value, str) and is_id(value):
        return value
    raise ValueError(f"{value!r} is no id of a topic")


class TopicTable:
    """All topics by name."""

    def __init__(self) -> None:
        self._topics: dict[str, Topic] = {}
        self._by_id: dict[str, Topic] | None = None
        self.deleted_ids: set[str] = set()

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
            name = name[:TOPIC_NAME_LENGTH_MAX]  # a client's may be longer, and told often
            raise UnknownTopicError(
                f"Topic {name!r} does not exist. Create it: "
                f"await log.create_topic({name!r}, partitions=...)."
            )
        return topic

    def with_id(self, topic_id: str) -> Topic | None:
        """The topic of this id. A table that is asked this does not change any more."""
        if self._by_id is None:
            self._by_id = {topic.topic_id: topic for topic in self}
        return self._by_id.get(topic_id)

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
        """Whether a topic of this name can be made. "." and "_" count as one: metrics show both
        as "_", and Kafka refuses a name that would look like another.

        Raises:
            TopicExistsError, InvalidTopicError
        """
        if name in self._topics:
            raise TopicExistsError(
                f"Topic {name} exists already. Pass exist_ok=True to use it as it is."
            )
        alike = name.replace(".", "_")
        for other in (*self._topics, *INTERNAL_TOPICS) if "_" in alike else ():
            if other != name and other.replace(".", "_") == alike:
                raise InvalidTopicError(
                    f'Topic name {name!r} collides with {other!r}: "." and "_" look the same in '
                    "the names of metrics. Use another name."
                )

    def with_topic(self, topic: Topic) -> TopicTable:
        """A copy in which this topic is added or replaced."""
        table = self._copy()
        table._topics[topic.name] = topic
        return table

    def without(self, name: str) -> TopicTable:
        """A copy in which this topic is deleted."""
        table = self._copy()
        table.deleted_ids.add(table._topics.pop(name).topic_id)
        return table

    def _copy(self) -> TopicTable:
        table = TopicTable()
        table._topics = dict(self._topics)
        table.deleted_ids = set(self.deleted_ids)
        return table

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
        document = {
            "version": _VERSION,
            "topics": topics,
            "deleted": sorted(self.deleted_ids),
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2)

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
                table._topics[name] = _stored(name, entry)
            table.deleted_ids.update(_checked_id(each) for each in document.get("deleted", ()))
        except (ValueError, KeyError, TypeError, AttributeError, ConfigError) as error:
            raise StorageError(
                f"{path} is damaged ({error!r}). Restore it from a backup: it names the topics and "
                "their partition counts; the partition folders beside it hold the records."
            ) from error
        return table
