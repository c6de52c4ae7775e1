"""Settings as Kafka's admin requests show them: value, default, source, type, documentation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from millstream.log.config import BrokerConfig, TopicConfig
from millstream.log.settings import Declared, declared

from .encoding import Fields

__all__ = ["ConfigEntry", "broker_entries", "created_configs", "described_configs", "topic_entries"]

_DYNAMIC_TOPIC = 1
_STATIC_BROKER = 4
_DEFAULT = 5

_TYPES = {"boolean": 1, "string": 2, "int": 3, "long": 5, "double": 6, "list": 7}


class ConfigEntry(NamedTuple):
    """One setting. `source` is Kafka's number of where its value is from."""

    declared: Declared
    value: str
    source: int
    read_only: bool


def topic_entries(config: Mapping[str, str], overrides: Collection[str]) -> list[ConfigEntry]:
    """Every setting of a topic, from all of its values and the names of those that were set."""
    return [
        ConfigEntry(
            each, config[each.name], _DYNAMIC_TOPIC if each.name in overrides else _DEFAULT, False
        )
        for each in declared(TopicConfig)
    ]


def broker_entries(config: BrokerConfig) -> list[ConfigEntry]:
    """Every setting of the log. They are given when it is opened, and cannot be altered."""
    values = config.to_strings()
    return [
        ConfigEntry(
            each,
            values[each.name],
            _DEFAULT if values[each.name] == each.default else _STATIC_BROKER,
            True,
        )
        for each in declared(BrokerConfig)
    ]


def created_configs(entries: Collection[ConfigEntry]) -> list[Fields]:
    """As the response to CreateTopics has them (KIP-525)."""
    return [_basics(each) for each in entries]


def described_configs(
    entries: Collection[ConfigEntry],
    names: Collection[str] | None,
    *,
    synonyms: bool,
    documentation: bool,
) -> list[Fields]:
    """As the response to DescribeConfigs has them.

    Args:
        entries: all there are.
        names: those asked for; none of them, or None, for all.
        synonyms: whether to say which value it would have where this one is taken away (KIP-226).
        documentation: whether to say what it means (KIP-569).
    """
    return [
        {
            **_basics(each),
            "synonyms": _synonyms(each) if synonyms else [],
            "config_type": _TYPES[each.declared.type],
            "documentation": each.declared.about if documentation else None,
        }
        for each in entries
        if not names or each.declared.name in names
    ]


def _basics(entry: ConfigEntry) -> Fields:
    return {
        "name": entry.declared.name,
        "value": None if entry.declared.sensitive else entry.value,
        "read_only": entry.read_only,
        "config_source": entry.source,
        "is_sensitive": entry.declared.sensitive,
    }


def _synonyms(entry: ConfigEntry) -> list[Fields]:
    name = entry.declared.name
    value = None if entry.declared.sensitive else entry.value
    found: list[Fields] = [{"name": name, "value": value, "source": entry.source}]
    if entry.source != _DEFAULT:
        found.append({"name": name, "value": entry.declared.default, "source": _DEFAULT})
    return found
