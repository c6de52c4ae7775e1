"""kafka-python against `millstream serve`: writing and reading."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import MessageSizeTooLargeError, OffsetOutOfRangeError

_numbers = itertools.count()


@pytest.fixture
def topic() -> str:
    """A name no other test uses; it comes to be when it is first asked for."""
    return f"kafka-python-{next(_numbers)}"


def written(address: str, topic: str, values: list[bytes], **settings: Any) -> list[Any]:
    """Write to partition 0 and wait for all; where they lie."""
    producer = KafkaProducer(bootstrap_servers=address, **settings)
    try:
        futures = [
            producer.send(topic, value, key=b"k", partition=0, timestamp_ms=1_000_000 + number)
            for number, value in enumerate(values)
        ]
        return [each.get(15) for each in futures]
    finally:
        producer.close()


def consumer_of(address: str, topic: str, **settings: Any) -> Any:
    consumer = KafkaConsumer(
        bootstrap_servers=address, consumer_timeout_ms=10_000, group_id=None, **settings
    )
    consumer.assign([TopicPartition(topic, 0)])
    return consumer


def read(address: str, topic: str, count: int, start: int = 0, **settings: Any) -> list[bytes]:
    """That many values of partition 0."""
    consumer = consumer_of(address, topic, **settings)
    try:
        consumer.seek(TopicPartition(topic, 0), start)
        found = [each.value for each in itertools.islice(consumer, count)]
    finally:
        consumer.close()
    return found


@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_every_compression_there_and_back(address: str, topic: str, codec: str | None) -> None:
    values = [b"%d" % number * 50 for number in range(300)]
    found = written(address, topic, values, compression_type=codec, linger_ms=20)
    assert [each.offset for each in found] == list(range(300))
    assert read(address, topic, 300) == values


def test_reading_from_every_position(address: str, topic: str) -> None:
    values = [b"%d" % number for number in range(12)]
    written(address, topic, values)
    consumer = consumer_of(address, topic)
    try:
        for start in range(12):
            consumer.seek(TopicPartition(topic, 0), start)
            assert [each.value for each in itertools.islice(consumer, 12 - start)] == values[start:]
    finally:
        consumer.close()


def test_offsets_by_time_and_ends(address: str, topic: str) -> None:
    written(address, topic, [b"x"] * 10)
    consumer, partition = consumer_of(address, topic), TopicPartition(topic, 0)
    try:
        assert consumer.beginning_offsets([partition]) == {partition: 0}
        assert consumer.end_offsets([partition]) == {partition: 10}
        found = consumer.offsets_for_times({partition: 1_000_003})[partition]
        assert (found.offset, found.timestamp) == (3, 1_000_003)
        assert consumer.offsets_for_times({partition: 2_000_000}) == {partition: None}
    finally:
        consumer.close()


def test_reading_from_the_ends_and_from_a_time(address: str, topic: str) -> None:
    values = [b"%d" % number for number in range(10)]
    written(address, topic, values)
    consumer, partition = consumer_of(address, topic), TopicPartition(topic, 0)
    try:
        consumer.seek_to_beginning(partition)
        assert [each.value for each in itertools.islice(consumer, 10)] == values
        found = consumer.offsets_for_times({partition: 1_000_006})[partition]
        consumer.seek(partition, found.offset)
        assert [each.value for each in itertools.islice(consumer, 4)] == values[6:]
        consumer.seek(partition, 0)
        consumer.seek_to_end(partition)
        assert consumer.position(partition) == 10
        written(address, topic, [b"new"])
        assert next(consumer).value == b"new"
    finally:
        consumer.close()


def test_an_offset_that_is_not_there(address: str, topic: str) -> None:
    written(address, topic, [b"x"])
    consumer = consumer_of(address, topic, auto_offset_reset="none")
    try:
        consumer.seek(TopicPartition(topic, 0), 99)
        with pytest.raises(OffsetOutOfRangeError):
            next(consumer)
    finally:
        consumer.close()


def test_a_producer_that_is_not_idempotent(address: str, topic: str) -> None:
    for acks in (0, 1, "all"):
        settings = {"acks": acks, "enable_idempotence": False}
        written(address, topic, [str(acks).encode()], **settings)
    assert read(address, topic, 3) == [b"0", b"1", b"all"]


def test_transactions(address: str, topic: str) -> None:
    producer = KafkaProducer(bootstrap_servers=address, transactional_id=topic)
    try:
        producer.init_transactions()
        for number, commit in enumerate((False, True)):
            producer.begin_transaction()
            producer.send(topic, b"%d" % number, partition=0).get(15)
            if commit:
                producer.commit_transaction()
            else:
                producer.abort_transaction()
    finally:
        producer.close()
    assert read(address, topic, 1, isolation_level="read_committed") == [b"1"]
    assert read(address, topic, 2, isolation_level="read_uncommitted") == [b"0", b"1"]


def test_a_record_that_is_too_large(address: str, topic: str) -> None:
    with pytest.raises(MessageSizeTooLargeError):
        written(address, topic, [bytes(2_000_000)], max_request_size=5_000_000)


def test_the_cluster(address: str, topic: str) -> None:
    written(address, topic, [b"x"])
    admin = KafkaAdminClient(bootstrap_servers=address)
    try:
        cluster = admin.describe_cluster()
        assert [(each["broker_id"], each["host"]) for each in cluster["brokers"]] == [
            (0, address.partition(":")[0])
        ]
        assert topic in admin.list_topics()
    finally:
        admin.close()
