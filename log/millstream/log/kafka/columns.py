"""From librdkafka's messages to record batches in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter, methodcaller
from typing import NamedTuple

from confluent_kafka import KafkaError, Message

from millstream.log.record import Headers, RecordBatch, TopicPartition

__all__ = ["Messages", "gone_back", "sorted_out"]

_ERROR = methodcaller("error")
_PLACE = methodcaller("topic"), methodcaller("partition")


class Messages(NamedTuple):
    """What one consume brought: batches, positions at ends of partitions, errors."""

    batches: list[RecordBatch]
    ends: dict[TopicPartition, int]
    errors: list[KafkaError]


def sorted_out(messages: Sequence[Message]) -> Messages:
    """Messages in columns, a batch for each run of one partition."""
    records = list(messages)
    ends: dict[TopicPartition, int] = {}
    errors: list[KafkaError] = []
    if any(map(_ERROR, messages)):
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                at = TopicPartition(message.topic() or "", message.partition() or 0)
                ends[at] = message.offset() or 0
            else:
                errors.append(error)
    places = zip(*(map(part, records) for part in _PLACE), strict=True)
    batches = [
        _batch(TopicPartition(*place), list(map(itemgetter(1), run)))
        for place, run in groupby(zip(places, records, strict=True), key=itemgetter(0))
    ]
    return Messages(batches, ends, errors)


def gone_back(
    batches: Sequence[RecordBatch], positions: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """Partitions of which records come that are before these positions, and what comes next."""
    places = [(TopicPartition(each.topic, each.partition), each) for each in batches]
    gone = {tp for tp, each in places if each.offsets[0] < positions.get(tp, 0)}
    return {tp: each.next_offset for tp, each in places if tp in gone}


def _batch(place: TopicPartition, records: list[Message]) -> RecordBatch:
    offsets: Sequence[int] = [each.offset() or 0 for each in records]
    if offsets[-1] - offsets[0] == len(offsets) - 1:
        offsets = range(offsets[0], offsets[-1] + 1)
    headers: list[Headers] | None = None
    if any(each.headers() for each in records):
        headers = [tuple(each.headers() or ()) for each in records]
    return RecordBatch(
        place.topic,
        place.partition,
        offsets,
        [each.key() for each in records],
        [each.value() for each in records],
        [each.timestamp()[1] for each in records],
        headers,
    )
