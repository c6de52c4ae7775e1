"""Errors of a cluster: which of them pass by themselves."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from millstream.log import LogUnavailableError, UnknownTopicError
from millstream.log.kafka.errors import error_of
from millstream.log.kafka.recent_topics import RecentTopics


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.LISTENER_NOT_FOUND,
    ],
)
def test_a_partition_that_changes_its_leader_is_there_again_soon(code: int) -> None:
    error = error_of(KafkaError(code), "Partition orders-0")
    assert isinstance(error, LogUnavailableError)
    assert error.retriable


def test_a_topic_that_was_just_made_is_known_everywhere_soon() -> None:
    recent = RecentTopics()
    unknown = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    recent.add("new")
    with pytest.raises(LogUnavailableError, match="new was made a moment ago"), recent.known("new"):
        raise error_of(unknown, "Topic new")
    with pytest.raises(UnknownTopicError), recent.known("old"):
        raise error_of(unknown, "Topic old")
    recent.discard("new")
    with pytest.raises(UnknownTopicError), recent.known("new"):
        raise error_of(unknown, "Topic new")
