"""Access control as clients see it: rules made by their admin clients, and what they hear then."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLFilter, ACLOperation, ACLPermissionType, ResourcePattern
from kafka.admin import ResourceType as PythonResourceType

from shared.serve_command import ServeCommand
from shared.users import add_user

ARGUMENTS = (
    "--listen=SASL_PLAINTEXT://127.0.0.1:0",
    "--config=super.users=User:root",
    "--config=group.initial.rebalance.delay.ms=0",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    add_user(tmp_path / "log", "root", "root's")
    add_user(tmp_path / "log", "anna", "anna's")
    return tmp_path / "log"


@pytest.fixture
def server(folder: Path) -> Iterator[ServeCommand]:
    server = ServeCommand(folder, *ARGUMENTS)
    assert server.ready, server.process.communicate()
    yield server
    if server.process.poll() is None:
        assert server.stop() == 0
        assert "Traceback" not in server.errors


def login(server: ServeCommand, user: str, **settings: Any) -> dict[str, Any]:
    return {
        "bootstrap.servers": server.address.partition("://")[2],
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-256",
        "sasl.username": user,
        "sasl.password": f"{user}'s",
        **{name.replace("_", "."): value for name, value in settings.items()},
    }


def admin_of(server: ServeCommand, user: str = "root") -> AdminClient:
    return AdminClient(login(server, user))


def allow(
    admin: AdminClient,
    operation: Any,
    name: str,
    kind: Any = ResourceType.TOPIC,
    pattern: Any = ResourcePatternType.LITERAL,
    permission: Any = AclPermissionType.ALLOW,
) -> None:
    binding = AclBinding(kind, name, pattern, "User:anna", "*", operation, permission)
    for future in admin.create_acls([binding]).values():
        future.result(15)


def sent(server: ServeCommand, topic: str, user: str = "anna", **settings: Any) -> int:
    """Kafka's number of what came of a record; 0 when it was written."""
    heard: list[int] = []
    producer = Producer(login(server, user, **settings))
    producer.produce(
        topic,
        b"value",
        on_delivery=lambda error, _: heard.append(0 if error is None else error.code()),
    )
    assert producer.flush(20) == 0
    return heard[0]


def read(server: ServeCommand, topic: str, group: str) -> Any:
    """The value of a record, or Kafka's number of the first error."""
    consumer = Consumer(
        login(server, "anna", group_id=group, auto_offset_reset="earliest", fetch_wait_max_ms=100)
    )
    try:
        consumer.subscribe([topic])
        message = consumer.poll(20)
        assert message is not None
        return message.value() if message.error() is None else message.error().code()
    finally:
        consumer.close()


def create(admin: AdminClient, *names: str) -> None:
    for future in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
        future.result(15)


def test_writing_and_reading(server: ServeCommand) -> None:
    admin = admin_of(server)
    create(admin, "orders", "orders-eu")
    assert sent(server, "orders") == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert sent(server, "orders", "root") == 0
    assert admin_of(server, "anna").list_topics(timeout=15).topics == {}
    allow(admin, AclOperation.WRITE, "orders", pattern=ResourcePatternType.PREFIXED)
    assert sent(server, "orders") == 0
    assert sent(server, "orders", enable_idempotence=True) == 0
    assert sent(server, "orders-eu") == 0
    assert set(admin_of(server, "anna").list_topics(timeout=15).topics) == {"orders", "orders-eu"}
    assert read(server, "orders", "g") == KafkaError.GROUP_AUTHORIZATION_FAILED
    allow(admin, AclOperation.READ, "g", ResourceType.GROUP)
    assert read(server, "orders", "g") == KafkaError.TOPIC_AUTHORIZATION_FAILED
    allow(admin, AclOperation.READ, "orders")
    assert read(server, "orders", "g") == b"value"
    allow(admin, AclOperation.WRITE, "orders-eu", permission=AclPermissionType.DENY)
    assert sent(server, "orders-eu") == KafkaError.TOPIC_AUTHORIZATION_FAILED
    assert sent(server, "orders") == 0


def test_transactions(server: ServeCommand) -> None:
    admin = admin_of(server)
    create(admin, "orders")
    allow(admin, AclOperation.WRITE, "orders")
    producer = Producer(login(server, "anna", transactional_id="t"))
    with pytest.raises(KafkaException) as failed:
        producer.init_transactions(10)
    code = failed.value.args[0].code()
    assert code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    allow(admin, AclOperation.WRITE, "t", ResourceType.TRANSACTIONAL_ID)
    producer = Producer(login(server, "anna", transactional_id="t"))
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce("orders", b"value")
    producer.commit_transaction(10)


