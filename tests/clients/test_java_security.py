"""Kafka's own tools and its Java client over TLS, with logins, rules and quotas."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.certificates import Authority
from shared.kafka_jars import Java
from shared.serve_command import ServeCommand
from shared.users import add_user

pytestmark = pytest.mark.slow

TOOLS = "org.apache.kafka.tools"
ACLS = f"{TOOLS}.AclCommand"
CONFIGS = "kafka.admin.ConfigCommand"
TOPICS = f"{TOOLS}.TopicCommand"
WRITE = f"{TOOLS}.ConsoleProducer"
READ = f"{TOOLS}.consumer.ConsoleConsumer"
PERFORMANCE = f"{TOOLS}.ProducerPerformance"
REAUTH_MS = 1500


class Secured:
    """A server with TLS, logins and certificates, and Kafka's tools as somebody."""

    def __init__(self, java: Java, folder: Path) -> None:
        self.java, self._folder = java, folder
        self._authority = Authority(folder)
        certificate, key = self._authority.sign("server", "/CN=localhost")
        add_user(folder / "log", "root", "root-secret")
        settings = {
            "super.users": "User:root",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
            "ssl.certificate.location": certificate,
            "ssl.key.location": key,
            "ssl.ca.location": self._authority.certificate,
            "ssl.client.auth": "required",
            "connections.max.reauth.ms": REAUTH_MS,
            "group.initial.rebalance.delay.ms": 0,
        }
        self.server = ServeCommand(
            folder / "log",
            *("--listen", "SASL_SSL://127.0.0.1:0,SSL://127.0.0.1:0"),
            *(f"--config={name}={value}" for name, value in settings.items()),
        )
        assert self.server.ready, self.server.process.communicate()
        self.addresses = dict(each.split("://") for each in self.server.address.split(","))

    def file(self, user: str, mechanism: str = "SCRAM-SHA-512", password: str = "") -> str:
        """Properties of a client that logs in."""
        kind = "plain.Plain" if mechanism == "PLAIN" else "scram.Scram"
        path = self._folder / f"{user}-{mechanism}-{password}.properties"
        path.write_text(
            "security.protocol=SASL_SSL\n"
            "ssl.truststore.type=PEM\n"
            f"ssl.truststore.location={self._authority.certificate}\n"
            f"sasl.mechanism={mechanism}\n"
            f"sasl.jaas.config=org.apache.kafka.common.security.{kind}LoginModule required "
            f'username="{user}" password="{password or user + "-secret"}";\n'
        )
        return str(path)

    def certificate_file(self, name: str) -> str:
        """Properties of a client with a certificate. Java wants both in one file, the key first."""
        certificate, key = self._authority.sign(name, f"/O=tests/CN={name}")
        both = self._folder / f"{name}-both.pem"
        both.write_text(key.read_text() + certificate.read_text())
        path = self._folder / f"{name}.properties"
        path.write_text(
            "security.protocol=SSL\n"
            "ssl.truststore.type=PEM\n"
            f"ssl.truststore.location={self._authority.certificate}\n"
            "ssl.keystore.type=PEM\n"
            f"ssl.keystore.location={both}\n"
        )
        return str(path)

    def run(
        self,
        tool: str,
        *arguments: str,
        config: str | None = None,
        protocol: str = "SASL_SSL",
        text: str = "",
        ok: bool = True,
    ) -> str:
        return self.java.run(
            tool,
            *("--bootstrap-server", self.addresses[protocol]),
            *("--command-config", config or self.file("root")),
            *arguments,
            text=text,
            ok=ok,
        )

    def read(self, topic: str, config: str, protocol: str = "SASL_SSL") -> list[str]:
        limits = ("--from-beginning", "--max-messages", "2", "--timeout-ms", "15000")
        arguments = ("--topic", topic, "--group", "readers", *limits)
        return self.run(READ, *arguments, config=config, protocol=protocol).splitlines()


