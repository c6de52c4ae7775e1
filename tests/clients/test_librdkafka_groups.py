"""Consumer groups of confluent-kafka (librdkafka) on a served log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, ConsumerGroupState, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from shared.served_log import ServedLog, until

RECORDS = 40


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedLog]:
    with ServedLog(tmp_path_factory.mktemp("groups") / "log") as served:
        yield served


def filled(served: ServedLog, topic: str, partitions: int = 4) -> str:
    """A topic of this name with RECORDS records in it, numbered, in turn in each partition."""
    admin = AdminClient({"bootstrap.servers": served.address})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(10)
    producer = Producer({"bootstrap.servers": served.address, "linger.ms": 0})
    for number in range(RECORDS):
        producer.produce(topic, b"%d" % number, partition=number % partitions)
    assert producer.flush(10) == 0
    return topic


def member(served: ServedLog, group: str, topic: str, **config: object) -> Consumer:
    settings = {
        "bootstrap.servers": served.address,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 200,
        "topic.metadata.refresh.interval.ms": 1000,
    }
    consumer = Consumer(settings | {key.replace("_", "."): each for key, each in config.items()})
    consumer.subscribe([topic])
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


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_members_share_what_there_is(served: ServedLog, strategy: str) -> None:
    topic = filled(served, f"share-{strategy}")
    settings = {"partition_assignment_strategy": strategy}
    first = member(served, topic, topic, **settings)
    assert sorted(read(first, RECORDS)) == list(range(RECORDS))
    first.commit(asynchronous=False)
    second = member(served, topic, topic, **settings)
    until(lambda: shares(first, second) == [2, 2])
    second.close()
    until(lambda: shares(first) == [4])
    first.close()


def test_a_group_resumes_where_it_committed(served: ServedLog) -> None:
    topic = filled(served, "resume", partitions=1)
    first = member(served, "resume", topic)
    assert read(first, 15) == list(range(15))
    note = [TopicPartition(topic, 0, 15, metadata="a note")]
    first.commit(offsets=note, asynchronous=False)
    first.close()
    second = member(served, "resume", topic)
    assert read(second, 5) == list(range(15, 20))
    (committed,) = second.committed([TopicPartition(topic, 0)], 10)
    assert (committed.offset, committed.metadata) == (15, "a note")
    second.close()


def test_a_static_member_has_its_place_back(served: ServedLog) -> None:
    topic = filled(served, "static")
    rebalances: list[int] = []
    stays = member(served, "static", topic, group_instance_id="a")
    stays.subscribe([topic], on_assign=lambda _, parts: rebalances.append(len(parts)))
    goes = member(served, "static", topic, group_instance_id="b")
    until(lambda: shares(stays, goes) == [2, 2])
    had = {each.partition for each in goes.assignment()}
    before = list(rebalances)
    goes.close()
    back = member(served, "static", topic, group_instance_id="b")
    until(lambda: shares(stays, back) == [2, 2])
    assert {each.partition for each in back.assignment()} == had
    assert rebalances == before
    twin = member(served, "static", topic, group_instance_id="b")

    def fenced() -> bool:
        twin.poll(0.1)
        try:
            error = getattr(back.poll(0.1), "error", lambda: None)()
        except KafkaException as exception:
            (error,) = exception.args
        return error is not None and error.name() in {"_FATAL", "FENCED_INSTANCE_ID"}

    until(fenced)
    for each in (stays, back, twin):
        each.close()


def test_groups_from_outside(served: ServedLog) -> None:
    topic = filled(served, "admin", partitions=2)
    consumer = member(served, "admin", topic, client_id="somebody")
    read(consumer, RECORDS)
    consumer.commit(asynchronous=False)
    admin = AdminClient({"bootstrap.servers": served.address})
    listed = {each.group_id: each for each in admin.list_consumer_groups().result(10).valid}
    assert listed["admin"].state is ConsumerGroupState.STABLE
    described = admin.describe_consumer_groups(["admin"])["admin"].result(10)
    assert described.state is ConsumerGroupState.STABLE
    (one,) = described.members
    assert (one.client_id, one.host) == ("somebody", "/127.0.0.1")
    assert len(one.assignment.topic_partitions) == 2
    with pytest.raises(KafkaException, match=r"NON_EMPTY_GROUP|not empty"):
        admin.delete_consumer_groups(["admin"])["admin"].result(10)
    consumer.close()
    described = admin.describe_consumer_groups(["admin"])["admin"].result(10)
    assert described.state is ConsumerGroupState.EMPTY
    admin.delete_consumer_groups(["admin"])["admin"].result(10)
    listed = {each.group_id: each for each in admin.list_consumer_groups().result(10).valid}
    assert "admin" not in listed
    with pytest.raises(KafkaException, match=r"GROUP_ID_NOT_FOUND|does not exist"):
        admin.delete_consumer_groups(["admin"])["admin"].result(10)


def test_members_outlive_the_server(tmp_path: Path) -> None:
    with ServedLog(tmp_path / "log") as served:
        topic = filled(served, "outlive", partitions=2)
        lost: list[object] = []
        consumer = member(served, "outlive", topic)
        consumer.subscribe([topic], on_lost=lambda *_: lost.append(1))
        assert sorted(read(consumer, RECORDS)) == list(range(RECORDS))
        served.kill()
        served.start()
        producer = Producer({"bootstrap.servers": served.address})
        producer.produce(topic, b"99", partition=1)
        producer.flush(10)
        assert read(consumer, 1) == [99]
        consumer.commit(asynchronous=False)
        assert lost == []
        consumer.close()