def test_administration(server: ServeCommand) -> None:
    admin, anna = admin_of(server), admin_of(server, "anna")
    ((_, future),) = anna.create_topics([NewTopic("new", 1, 1)]).items()
    with pytest.raises(KafkaException, match="TOPIC_AUTHORIZATION_FAILED"):
        future.result(15)
    binding = AclBinding(
        ResourceType.TOPIC, "x", ResourcePatternType.LITERAL, "User:anna", "*", AclOperation.ALL,
        AclPermissionType.ALLOW,
    )  # fmt: skip
    with pytest.raises(KafkaException, match="CLUSTER_AUTHORIZATION_FAILED"):
        anna.create_acls([binding])[binding].result(15)
    allow(admin, AclOperation.CREATE, "kafka-cluster", ResourceType.BROKER)
    ((_, future),) = anna.create_topics([NewTopic("new", 1, 1)]).items()
    future.result(15)


def test_rules_are_described_and_deleted(server: ServeCommand) -> None:
    admin = admin_of(server)
    allow(admin, AclOperation.READ, "orders")
    allow(admin, AclOperation.ALL, "g", ResourceType.GROUP)
    every = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY,
        AclPermissionType.ANY,
    )  # fmt: skip
    found = admin.describe_acls(every).result(15)
    assert {(each.restype, each.name, each.operation) for each in found} == {
        (ResourceType.TOPIC, "orders", AclOperation.READ),
        (ResourceType.GROUP, "g", AclOperation.ALL),
    }
    gone = admin.delete_acls([every])[every].result(15)
    assert {each.name for each in gone} == {"orders", "g"}
    assert admin.describe_acls(every).result(15) == []


def test_kafka_python_makes_rules(server: ServeCommand) -> None:
    settings = login(server, "root")
    admin = KafkaAdminClient(
        bootstrap_servers=settings["bootstrap.servers"],
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_plain_username="root",
        sasl_plain_password="root's",
    )
    try:
        rule = ACL(
            principal="User:anna",
            host="*",
            operation=ACLOperation.READ,
            permission_type=ACLPermissionType.ALLOW,
            resource_pattern=ResourcePattern(PythonResourceType.TOPIC, "orders"),
        )
        assert admin.create_acls([rule])["succeeded"] == [rule]
        found, error = admin.describe_acls(
            ACLFilter(None, None, ACLOperation.ANY, ACLPermissionType.ANY, rule.resource_pattern)
        )
        assert found == [rule]
        del error
    finally:
        admin.close()


def test_users_are_made_over_the_network(server: ServeCommand) -> None:
    admin = admin_of(server)
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
    upsertion = UserScramCredentialUpsertion("bert", info, b"bert's", b"salt of bert's")
    admin.alter_user_scram_credentials([upsertion])["bert"].result(15)
    found = admin.describe_user_scram_credentials(["bert"])["bert"].result(15)
    assert [each.iterations for each in found.scram_credential_infos] == [4096]
    create(admin, "orders")
    assert sent(server, "orders", "bert") == KafkaError.TOPIC_AUTHORIZATION_FAILED
    deletion = UserScramCredentialDeletion("bert", ScramMechanism.SCRAM_SHA_256)
    admin.alter_user_scram_credentials([deletion])["bert"].result(15)
    assert set(admin.describe_user_scram_credentials().result(15)) == {"anna", "root"}


def test_a_killed_server_keeps_users_and_rules(server: ServeCommand, folder: Path) -> None:
    admin = admin_of(server)
    create(admin, "orders")
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
    upsertion = UserScramCredentialUpsertion("bert", info, b"bert's", b"salt of bert's")
    admin.alter_user_scram_credentials([upsertion])["bert"].result(15)
    allow(admin, AclOperation.WRITE, "orders")
    server.stop(signal.SIGKILL)
    again = ServeCommand(folder, *ARGUMENTS)
    try:
        assert sent(again, "orders") == 0
        assert sent(again, "orders", "bert") == KafkaError.TOPIC_AUTHORIZATION_FAILED
    finally:
        assert again.stop() == 0
