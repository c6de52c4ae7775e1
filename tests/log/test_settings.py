"""Settings: Kafka's names in, typed values out, and messages that say what to do."""

from __future__ import annotations

import pytest

from millstream.log.config import BrokerConfig, TopicConfig, check_durability
from millstream.log.errors import ConfigError


def test_defaults_are_kafkas() -> None:
    config = TopicConfig.parse()
    assert config.retention_ms == 604_800_000
    assert config.max_message_bytes == 1_048_588
    assert config.cleanup_policy == ("delete",)
    strings = config.to_strings()
    assert strings["message.timestamp.type"] == "CreateTime"
    assert strings["unclean.leader.election.enable"] == "false"
    assert strings["flush.messages"] == str(2**63 - 1)


@pytest.mark.parametrize("value", [5, "5", " 5 ", 5.0])
def test_whole_numbers(value: str | int | float) -> None:
    assert TopicConfig.parse({"retention.ms": value}).retention_ms == 5


def test_what_is_printed_can_be_parsed() -> None:
    config = TopicConfig.parse({"cleanup.policy": "compact,delete", "preallocate": True})
    assert TopicConfig.parse(config.to_strings()) == config
    assert config.cleanup_policy == ("compact", "delete")
    assert TopicConfig.parse({"cleanup.policy": ""}).cleanup_policy == ()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("retention.ms", "a week", r"Topic: retention\.ms is 'a week'; it must be a whole number"),
        ("retention.ms", 1.5, "whole number"),
        ("retention.ms", True, "whole number"),
        ("retention.ms", -2, r"the least is -1\. Milliseconds"),
        ("segment.bytes", 5, "the least is 1024"),
        ("segment.bytes", 2**31, "the most is 2147483647"),
        ("min.cleanable.dirty.ratio", 2, "the most is 1"),
        ("min.cleanable.dirty.ratio", "much", "must be a number"),
        ("message.timestamp.type", "Mine", "CreateTime, LogAppendTime"),
        ("cleanup.policy", "compact,shrink", "'shrink'; it can be delete, compact"),
        ("preallocate", "yes", "true or false"),
        ("retention.msec", 5, r"unknown setting 'retention\.msec'\. Did you mean retention\.ms"),
        ("zzz", 5, "Known settings: cleanup.policy"),
    ],
)
def test_what_cannot_be(name: str, value: str | int | float | bool, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TopicConfig.parse({name: value})


def test_broker_settings() -> None:
    config = BrokerConfig.parse({"num.partitions": "4", "auto.create.topics.enable": "FALSE"})
    assert (config.num_partitions, config.auto_create_topics_enable) == (4, False)
    with pytest.raises(ConfigError, match="durability is 'most'"):
        check_durability("most")
