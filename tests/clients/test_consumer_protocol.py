"""Consumers of confluent-kafka with group.protocol=consumer (KIP-848) on a served log."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupType,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from shared.served_log import ServedLog, until

RECORDS = 40


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedLog]:
    config = {
        "group.consumer.heartbeat.interval.ms": 200,
        "group.consumer.session.timeout.ms": 6000,
    }
    with ServedLog(tmp_path_factory.mktemp("groups") / "log", config=config) as served:
        yield served


def filled(served: ServedLog, topic: str, partitions: int = 4) -> str:
    """A topic of this name with RECORDS records in it, numbered, in turn in each partition."""
    admin = AdminClient({"bootstrap.servers": served.address})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(10)
    write(served, topic, partitions, range(RECORDS))
    return topic


def write(served: ServedLog, topic: str, partitions: int, numbers: range) -> None:
    producer = Producer({"bootstrap.servers": served.address, "linger.ms": 0})
    for number in numbers:
        producer.produce(topic, b"%d" % number, partition=number % partitions)
    assert producer.flush(10) == 0


def member(served: ServedLog, group: str, *topics: str, **config: object) -> Consumer:
    settings = {
        "bootstrap.servers": served.address,
        "group.id": group,
        "group.protocol": "consumer",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "topic.metadata.refresh.interval.ms": 1000,
    }
    consumer = Consumer(settings | {key.replace("_", "."): each for key, each in config.items()})
    consumer.subscribe(list(topics))
    return consumer


def read(consumer: Consumer, count: int) -> list[int]:
    found: list[int] = []

    def enough() -> bool:
        found.extend(int(each.value()) for each in consumer.consume(count - len(found), 0.2))
        return len(found) >= count

    until(enough)
    return found


def shares(*consumers: Consumer) -> list[int]:
    for each in consumers:
        each.poll(0.1)
    return [len(each.assignment()) for each in consumers]


@pytest.mark.parametrize("assignor", ["uniform", "range"])
def test_members_share_what_there_is(served: ServedLog, assignor: str) -> None:
    topic = filled(served, f"share-{assignor}")
    settings = {"group_remote_assignor": assignor}
    first = member(served, topic, topic, **settings)
    assert sorted(read(first, RECORDS)) == list(range(RECORDS))
    first.commit(asynchronous=False)
    others = [member(served, topic, topic, **settings) for _ in range(2)]
    until(lambda: sorted(shares(first, *others)) == [1, 1, 2])
    owned = [each for consumer in (first, *others) for each in consumer.assignment()]
    assert sorted(each.partition for each in owned) == [0, 1, 2, 3]
    for each in others:
        each.close()
    until(lambda: shares(first) == [4])
    first.close()


def test_a_group_resumes_where_it_committed(served: ServedLog) -> None:
    topic = filled(served, "modern-resume", partitions=1)
    first = member(served, "modern-resume", topic)
    assert read(first, 15) == list(range(15))
    first.commit(offsets=[TopicPartition(topic, 0, 15)], asynchronous=False)
    first.close()
    second = member(served, "modern-resume", topic)
    assert read(second, 5) == list(range(15, 20))
    second.close()


def test_partitions_are_given_up_before_others_have_them(served: ServedLog) -> None:
    topic = filled(served, "modern-handover", partitions=6)
    owners: dict[int, str] = {}
    twice: list[int] = []

    def joined(name: str) -> Consumer:
        def gain(_consumer: Consumer, partitions: list[TopicPartition]) -> None:
            for each in partitions:
                if each.partition in owners:
                    twice.append(each.partition)
                owners[each.partition] = name

        def lose(_consumer: Consumer, partitions: list[TopicPartition]) -> None:
            for each in partitions:
                del owners[each.partition]

        consumer = member(served, "modern-handover", topic)
        consumer.subscribe([topic], on_assign=gain, on_revoke=lose)
        return consumer

    consumers: list[Consumer] = []
    for number in range(3):
        consumers.append(joined(f"c{number}"))
        wanted = [6 // (number + 1)] * (number + 1)
        until(lambda wanted=wanted: shares(*consumers) == wanted)
    assert len(owners) == 6
    assert set(owners.values()) == {"c0", "c1", "c2"}
    assert twice == []
    for each in consumers:
        each.close()


CHILD = """
import sys
from confluent_kafka import Consumer
consumer = Consumer({
    "bootstrap.servers": sys.argv[1], "group.id": sys.argv[2], "group.protocol": "consumer",
})
consumer.subscribe([sys.argv[2]])
while True:
    consumer.poll(0.1)
    print(len(consumer.assignment()), flush=True)
