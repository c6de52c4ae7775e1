"""What kafka-python's KafkaAdminClient does to a served log, and the errors it is told."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition, errors
from kafka.admin import ConfigResource, ConfigResourceType

TOPIC, BROKER = ConfigResourceType.TOPIC, ConfigResourceType.BROKER


@pytest.fixture(scope="module")
def admin(address: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=address)
    try:
        yield client
    finally:
        client.close()


def created(admin: KafkaAdminClient, topics: dict[str, dict[str, Any]], **more: Any) -> Any:
    answer = admin.create_topics(topics, raise_errors=False, **more)
    return {each["name"]: each for each in answer["topics"]}


def codes(answers: dict[str, Any]) -> dict[str, int]:
    return {name: each["error_code"] for name, each in answers.items()}


def test_topics_come_and_go(admin: KafkaAdminClient) -> None:
    made = created(
        admin, {"k-a": {"num_partitions": 3, "configs": {"retention.ms": "7"}}, "k-b": {}}
    )
    assert codes(made) == {"k-a": 0, "k-b": 0}
    assert [made[each]["num_partitions"] for each in ("k-a", "k-b")] == [3, 2]
    shown = made["k-a"]["configs"]["retention.ms"]
    assert (shown["value"], shown["config_source"]) == ("7", "DYNAMIC_TOPIC_CONFIG")
    (described,) = admin.describe_topics(["k-a"])
    assert len(described["partitions"]) == 3
    assert str(described["topic_id"]) == str(made["k-a"]["topic_id"])
    ids = [uuid.UUID(str(made["k-b"]["topic_id"])), uuid.uuid4()]
    gone = admin.delete_topics(["k-a", "k-missing", *ids], raise_errors=False)
    assert [each["error_code"] for each in gone["topics"]] == [0, 3, 0, 100]
    assert not {"k-a", "k-b"} & set(admin.list_topics())


@pytest.mark.parametrize(
    ("topic", "options", "code"),
    [
        ("ke-there", {}, 36),
        ("ke/name", {}, 17),
        ("__transaction_state", {}, 17),
        ("ke-none", {"num_partitions": 0}, 37),
        ("ke-many", {"num_partitions": 1_000_000}, 37),
        ("ke-copies", {"replication_factor": 3}, 38),
        ("ke-assigned", {"assignments": {0: [5]}}, 39),
        ("ke-value", {"configs": {"retention.ms": "soon"}}, 40),
        ("ke-key", {"configs": {"no.such": "1"}}, 40),
    ],
)
def test_topics_that_cannot_be(
    admin: KafkaAdminClient, topic: str, options: dict[str, Any], code: int
) -> None:
    if "ke-there" not in admin.list_topics():
        admin.create_topics({"ke-there": {}})
    assert codes(created(admin, {topic: options})) == {topic: code}


def test_topics_are_only_validated(admin: KafkaAdminClient) -> None:
    wanted = {"kv-good": {"num_partitions": 1}, "kv-bad": {"replication_factor": 2}}
    assert codes(created(admin, wanted, validate_only=True)) == {"kv-good": 0, "kv-bad": 38}
    assert "kv-good" not in admin.list_topics()


def test_partitions_are_added(admin: KafkaAdminClient) -> None:
    admin.create_topics({"kp-a": {"num_partitions": 1}, "kp-b": {"num_partitions": 2}})

    def added(**options: Any) -> list[tuple[str, int]]:
        wanted = {"kp-a": 3, "kp-b": 2, "kp-missing": 2}
        answer = admin.create_partitions(wanted, raise_errors=False, **options)
        return [(each.name, each.error_code) for each in answer.results]

    assert added(validate_only=True) == [("kp-a", 0), ("kp-b", 37), ("kp-missing", 3)]
    assert added() == [("kp-a", 0), ("kp-b", 37), ("kp-missing", 3)]
    answer = admin.create_partitions({"kp-b": {"count": 3, "assignments": [[0]]}})
    assert answer.results[0].error_code == 0
    assert [len(each["partitions"]) for each in admin.describe_topics(["kp-a", "kp-b"])] == [3, 3]


def configs(admin: KafkaAdminClient, kind: ConfigResourceType, name: str) -> dict[str, Any]:
    resource = ConfigResource(kind, name)
    found = admin.describe_configs([resource], include_synonyms=True, config_filter="all")
    return dict(found[kind.name.lower()][name])


def test_configs_are_read(admin: KafkaAdminClient) -> None:
    admin.create_topics({"kd": {"configs": {"retention.ms": "7"}}})
    found = configs(admin, TOPIC, "kd")
    retention = found["retention.ms"]
    assert (retention["value"], retention["config_source"], retention["config_type"]) == (
        "7", "DYNAMIC_TOPIC_CONFIG", "LONG"
    )  # fmt: skip
    assert [(each["value"], each["source"]) for each in retention["synonyms"]] == [
        ("7", "DYNAMIC_TOPIC_CONFIG"), ("604800000", "DEFAULT_CONFIG")
    ]  # fmt: skip
    assert (found["cleanup.policy"]["value"], found["cleanup.policy"]["config_type"]) == (
        "delete", "LIST"
    )  # fmt: skip
    node = configs(admin, BROKER, "0")["num.partitions"]
    assert (node["value"], node["config_source"], node["read_only"]) == (
        "2", "STATIC_BROKER_CONFIG", True
    )  # fmt: skip


@pytest.mark.parametrize("incremental", [True, False])
def test_configs_are_changed(admin: KafkaAdminClient, incremental: bool) -> None:
    topic = f"kc-{incremental}"
    admin.create_topics({topic: {"configs": {"retention.ms": "7"}}})

    def altered(changes: dict[str, Any], name: str = topic, **options: Any) -> str:
        answer = admin.alter_configs(
            [ConfigResource(TOPIC, name, changes)], incremental=incremental, **options
        )
        return str(answer["topic"][name])

    def values() -> list[str]:
        found = configs(admin, TOPIC, topic)
        return [found[each]["value"] for each in ("retention.ms", "segment.ms", "cleanup.policy")]

    assert altered({"segment.ms": "9"}, validate_only=True) == "OK"
    assert values() == ["7", "604800000", "delete"]
    assert altered({"segment.ms": "9"}) == "OK"
    assert values() == ["7", "9", "delete"]
    assert "[Error 40]" in altered({"segment.ms": "soon"})
    if incremental:
        assert altered({"retention.ms": ("DELETE", None)}) == "OK"
        assert altered({"cleanup.policy": ("APPEND", "compact")}) == "OK"
        assert values() == ["604800000", "9", "delete,compact"]
        assert altered({"cleanup.policy": ("SUBTRACT", "delete")}) == "OK"
        assert "[Error 40]" in altered({"segment.ms": ("APPEND", "1")})
        assert values() == ["604800000", "9", "compact"]


def test_records_are_deleted(admin: KafkaAdminClient, address: str) -> None:
    admin.create_topics({"kx": {"num_partitions": 2}})
    producer = KafkaProducer(bootstrap_servers=address)
    for number in range(10):
        producer.send("kx", b"%d" % number, partition=0)
    producer.close()
    first = TopicPartition("kx", 0)
    for offset, begin in ((4, 4), (2, 4), (-1, 10)):
        assert admin.delete_records({first: offset})[first]["low_watermark"] == begin
    with pytest.raises(errors.OffsetOutOfRangeError):
        admin.delete_records({first: 11})
    with pytest.raises(errors.UnknownTopicOrPartitionError):
        admin.delete_records({TopicPartition("kx", 7): 0}, partition_leader_id=0)


def test_where_partitions_are(admin: KafkaAdminClient, address: str) -> None:
    admin.create_topics({"kw": {"num_partitions": 3}})
    producer = KafkaProducer(bootstrap_servers=address)
    producer.send("kw", b"value" * 20, partition=1)
    producer.close()
    (broker,) = admin.describe_log_dirs({"kw": [0, 1]})
    (topic,) = broker["log_dirs"][0]["topics"]
    sizes = {each["partition_index"]: each["partition_size"] for each in topic["partitions"]}
    assert sizes.keys() == {0, 1}
    assert sizes[0] == 0 < 100 < sizes[1]
    page = admin.describe_topic_partitions(["kw"], 2)
    assert [each["partition_index"] for each in page["topics"][0]["partitions"]] == [0, 1]
    assert page["next_cursor"] == {"topic_name": "kw", "partition_index": 2}
    rest = admin.describe_topic_partitions(["kw"], 2, page["next_cursor"])
    assert [each["partition_index"] for each in rest["topics"][0]["partitions"]] == [2]
    assert rest["next_cursor"] is None


def test_nothing_is_elected_or_moved(admin: KafkaAdminClient) -> None:
    admin.create_topics({"kl": {}})
    answer = admin.elect_leaders(0, {"kl": [0, 9]}, raise_errors=False)
    (result,) = answer.replica_election_results
    assert [each.error_code for each in result.partition_result] == [84, 3]
    assert admin.list_partition_reassignments() == {}
