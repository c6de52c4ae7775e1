"""confluent-kafka (librdkafka) against `millstream serve`: writing and reading."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import pytest
from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

LARGE_BYTES = 900_000
_numbers = itertools.count()


@pytest.fixture
def topic() -> str:
    """A name no other test uses; it comes to be when it is first asked for."""
    return f"confluent-{next(_numbers)}"


def written(address: str, topic: str, values: list[bytes], **settings: Any) -> list[Any]:
    """Write to partition 0 and wait; the messages as they were acknowledged."""
    done: list[Any] = []
    producer = Producer({"bootstrap.servers": address, "message.timeout.ms": 10_000, **settings})
    for number, value in enumerate(values):
        producer.produce(
            topic,
            value,
            key=f"k{number}",
            partition=0,
            timestamp=1_000_000 + number,
            headers=[("h", b"1"), ("h", None)],
            on_delivery=lambda error, message: done.append((error, message)),
        )
    assert producer.flush(15) == 0
    assert [error for error, _ in done] == [None] * len(values)
    return [message for _, message in done]


def read(address: str, topic: str, count: int, start: int = 0, **settings: Any) -> list[Any]:
    """That many messages of partition 0."""
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "none", "fetch.wait.max.ms": 5000, **settings}
    )
    try:
        consumer.assign([TopicPartition(topic, 0, start)])
        found: list[Any] = []
        end = time.monotonic() + 15
        while len(found) < count and time.monotonic() < end:
            found += consumer.consume(count - len(found), 1)
        assert [each.error() for each in found] == [None] * count
        return found
    finally:
        consumer.close()


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_compression_there_and_back(address: str, topic: str, codec: str) -> None:
    values = [b"%d" % number * 50 for number in range(500)]
    acknowledged = written(address, topic, values, **{"compression.type": codec, "linger.ms": 50})
    assert [each.offset() for each in acknowledged] == list(range(500))
    found = read(address, topic, 500)
    assert [each.value() for each in found] == values
    assert [each.key() for each in found] == [b"k%d" % number for number in range(500)]
    assert found[7].headers() == [("h", b"1"), ("h", None)]
    assert found[7].timestamp() == (1, 1_000_007)


def test_reading_from_every_position(address: str, topic: str) -> None:
    values = [b"%d" % number for number in range(20)]
    written(address, topic, values, **{"batch.num.messages": 3})
    for start in range(20):
        found = read(address, topic, 20 - start, start)
        assert [each.offset() for each in found] == list(range(start, 20))
    assert [each.value() for each in read(address, topic, 20, OFFSET_BEGINNING)] == values


def test_offsets_by_time_and_ends(address: str, topic: str) -> None:
    written(address, topic, [b"x"] * 10, **{"batch.num.messages": 4})
    consumer = Consumer({"bootstrap.servers": address, "group.id": "none"})
    try:
        partition = TopicPartition(topic, 0)
        assert consumer.get_watermark_offsets(partition, timeout=10) == (0, 10)
        for wanted, offset in ((0, 0), (1_000_003, 3), (1_000_009, 9), (1_000_010, OFFSET_END)):
            asked = [TopicPartition(topic, 0, wanted)]
            (found,) = consumer.offsets_for_times(asked, timeout=10)
            assert (found.offset, found.error) == (offset, None)
    finally:
        consumer.close()


def test_reading_from_the_end_and_from_a_time(address: str, topic: str) -> None:
    values = [b"%d" % number for number in range(10)]
    written(address, topic, values, **{"batch.num.messages": 4})
    settings = {"group.id": "none", "enable.partition.eof": True}
    consumer = Consumer({"bootstrap.servers": address, **settings})
    try:
        asked = [TopicPartition(topic, 0, 1_000_006)]
        consumer.assign(consumer.offsets_for_times(asked, timeout=10))
        assert [each.value() for each in consumer.consume(4, 10)] == values[6:]
        consumer.assign([TopicPartition(topic, 0, OFFSET_END)])
        at_end = consumer.poll(10)
        assert (at_end.error().code(), at_end.offset()) == (KafkaError._PARTITION_EOF, 10)
        written(address, topic, [b"new"])
        assert consumer.poll(10).value() == b"new"
    finally:
        consumer.close()


def test_a_waiting_reader_is_answered_when_a_record_comes(address: str, topic: str) -> None:
    written(address, topic, [b"first"])
    settings = {"fetch.wait.max.ms": 20_000, "fetch.error.backoff.ms": 0}
    consumer = Consumer({"bootstrap.servers": address, "group.id": "none", **settings})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        assert consumer.poll(10).value() == b"first"
        late = threading.Timer(0.3, written, (address, topic, [b"second"]))
        began = time.monotonic()
        late.start()
        assert consumer.poll(15).value() == b"second"
        late.join()
        assert time.monotonic() - began < 10
    finally:
        consumer.close()


def test_a_batch_larger_than_the_reader_asks_for(address: str, topic: str) -> None:
    value = bytes(range(256)) * (LARGE_BYTES // 256)
    written(address, topic, [value, b"next"])
    limits = {"fetch.message.max.bytes": 1000, "fetch.max.bytes": 1_000_000}
    found = read(address, topic, 2, **limits)
    assert [each.value() for each in found] == [value, b"next"]


@pytest.mark.parametrize("acks", [0, 1, -1])
def test_acks(address: str, topic: str, acks: int) -> None:
    written(address, topic, [b"a", b"b"], acks=acks)
    assert [each.value() for each in read(address, topic, 2)] == [b"a", b"b"]


def test_an_idempotent_producer_with_many_requests_in_flight(address: str, topic: str) -> None:
    values = [b"%d" % number for number in range(2000)]
    settings = {"enable.idempotence": True, "batch.num.messages": 10, "linger.ms": 0}
    written(address, topic, values, **settings)
    assert [each.value() for each in read(address, topic, 2000)] == values


def test_only_what_was_committed_is_read(address: str, topic: str) -> None:
    written(address, topic, [b"before"])
    producer = Producer({"bootstrap.servers": address, "transactional.id": topic})
    producer.init_transactions(15)
    for number, commit in enumerate((True, False, True)):
        producer.begin_transaction()
        for letter in "ab":
            producer.produce(topic, f"{number}{letter}", partition=0)
        if commit:
            producer.commit_transaction(15)
        else:
            producer.flush(15)
            producer.abort_transaction(15)
    committed = [b"before", b"0a", b"0b", b"2a", b"2b"]
    found = read(address, topic, 5, **{"isolation.level": "read_committed"})
    assert [each.value() for each in found] == committed
    found = read(address, topic, 7, **{"isolation.level": "read_uncommitted"})
    assert [each.value() for each in found] == [*committed[:3], b"1a", b"1b", *committed[3:]]


def test_metadata(address: str, topic: str) -> None:
    written(address, topic, [b"x"])
    admin = AdminClient({"bootstrap.servers": address})
    found = admin.list_topics(timeout=10)
    assert [str(each) for each in found.brokers.values()] == [f"{address}/0"]
    assert found.controller_id == 0
    assert len(found.cluster_id) == 22
    partitions = found.topics[topic].partitions
    assert sorted(partitions) == [0, 1]  # num.partitions
    assert (partitions[1].leader, partitions[1].replicas, partitions[1].isrs) == (0, [0], [0])
    assert all(each.error is None for each in found.topics.values())


def test_error_codes(address: str, topic: str) -> None:
    written(address, topic, [b"x"])
    assert refused(address, "a name") == KafkaError.TOPIC_EXCEPTION
    large = {"message.max.bytes": 5_000_000}
    assert refused(address, topic, bytes(2_000_000), **large) == KafkaError.MSG_SIZE_TOO_LARGE
    assert refused(address, "__consumer_offsets") == KafkaError.TOPIC_EXCEPTION
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "none", "auto.offset.reset": "error"}
    )
    try:
        consumer.assign([TopicPartition(topic, 0, 99)])
        error = consumer.poll(10).error()
        assert error.code() == KafkaError._AUTO_OFFSET_RESET
        assert "out of range" in error.str()
    finally:
        consumer.close()


def refused(address: str, topic: str, value: bytes = b"x", **settings: Any) -> int:
    """The error a record meets."""
    codes: list[int] = []
    producer = Producer({"bootstrap.servers": address, "message.timeout.ms": 10_000, **settings})
    producer.produce(
        topic, value, partition=0, on_delivery=lambda error, _: codes.append(error.code())
    )
    assert producer.flush(15) == 0
    return codes[0]
