"""confluent-kafka and kafka-python log in, over TLS and without, or are kept out."""

from __future__ import annotations

import itertools
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from shared.certificates import Authority
from shared.serve_command import ServeCommand
from shared.served_log import until
from shared.users import add_user

MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
PASSWORD = "correct horse, b=ttery staple"
_numbers = itertools.count()


class Served(NamedTuple):
    server: ServeCommand
    addresses: dict[str, str]
    authority: Authority


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server with a listener of every kind."""
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    certificate, key = authority.sign("server", "/CN=localhost", password="of the key")
    add_user(folder / "log", "anna", PASSWORD)
    settings = {
        "sasl.enabled.mechanisms": ",".join(MECHANISMS),
        "ssl.certificate.location": certificate,
        "ssl.key.location": key,
        "ssl.key.password": "of the key",
        "ssl.ca.location": authority.certificate,
        "ssl.client.auth": "required",
        "allow.everyone.if.no.acl.found": "true",
    }
    listeners = [f"{each}://127.0.0.1:0" for each in ("SSL", "SASL_PLAINTEXT", "SASL_SSL")]
    server = ServeCommand(
        folder / "log",
        *("--listen", ",".join(listeners)),
        *(f"--config={name}={value}" for name, value in settings.items()),
    )
    assert server.ready, server.process.communicate()
    addresses = dict(each.split("://") for each in server.address.split(","))
    try:
        yield Served(server, addresses, authority)
    finally:
        assert server.stop() == 0
        assert PASSWORD not in server.errors
        assert "of the key" not in server.errors
        assert "Traceback" not in server.errors


def confluent(served: Served, protocol: str, **settings: Any) -> dict[str, Any]:
    """Settings of confluent-kafka."""
    return {
        "bootstrap.servers": served.addresses[protocol],
        "security.protocol": protocol,
        "ssl.ca.location": str(served.authority.certificate),
        **{name.replace("_", "."): value for name, value in settings.items()},
    }


def python(served: Served, protocol: str, **settings: Any) -> dict[str, Any]:
    """Settings of kafka-python."""
    return {
        "bootstrap_servers": served.addresses[protocol],
        "security_protocol": protocol,
        "ssl_cafile": str(served.authority.certificate),
        **settings,
    }


def there_and_back_confluent(settings: dict[str, Any]) -> None:
    topic = f"logins-{next(_numbers)}"
    producer = Producer(settings)
    producer.produce(topic, b"value")
    assert producer.flush(20) == 0
    consumer = Consumer({**settings, "group.id": topic, "auto.offset.reset": "earliest"})
    try:
        consumer.subscribe([topic])
        message = consumer.poll(20)
        assert message is not None
        assert message.value() == b"value"
    finally:
        consumer.close()


def there_and_back_python(settings: dict[str, Any]) -> None:
    topic = f"logins-{next(_numbers)}"
    producer = KafkaProducer(**settings)
    try:
        producer.send(topic, b"value", partition=0).get(20)
    finally:
        producer.close()
    consumer = KafkaConsumer(**settings, consumer_timeout_ms=20_000, group_id=None)
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 0)
        assert next(consumer).value == b"value"
    finally:
        consumer.close()


def hears(settings: dict[str, Any], code: int) -> None:
    """Connect until the client says so."""
    codes: set[int] = set()
    admin = AdminClient({**settings, "error_cb": lambda error: codes.add(error.code())})

    def heard() -> bool:
        admin.poll(0.2)
        return code in codes

    until(heard)


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_confluent_kafka_logs_in(served: Served, protocol: str, mechanism: str) -> None:
    there_and_back_confluent(
        confluent(
            served,
            protocol,
            sasl_mechanism=mechanism,
            sasl_username="anna",
            sasl_password=PASSWORD,
        )
    )


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_kafka_python_logs_in(served: Served, protocol: str, mechanism: str) -> None:
    there_and_back_python(
        python(
            served,
            protocol,
            sasl_mechanism=mechanism,
            sasl_plain_username="anna",
            sasl_plain_password=PASSWORD,
        )
    )


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize(("user", "password"), [("anna", "wrong"), ("nobody", PASSWORD)])
def test_a_wrong_password_keeps_out(
    served: Served, mechanism: str, user: str, password: str
) -> None:
    login = {"sasl_mechanism": mechanism, "sasl_username": user, "sasl_password": password}
    hears(confluent(served, "SASL_SSL", **login), KafkaError._AUTHENTICATION)


KAFKA_PYTHON = """
import json, sys
from kafka import KafkaProducer
from kafka.errors import KafkaError
try:
    KafkaProducer(**json.loads(sys.argv[1])).send("t", b"").get(5)
except KafkaError as error:
    print(type(error).__name__)
"""


def test_a_wrong_password_keeps_kafka_python_out(served: Served) -> None:
    """In a process of its own: it leaves its sockets open."""
    settings = python(
        served,
        "SASL_SSL",
        sasl_mechanism="SCRAM-SHA-256",
        sasl_plain_username="anna",
        sasl_plain_password="wrong",
        bootstrap_timeout_ms=2000,
        max_block_ms=3000,
    )
    command = [sys.executable, "-c", KAFKA_PYTHON, json.dumps(settings)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert found.stdout.strip() in ("KafkaTimeoutError", "SaslAuthenticationFailedError"), found


def test_a_certificate_lets_in(served: Served) -> None:
    certificate, key = served.authority.sign("client", "/O=tests/CN=anna")
    files = {"ssl_certificate_location": str(certificate), "ssl_key_location": str(key)}
    there_and_back_confluent(confluent(served, "SSL", **files))
    there_and_back_python(
        python(served, "SSL", ssl_certfile=str(certificate), ssl_keyfile=str(key))
    )


@pytest.mark.parametrize("what", ["none", "expired", "of another authority"])
def test_no_certificate_or_a_bad_one_keeps_out(served: Served, tmp_path: Path, what: str) -> None:
    files = {}
    if what != "none":
        authority = served.authority if what == "expired" else Authority(tmp_path, "other")
        certificate, key = authority.sign(
            what.replace(" ", "-"), "/CN=anna", days=-1 if what == "expired" else 2
        )
        files = {"ssl_certificate_location": str(certificate), "ssl_key_location": str(key)}
    hears(confluent(served, "SSL", **files), KafkaError._ALL_BROKERS_DOWN)


def test_an_expired_certificate_of_the_server(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server", "/CN=localhost", days=-1)
    server = ServeCommand(
        tmp_path / "log",
        *("--listen", "SSL://127.0.0.1:0"),
        *("--config", f"ssl.certificate.location={certificate}"),
        *("--config", f"ssl.key.location={key}"),
    )
    try:
        address = server.address.removeprefix("SSL://")
        context = ssl.create_default_context(cafile=str(authority.certificate))
        settings = {
            "bootstrap.servers": address,
            "security.protocol": "SSL",
            "ssl.ca.location": str(authority.certificate),
        }
        hears(settings, KafkaError._SSL)
        import socket

        host, _, port = address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            pytest.raises(ssl.SSLCertVerificationError, match="expired"),
        ):
            context.wrap_socket(plain, server_hostname="127.0.0.1")
    finally:
        assert server.stop() == 0


def test_plaintext_on_a_tls_listener(served: Served) -> None:
    """The connection ends, and nobody else notices."""
    hears({"bootstrap.servers": served.addresses["SASL_SSL"]}, KafkaError._ALL_BROKERS_DOWN)
    test_confluent_kafka_logs_in(served, "SASL_SSL", "SCRAM-SHA-512")
