"""What confluent-kafka's AdminClient does to a served log, and the errors it is told."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

TOPIC, BROKER = ResourceType.TOPIC, ResourceType.BROKER


@pytest.fixture(scope="module")
def admin(address: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": address})


def told(futures: dict[Any, Any]) -> dict[Any, int]:
    """The error code for each; 0 for none."""
    codes = {}
    for key, future in futures.items():
        error = future.exception(10)
        if error is not None and not isinstance(error, KafkaException):
            raise error
        codes[key] = 0 if error is None else error.args[0].code()
    return codes


def create(admin: AdminClient, *topics: NewTopic, **options: Any) -> dict[str, int]:
    return told(admin.create_topics(list(topics), **options))


def partitions(admin: AdminClient, topic: str) -> int | None:
    found = admin.list_topics(timeout=10).topics.get(topic)
    return None if found is None else len(found.partitions)


def configs(admin: AdminClient, kind: ResourceType, name: str) -> dict[str, ConfigEntry]:
    (future,) = admin.describe_configs([ConfigResource(kind, name)]).values()
    return future.result(10)


def test_topics_come_and_go(admin: AdminClient) -> None:
    assert create(admin, NewTopic("c-a", 3, 1), NewTopic("c-b", -1, -1)) == {"c-a": 0, "c-b": 0}
    assert (partitions(admin, "c-a"), partitions(admin, "c-b")) == (3, 2)
    assert told(admin.delete_topics(["c-a", "c-missing"])) == {"c-a": 0, "c-missing": 3}
    assert partitions(admin, "c-a") is None


def test_topics_that_cannot_be(admin: AdminClient) -> None:
    assert create(admin, NewTopic("e-there", 1, 1)) == {"e-there": 0}
    codes = create(
        admin,
        NewTopic("e-there", 1, 1),
        NewTopic("e/name", 1, 1),
        NewTopic("e-none", 0, 1),
        NewTopic("e-many", 100_000, 1),
        NewTopic("e-copies", 1, 3),
        NewTopic("e-value", 1, 1, config={"retention.ms": "soon"}),
        NewTopic("e-key", 1, 1, config={"no.such": "1"}),
        NewTopic("e-assigned", 1, replica_assignment=[[5]]),
        NewTopic("__consumer_offsets", 1, 1),
    )
    assert codes == {
        "e-there": 36, "e/name": 17, "e-none": 37, "e-many": 37, "e-copies": 38, "e-value": 40,
        "e-key": 40, "e-assigned": 39, "__consumer_offsets": 17,
    }  # fmt: skip


def test_topics_are_only_validated(admin: AdminClient) -> None:
    wanted = [NewTopic("v-good", 1, 1), NewTopic("v-bad", 1, 2)]
    assert create(admin, *wanted, validate_only=True) == {"v-good": 0, "v-bad": 38}
    assert partitions(admin, "v-good") is None


def test_a_topic_assigned_to_the_node(admin: AdminClient) -> None:
    assert create(admin, NewTopic("assigned", 2, replica_assignment=[[0], [0]])) == {"assigned": 0}
    assert partitions(admin, "assigned") == 2


def test_partitions_are_added(admin: AdminClient) -> None:
    create(admin, NewTopic("p-a", 1, 1), NewTopic("p-b", 2, 1))
    wanted = [NewPartitions("p-a", 3), NewPartitions("p-b", 2), NewPartitions("p-missing", 2)]
    expected = {"p-a": 0, "p-b": 37, "p-missing": 3}
    assert told(admin.create_partitions(wanted, validate_only=True)) == expected
    assert partitions(admin, "p-a") == 1
    assert told(admin.create_partitions(wanted)) == expected
    assert (partitions(admin, "p-a"), partitions(admin, "p-b")) == (3, 2)


def test_configs_are_read(admin: AdminClient) -> None:
    create(admin, NewTopic("d", 1, 1, config={"retention.ms": "1000"}))
    found = configs(admin, TOPIC, "d")
    retention = found["retention.ms"]
    assert (retention.value, retention.source) == (
        "1000", ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    )  # fmt: skip
    assert not retention.is_read_only
    assert not retention.is_default
    assert {each.value for each in retention.synonyms.values()} <= {"1000", "604800000"}
    assert found["cleanup.policy"].value == "delete"
    assert found["cleanup.policy"].is_default
    node = configs(admin, BROKER, "0")
    assert node["num.partitions"].value == "2"
    assert node["num.partitions"].is_read_only
    missing = admin.describe_configs([ConfigResource(TOPIC, "missing")])
    assert list(told(missing).values()) == [3]


def incremental(admin: AdminClient, topic: str, *changes: tuple[str, str, str | None]) -> int:
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType[operation])
        for name, operation, value in changes
    ]
    resource = ConfigResource(TOPIC, topic, incremental_configs=entries)
    (code,) = told(admin.incremental_alter_configs([resource])).values()
    return code


def test_configs_are_changed(admin: AdminClient) -> None:
    create(admin, NewTopic("i", 1, 1, config={"retention.ms": "1000"}))
    assert (
        incremental(admin, "i", ("segment.ms", "SET", "9"), ("retention.ms", "DELETE", None)) == 0
    )
    assert incremental(admin, "i", ("cleanup.policy", "APPEND", "compact")) == 0
    found = configs(admin, TOPIC, "i")
    assert [found[name].value for name in ("segment.ms", "retention.ms", "cleanup.policy")] == [
        "9", "604800000", "delete,compact"
    ]  # fmt: skip
    assert incremental(admin, "i", ("cleanup.policy", "SUBTRACT", "delete")) == 0
    assert configs(admin, TOPIC, "i")["cleanup.policy"].value == "compact"
    assert incremental(admin, "i", ("segment.ms", "SET", "-5")) == 40
    assert incremental(admin, "i", ("segment.ms", "APPEND", "5")) == 40
    assert incremental(admin, "missing", ("segment.ms", "SET", "5")) == 3


def test_configs_are_replaced(admin: AdminClient) -> None:
    create(admin, NewTopic("r", 1, 1, config={"retention.ms": "1000"}))
    with pytest.warns(DeprecationWarning, match="alter_configs"):
        futures = admin.alter_configs([ConfigResource(TOPIC, "r", set_config={"segment.ms": "9"})])
    assert list(told(futures).values()) == [0]
    found = configs(admin, TOPIC, "r")
    assert (found["segment.ms"].value, found["retention.ms"].value) == ("9", "604800000")


def test_records_are_deleted(admin: AdminClient, address: str) -> None:
    create(admin, NewTopic("x", 2, 1))
    producer = Producer({"bootstrap.servers": address})
    for number in range(10):
        producer.produce("x", b"%d" % number, partition=0)
    assert producer.flush(10) == 0

    def cut(partition: int, offset: int) -> int:
        (future,) = admin.delete_records([TopicPartition("x", partition, offset)]).values()
        return future.result(10).low_watermark

    assert cut(0, 4) == 4
    assert cut(0, -1) == 10
    with pytest.raises(KafkaException) as error:
        cut(0, 11)
    assert error.value.args[0].code() == 1