"""


def test_who_is_killed_is_replaced(served: ServedLog) -> None:
    topic = filled(served, "modern-killed")
    first = member(served, topic, topic)
    command = [sys.executable, "-c", CHILD, served.address, topic]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            until(lambda: shares(first) == [2])
            assert child.stdout is not None
            while child.stdout.readline().strip() != "2":
                shares(first)
        finally:
            child.send_signal(signal.SIGKILL)
    until(lambda: shares(first) == [4], within_s=30)
    first.close()


def test_members_go_on_when_the_server_is_killed(tmp_path: Path) -> None:
    """Nobody loses partitions, commits hold, and the group's epoch goes on."""
    config = {"group.consumer.heartbeat.interval.ms": 200}
    with ServedLog(tmp_path / "log", config) as served:
        topic = filled(served, "modern-crash")
        lost: list[TopicPartition] = []
        first = member(served, "crash", topic)
        first.subscribe([topic], on_lost=lambda _, partitions: lost.extend(partitions))
        second = member(served, "crash", topic)
        until(lambda: shares(first, second) == [2, 2])
        before = {each.partition for each in first.assignment()}
        served.kill()
        served.start()
        write(served, topic, 4, range(RECORDS, 2 * RECORDS))
        found: set[int] = set()

        def all_read() -> bool:
            for each in (first, second):
                found.update(int(record.value()) for record in each.consume(100, 0.2))
            return set(range(RECORDS, 2 * RECORDS)) <= found

        until(all_read, within_s=40)
        first.commit(asynchronous=False)
        assert {each.partition for each in first.assignment()} == before
        assert lost == []
        first.close()
        second.close()


def test_topics_are_found_by_a_pattern(served: ServedLog) -> None:
    filled(served, "pattern-one", partitions=2)
    consumer = member(served, "pattern", "^pattern-.*")
    until(lambda: shares(consumer) == [2])
    filled(served, "pattern-two", partitions=3)
    until(lambda: shares(consumer) == [5])
    consumer.close()


def test_partitions_that_are_added_are_read(served: ServedLog) -> None:
    topic = filled(served, "modern-more", partitions=2)
    consumer = member(served, topic, topic)
    until(lambda: shares(consumer) == [2])
    admin = AdminClient({"bootstrap.servers": served.address})
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(10)
    until(lambda: shares(consumer) == [3])
    consumer.close()


def test_a_static_member_comes_back_to_what_it_had(served: ServedLog) -> None:
    topic = filled(served, "modern-static")
    static = {"group_instance_id": "one"}
    first = member(served, topic, topic, **static)
    other = member(served, topic, topic, group_instance_id="two")
    until(lambda: shares(first, other) == [2, 2])
    before = {each.partition for each in first.assignment()}
    first.close()
    again = member(served, topic, topic, **static)
    until(lambda: shares(again, other) == [2, 2])
    assert {each.partition for each in again.assignment()} == before
    again.close()
    other.close()


def test_protocols_do_not_mix(served: ServedLog) -> None:
    topic = filled(served, "modern-mixed")
    modern = member(served, topic, topic)
    until(lambda: shares(modern) == [4])
    classic = member(served, topic, topic, group_protocol="classic")
    with pytest.raises(KafkaException) as raised:
        until(lambda: failed(classic.poll(0.1)))
    assert raised.value.args[0].code() == KafkaError.INCONSISTENT_GROUP_PROTOCOL
    classic.close()
    assert sorted(read(modern, RECORDS)) == list(range(RECORDS))
    modern.commit(asynchronous=False)
    modern.close()
    after = member(served, topic, topic, group_protocol="classic")
    until(lambda: shares(after) == [4])
    assert [each.offset for each in after.committed(after.assignment(), 10)] == [10] * 4
    after.close()


def failed(message: object) -> bool:
    if message is not None and message.error() is not None:
        raise KafkaException(message.error())
    return False


def test_offsets_in_a_transaction(served: ServedLog) -> None:
    """A zombie of an older epoch of the group cannot commit; the transaction of who may counts."""
    topic = filled(served, "modern-exactly", partitions=2)
    consumer = member(served, topic, topic)
    until(lambda: shares(consumer) == [2])
    stale = consumer.consumer_group_metadata()
    other = member(served, topic, topic)
    until(lambda: shares(consumer, other) == [1, 1])
    producer = Producer({"bootstrap.servers": served.address, "transactional.id": topic})
    producer.init_transactions(10)
    position = [TopicPartition(topic, consumer.assignment()[0].partition, 7)]

    producer.begin_transaction()
    with pytest.raises(KafkaException) as raised:
        producer.send_offsets_to_transaction(position, stale, 10)
    assert raised.value.args[0].code() == KafkaError.ILLEGAL_GENERATION
    producer.abort_transaction(10)

    producer.begin_transaction()
    producer.send_offsets_to_transaction(position, consumer.consumer_group_metadata(), 10)
    producer.commit_transaction(10)
    assert [each.offset for each in consumer.committed(position, 10)] == [7]
    consumer.close()
    other.close()


def test_administration(served: ServedLog) -> None:
    topic = filled(served, "modern-admin")
    consumer = member(served, topic, topic, group_instance_id="here")
    until(lambda: shares(consumer) == [4])
    consumer.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
    admin = AdminClient({"bootstrap.servers": served.address})
    listed = admin.list_consumer_groups(types={ConsumerGroupType.CONSUMER}).result().valid
    (found,) = [each for each in listed if each.group_id == topic]
    assert (found.state, found.type) == (ConsumerGroupState.STABLE, ConsumerGroupType.CONSUMER)
    described = admin.describe_consumer_groups([topic])[topic].result()
    assert (described.type, described.partition_assignor) == (ConsumerGroupType.CONSUMER, "uniform")
    (who,) = described.members
    assert who.group_instance_id == "here"
    assert len(who.assignment.topic_partitions) == 4
    with pytest.raises(KafkaException) as raised:
        admin.delete_consumer_groups([topic])[topic].result()
    assert raised.value.args[0].code() == KafkaError.NON_EMPTY_GROUP
    consumer.unsubscribe()
    consumer.close()
