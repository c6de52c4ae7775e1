"""Every topic setting of Apache Kafka 4.x that has a meaning here: name, default, range.

The table is the reference. A line says the default, the least and the most a setting can be, or
what it can be at all. Where this log differs the line says why.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from millstream.log.config import TopicConfig
from millstream.log.errors import ConfigError
from millstream.log.settings import describe

INT = 2**31 - 1
LONG = 2**63 - 1
DAY_MS = 86_400_000


class Number(NamedTuple):
    """A whole number, or the one share there is."""

    name: str
    default: float
    least: float
    most: float


NUMBERS = [
    Number("compression.gzip.level", -1, -1, 9),
    Number("compression.lz4.level", 9, 1, 17),
    Number("compression.zstd.level", 3, -131_072, 22),
    Number("delete.retention.ms", DAY_MS, 0, LONG),
    Number("file.delete.delay.ms", 60_000, 0, LONG),
    Number("flush.messages", LONG, 1, LONG),
    Number("flush.ms", LONG, 0, LONG),
    Number("index.interval.bytes", 4096, 0, INT),
    Number("max.compaction.lag.ms", LONG, 1, LONG),
    Number("max.message.bytes", 1_048_588, 0, INT),
    Number("message.timestamp.after.max.ms", 3_600_000, 0, LONG),
    Number("message.timestamp.before.max.ms", LONG, 0, LONG),
    Number("min.cleanable.dirty.ratio", 0.5, 0, 1),
    Number("min.compaction.lag.ms", 0, 0, LONG),
    Number("min.insync.replicas", 1, 1, INT),
    Number("retention.bytes", -1, -1, LONG),
    Number("retention.ms", 7 * DAY_MS, -1, LONG),
    # Kafka's least is 1 MiB since 4.0, and what its own tests need is a setting of another name.
    Number("segment.bytes", 1 << 30, 1024, INT),
    # Kafka's least is 4, with which no index could hold an entry.
    Number("segment.index.bytes", 10 << 20, 12, INT),
    Number("segment.jitter.ms", 0, 0, LONG),
    Number("segment.ms", 7 * DAY_MS, 1, LONG),
]
CHOICES = {
    "compression.type": ("producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"),
    "message.timestamp.type": ("CreateTime", "LogAppendTime"),
    "preallocate": ("false", "true"),
    "unclean.leader.election.enable": ("false", "true"),
}
"""The first is the default."""


def fails(settings: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        TopicConfig.parse(settings, topic="orders")
    return str(caught.value)


def test_these_are_all() -> None:
    names = [number.name for number in NUMBERS] + [*CHOICES, "cleanup.policy"]
    assert sorted(names) == sorted(describe(TopicConfig()))


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number.name)
def test_numbers(number: Number) -> None:
    field = number.name.replace(".", "_")
    assert getattr(TopicConfig.parse(), field) == number.default
    for value in {number.least, number.most} - {0 if "gzip" in number.name else None}:
        settings = {number.name: str(value)}
        if number.name == "min.compaction.lag.ms":
            settings["max.compaction.lag.ms"] = str(LONG)
        assert getattr(TopicConfig.parse(settings), field) == value
        assert getattr(TopicConfig.parse({number.name: value}), field) == value
    step = 0.01 if isinstance(number.default, float) else 1
    assert f"Topic orders: {number.name} is {number.least - step}; the least is" in fails(
        {number.name: number.least - step}
    )
    assert f"{number.name} is {number.most + step}; the most is" in fails(
        {number.name: number.most + step}
    )
    for odd in ("", "many", "1e3", True, None, "nan", float("nan"), float("inf"), "1.5x"):
        assert f"Topic orders: {number.name} is " in fails({number.name: odd})


@pytest.mark.parametrize("name", CHOICES)
def test_choices(name: str) -> None:
    field = name.replace(".", "_")
    default, *_ = CHOICES[name]
    assert TopicConfig.parse().to_strings()[name] == default
    for choice in CHOICES[name]:
        config = TopicConfig.parse({name: choice})
        assert str(getattr(config, field)).lower() == choice.lower()
        assert config.to_strings()[name] == choice
    assert f"Topic orders: {name} is " in fails({name: "neither"})
    assert f"Topic orders: {name} is " in fails({name: ""})


@pytest.mark.parametrize(
    ("value", "policy"),
    [
        ("delete", ("delete",)),
        ("compact", ("compact",)),
        ("compact,delete", ("compact", "delete")),
        (" delete , compact ", ("delete", "compact")),
        ("delete,delete", ("delete",)),  # as from 4.2 on: said twice is said once
        ("", ()),  # as from 4.2 on: nothing is ever cleaned
    ],
)
def test_cleanup_policy(value: str, policy: tuple[str, ...]) -> None:
    config = TopicConfig.parse({"cleanup.policy": value})
    assert config.cleanup_policy == policy
    assert (config.deletes, config.compacts) == ("delete" in policy, "compact" in policy)
    assert TopicConfig.parse(config.to_strings()) == config


@pytest.mark.parametrize("value", ["Delete", "remove", "delete;compact", "none"])
def test_no_cleanup_policy(value: str) -> None:
    assert "it can be delete, compact" in fails({"cleanup.policy": value})


def test_what_does_not_go_together() -> None:
    settings = {"min.compaction.lag.ms": 11, "max.compaction.lag.ms": 10}
    message = fails(settings)
    assert "min.compaction.lag.ms is 11, max.compaction.lag.ms 10" in message
    TopicConfig.parse({**settings, "max.compaction.lag.ms": 11})
    assert "compression.gzip.level is 0; it can be 1 to 9, or -1" in fails(
        {"compression.gzip.level": 0}
    )


def test_how_long_a_segment_is_appended_to() -> None:
    settings = {"segment.ms": 100, "max.compaction.lag.ms": 50}
    assert TopicConfig.parse(settings).segment_age_max_ms == 100
    for policy in ("compact", "compact,delete"):
        assert TopicConfig.parse({**settings, "cleanup.policy": policy}).segment_age_max_ms == 50


def test_the_level_is_that_of_the_codec() -> None:
    settings = {
        "compression.gzip.level": 1,
        "compression.lz4.level": 2,
        "compression.zstd.level": 4,
    }
    levels = {
        name: TopicConfig.parse({**settings, "compression.type": name}).compression_level
        for name in CHOICES["compression.type"]
    }
    assert levels == {
        "producer": None,
        "uncompressed": None,
        "gzip": 1,
        "snappy": None,
        "lz4": 2,
        "zstd": 4,
    }
