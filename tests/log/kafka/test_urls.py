"""`kafka://` URLs, and settings under Kafka's names."""

from __future__ import annotations

import subprocess
import sys

import pytest

from millstream.log import ConfigError, open_log
from millstream.log.kafka.address import parse_address
from millstream.log.kafka.settings import (
    ConnectionConfig,
    KafkaConsumerConfig,
    KafkaProducerConfig,
)


def test_hosts_and_options() -> None:
    address = parse_address(
        "kafka://a:1,b:2?sasl.username=anna&sasl.password=a%26b%3D", {"client.id": "me"}
    )
    assert address.bootstrap_servers == "a:1,b:2"
    assert address.settings == {
        "sasl.username": "anna",
        "sasl.password": "a&b=",
        "client.id": "me",
    }


def test_secrets_are_no_part_of_what_settings_look_like() -> None:
    names = (
        *("sasl.password", "sasl.oauthbearer.client.secret", "ssl.key.pem", "ssl.key.password"),
        "ssl.keystore.password",
    )
    config = ConnectionConfig.parse(dict.fromkeys(names, "hidden"), "here")
    assert "hidden" not in repr(config)
    given = config.for_librdkafka("a:1")
    assert {name: given[name] for name in names} == dict.fromkeys(names, "hidden")


def test_a_password_is_not_shown() -> None:
    log = open_log("kafka://a:1?security.protocol=SASL_SSL&sasl.password=hidden")
    assert log.url == "kafka://a:1"
    with pytest.raises(ConfigError, match=r"unknown option sasl\.password") as raised:
        open_log("kafak://a:1?sasl.password=hidden")
    assert "hidden" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("kafka://", "HOST:PORT"),
        ("kafka:", "is no log"),
        ("kafka://a:b", "'a:b' is no HOST:PORT"),
        ("kafka://anna:secret@a:1", "sasl.username"),
        ("kafka://a:1/x", "HOST:PORT"),
        ("kafka://a:1?durability", "has no value"),
        ("kafka://a:1?ssl.ca.locatoin=x", "ssl.ca.location"),
        ("kafka://a:1?security.protocol=tls", "sasl_ssl"),
    ],
)
def test_a_url_that_is_wrong(url: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        open_log(url)


def test_durability_is_the_servers() -> None:
    with pytest.raises(ConfigError, match="server's"):
        open_log("kafka://a:1", durability="os")


def test_connection_settings_as_librdkafka_takes_them() -> None:
    config = ConnectionConfig.parse(
        {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}, "url"
    )
    settings = config.for_librdkafka("a:1")
    assert settings["bootstrap.servers"] == "a:1"
    assert settings["security.protocol"] == "sasl_ssl"
    assert settings["socket.timeout.ms"] == "30000"
    assert "ssl.ca.location" not in settings


def test_producer_settings_as_librdkafka_takes_them() -> None:
    config = KafkaProducerConfig.parse({"buffer.memory": 1 << 20, "linger.ms": "7"})
    connection = ConnectionConfig().for_librdkafka("a:1")
    settings = config.for_librdkafka("me", connection)
    assert settings["queue.buffering.max.kbytes"] == 1024
    assert settings["linger.ms"] == 7
    assert settings["delivery.timeout.ms"] == settings["transaction.timeout.ms"] == 60_000
    assert settings["bootstrap.servers"] == "a:1"
    assert "transactional.id" not in KafkaProducerConfig().for_librdkafka(None, connection)
    hasty = KafkaProducerConfig.parse({"transaction.timeout.ms": 10_000})
    assert hasty.for_librdkafka("me", connection)["socket.timeout.ms"] == 10_000


def test_consumer_settings_as_librdkafka_takes_them() -> None:
    settings = KafkaConsumerConfig.parse({"fetch.max.wait.ms": 9}).for_librdkafka()
    assert settings["fetch.wait.max.ms"] == 9
    assert settings["enable.auto.commit"] is False
    assert settings["partition.assignment.strategy"] == "cooperative-sticky"


def test_settings_that_are_wrong() -> None:
    with pytest.raises(ConfigError, match=r"linger\.ms"):
        KafkaProducerConfig.parse({"linger": 5})
    with pytest.raises(ConfigError, match="goes with no other"):
        KafkaConsumerConfig.parse({"partition.assignment.strategy": "range,cooperative-sticky"})
    with pytest.raises(ConfigError, match="range, roundrobin, cooperative-sticky"):
        KafkaConsumerConfig.parse({"partition.assignment.strategy": "sticky"})


def test_without_the_library_it_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['confluent_kafka'] = None\n"
        "from millstream.log import ConfigError, open_log\n"
        "open_log('memory:')\n"
        "try:\n    open_log('kafka://a:1')\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "pip install 'millstream[kafka]'" in done.stdout, done.stderr