@pytest.fixture(scope="module")
def secured(java: Java, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    secured = Secured(java, tmp_path_factory.mktemp("secured"))
    try:
        yield secured
    finally:
        assert secured.server.stop() == 0
        assert "Traceback" not in secured.server.errors
        assert "secret" not in secured.server.errors


def test_users_rules_and_records(secured: Secured) -> None:
    """From an empty log to a user that writes and reads, with nothing but Kafka's tools."""
    user = ("--entity-type", "users", "--entity-name", "anna")
    keys = "SCRAM-SHA-256=[iterations=4096,password=anna-secret]"
    secured.run(CONFIGS, "--alter", *user, "--add-config", "SCRAM-SHA-512=[password=anna-secret]")
    secured.run(CONFIGS, "--alter", *user, "--add-config", keys)
    assert "iterations=4096" in secured.run(CONFIGS, "--describe", *user)
    secured.run(TOPICS, "--create", "--topic", "orders", "--partitions", "1")
    anna = secured.file("anna")
    assert secured.run(TOPICS, "--list", config=anna).split() == []
    refused = secured.run(ACLS, "--list", config=anna, ok=False)
    assert "ClusterAuthorizationException" in refused
    allowed = ("--add", "--allow-principal", "User:anna", "--operation", "Read")
    secured.run(ACLS, *allowed, "--operation", "Write", "--topic", "ord",
                "--resource-pattern-type", "prefixed")  # fmt: skip
    secured.run(ACLS, *allowed, "--group", "readers")
    assert "User:anna" in secured.run(ACLS, "--list")
    assert secured.run(TOPICS, "--list", config=anna).split() == ["orders"]
    secured.run(WRITE, "--topic", "orders", text="one\ntwo\n", config=anna)
    for mechanism in ("PLAIN", "SCRAM-SHA-256"):
        found = secured.read("orders", secured.file("anna", mechanism))
        assert found == (["one", "two"] if mechanism == "PLAIN" else [])
    denied = secured.run(
        TOPICS, "--create", "--topic", "other", "--partitions", "1", config=anna, ok=False
    )
    assert "Authorization" in denied


def test_a_wrong_password(secured: Secured) -> None:
    wrong = secured.file("root", password="wrong")
    assert "Authentication failed" in secured.run(TOPICS, "--list", config=wrong, ok=False)


def test_a_certificate(secured: Secured) -> None:
    config = secured.certificate_file("carl")
    secured.run(TOPICS, "--create", "--topic", "of-carl", "--partitions", "1")
    listed = ("--list",)
    assert secured.run(TOPICS, *listed, config=config, protocol="SSL").split() == []
    secured.run(
        ACLS, "--add", "--allow-principal", "User:CN=carl,O=tests", "--operation", "Describe",
        "--topic", "of-carl",
    )  # fmt: skip
    assert secured.run(TOPICS, *listed, config=config, protocol="SSL").split() == ["of-carl"]


def written(secured: Secured, records: int, config: str, *, rate: int = -1) -> str:
    return secured.java.run(
        PERFORMANCE,
        *("--topic", "load", "--num-records", str(records), "--record-size", "1000"),
        *("--throughput", str(rate), "--command-config", config),
        *("--command-property", f"bootstrap.servers={secured.addresses['SASL_SSL']}"),
        "--print-metrics",
    )


def metric(name: str, text: str) -> float:
    (value,) = re.findall(rf"producer-metrics:{name}:.*: ([\d.]+)", text)
    return float(value)


def test_clients_log_in_again_on_their_connections(secured: Secured) -> None:
    """For longer than a login holds; every record is written."""
    secured.run(TOPICS, "--create", "--topic", "load", "--partitions", "1")
    found = written(secured, 500, secured.file("root"), rate=100)
    assert "500 records sent" in found
    assert metric("failed-reauthentication-total", found) == 0
    assert metric("successful-reauthentication-total", found) >= 1


def test_a_quota(secured: Secured) -> None:
    everybody = ("--entity-type", "users", "--entity-default")
    secured.run(CONFIGS, "--alter", *everybody, "--add-config", "producer_byte_rate=100000")
    assert "producer_byte_rate=100000" in secured.run(CONFIGS, "--describe", *everybody)
    found = written(secured, 400, secured.file("root"))
    secured.run(CONFIGS, "--alter", *everybody, "--delete-config", "producer_byte_rate")
    assert "400 records sent" in found
    assert metric("produce-throttle-time-max", found) > 100
    assert "producer_byte_rate" not in secured.run(CONFIGS, "--describe", *everybody)
