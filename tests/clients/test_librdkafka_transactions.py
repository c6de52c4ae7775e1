"""Transactional producers of confluent-kafka (librdkafka) on a served log."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from shared.served_log import ServedLog, until


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedLog]:
    with ServedLog(tmp_path_factory.mktemp("transactions") / "log") as served:
        yield served


@pytest.fixture
def topic(served: ServedLog, request: pytest.FixtureRequest) -> str:
    name = str(request.node.name)
    admin = AdminClient({"bootstrap.servers": served.address})
    admin.create_topics([NewTopic(name, 2, 1)])[name].result(10)
    return name


def producer(served: ServedLog, name: str, **config: object) -> Producer:
    settings = {"bootstrap.servers": served.address, "transactional.id": name, "linger.ms": 0}
    made = Producer(settings | {key.replace("_", "."): each for key, each in config.items()})
    made.init_transactions(10)
    return made


def everything(served: ServedLog, topic: str, isolation: str = "read_committed") -> list[bytes]:
    """What a reader from the beginning finds up to where it may read."""
    consumer = Consumer(
        {
            "bootstrap.servers": served.address,
            "group.id": "reader",
            "isolation.level": isolation,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, each, 0) for each in range(2)])
    found: list[bytes] = []
    ended = set()

    def at_the_end() -> bool:
        for each in consumer.consume(100, 0.2):
            if each.error() is None:
                found.append(each.value())
            else:
                ended.add(each.partition())
        return len(ended) == 2

    until(at_the_end)
    consumer.close()
    return found


def test_what_is_committed_is_read_and_what_is_aborted_is_not(
    served: ServedLog, topic: str
) -> None:
    writer = producer(served, topic)
    for number in range(6):
        writer.begin_transaction()
        for partition in range(2):
            writer.produce(topic, b"%d" % number, partition=partition)
        if number % 3 == 1:
            assert writer.flush(10) == 0
            writer.abort_transaction(10)
        else:
            writer.commit_transaction(10)
    assert sorted(everything(served, topic)) == sorted([b"0", b"2", b"3", b"5"] * 2)
    assert len(everything(served, topic, "read_uncommitted")) == 12


def test_what_is_open_holds_readers_back(served: ServedLog, topic: str) -> None:
    writer = producer(served, topic)
    writer.begin_transaction()
    writer.produce(topic, b"open", partition=0)
    assert writer.flush(10) == 0
    other = Producer({"bootstrap.servers": served.address})
    other.produce(topic, b"behind", partition=0)
    assert other.flush(10) == 0
    assert everything(served, topic) == []
    writer.commit_transaction(10)
    assert everything(served, topic) == [b"open", b"behind"]


def test_a_second_producer_fences_the_first(served: ServedLog, topic: str) -> None:
    first = producer(served, topic)
    first.begin_transaction()
    first.produce(topic, b"of the first", partition=0)
    assert first.flush(10) == 0
    second = producer(served, topic)
    first.produce(topic, b"of a zombie", partition=0)
    with pytest.raises(KafkaException) as caught:
        first.flush(10)
        first.commit_transaction(10)
    assert caught.value.args[0].fatal()
    second.begin_transaction()
    second.produce(topic, b"of the second", partition=0)
    second.commit_transaction(10)
    assert everything(served, topic) == [b"of the second"]


def test_a_transaction_that_takes_too_long_is_aborted(served: ServedLog, topic: str) -> None:
    late = producer(served, topic, transaction_timeout_ms=1000)
    late.begin_transaction()
    late.produce(topic, b"late", partition=0)
    assert late.flush(10) == 0
    admin = Producer({"bootstrap.servers": served.address})
    admin.produce(topic, b"behind", partition=0)
    assert admin.flush(10) == 0
    began = time.monotonic()
    until(lambda: everything(served, topic) == [b"behind"])
    assert time.monotonic() - began < 10
    with pytest.raises(KafkaException):
        late.commit_transaction(10)
    assert everything(served, topic) == [b"behind"]


def test_a_zombie_commits_no_offsets(served: ServedLog, topic: str) -> None:
    settings = {
        "bootstrap.servers": served.address,
        "group.id": topic,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 200,
    }
    zombie = Consumer(settings)
    zombie.subscribe([topic])
    until(lambda: zombie.poll(0.1) is None and len(zombie.assignment()) == 2)
    stale = zombie.consumer_group_metadata()
    other = Consumer(settings)
    other.subscribe([topic])
    until(lambda: [zombie.poll(0.1), other.poll(0.1)] == [None, None] and bool(other.assignment()))
    writer = producer(served, topic)
    writer.begin_transaction()
    with pytest.raises(KafkaException, match=r"ILLEGAL_GENERATION|generation"):
        writer.send_offsets_to_transaction([TopicPartition(topic, 0, 7)], stale, 10)
    writer.abort_transaction(10)
    writer.begin_transaction()
    writer.send_offsets_to_transaction(
        [TopicPartition(topic, 0, 5)], other.consumer_group_metadata(), 10
    )
    writer.commit_transaction(10)
    (committed,) = other.committed([TopicPartition(topic, 0)], 10)
    assert committed.offset == 5
    zombie.close()
    other.close()


def test_a_transaction_goes_on_after_the_server_was_killed(served: ServedLog, topic: str) -> None:
    writer = producer(served, topic)
    writer.begin_transaction()
    writer.produce(topic, b"before", partition=0)
    assert writer.flush(20) == 0
    served.kill()
    served.start()
    writer.produce(topic, b"after", partition=1)
    writer.commit_transaction(20)
    assert sorted(everything(served, topic)) == [b"after", b"before"]
