"""docs/reference/clients.md says "yes" where there is a test, and names the versions tested."""

from __future__ import annotations

import json
import re
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "clients.md").read_text()
CLIENTS = ROOT / "tests" / "clients"
PROOFS = """
confluent-kafka Produce test_confluent::test_every_compression_there_and_back
confluent-kafka Consume test_confluent::test_reading_from_every_position
confluent-kafka Consume test_confluent::test_reading_from_the_end_and_from_a_time
confluent-kafka Groups test_librdkafka_groups::test_members_share_what_there_is
confluent-kafka Transactions test_confluent::test_only_what_was_committed_is_read
confluent-kafka Transactions test_librdkafka_transactions::test_a_second_producer_fences_the_first
confluent-kafka Admin test_admin_confluent_kafka::test_topics_come_and_go
confluent-kafka Errors test_confluent::test_error_codes
kafka-python Produce test_kafka_python::test_every_compression_there_and_back
kafka-python Consume test_kafka_python::test_reading_from_every_position
kafka-python Consume test_kafka_python::test_reading_from_the_ends_and_from_a_time
kafka-python Groups test_python_clients_groups::test_kafka_python_groups
kafka-python Transactions test_kafka_python::test_transactions
kafka-python Transactions test_python_clients_groups::test_kafka_python_fencing
kafka-python Admin test_admin_kafka_python::test_topics_come_and_go
kafka-python Errors test_kafka_python::test_a_record_that_is_too_large
kafka-python Errors test_kafka_python::test_an_offset_that_is_not_there
aiokafka Produce test_aiokafka::test_every_compression_there_and_back
aiokafka Consume test_aiokafka::test_reading_from_every_position
aiokafka Groups test_aiokafka::test_groups
aiokafka Transactions test_aiokafka::test_transactions
aiokafka Admin test_aiokafka::test_admin
aiokafka Errors test_aiokafka::test_errors
kcat Produce test_kcat::test_produce_and_consume
kcat Consume test_kcat::test_produce_and_consume
kcat Consume test_kcat::test_reading_from_the_end_and_from_a_time
kcat Groups test_kcat::test_members_share_what_there_is
kcat Groups test_kcat::test_groups_go_on_where_they_were
kcat Transactions test_kcat::test_transactions
kcat Transactions test_kcat::test_a_transaction_that_is_broken_off
kcat Transactions test_kcat::test_a_producer_that_another_one_fences
kcat Errors test_kcat::test_errors
KafkaJS Produce test_node::test_kafkajs
KafkaJS Consume test_node::test_kafkajs
KafkaJS Groups test_node::test_kafkajs
KafkaJS Transactions test_node::test_kafkajs
KafkaJS Admin test_node::test_kafkajs
KafkaJS Errors test_node::test_kafkajs
@platformatic/kafka Produce test_node::test_platformatic
@platformatic/kafka Consume test_node::test_platformatic
@platformatic/kafka Groups test_node::test_platformatic
@platformatic/kafka Transactions test_node::test_platformatic
@platformatic/kafka Admin test_node::test_platformatic
@platformatic/kafka Errors test_node::test_platformatic
franz-go Produce test_go::test_franz_go
franz-go Consume test_go::test_franz_go
franz-go Groups test_go::test_franz_go
franz-go Transactions test_go::test_franz_go
franz-go Admin test_go::test_franz_go
franz-go Errors test_go::test_franz_go
Java Produce test_java::test_messages
Java Consume test_java::test_messages
Java Groups test_java::test_groups
Java Transactions test_java::test_transactions
Java Transactions test_java::test_fencing
Java Admin test_java::test_admin
Java Errors test_java::test_messages
Java Errors test_java::test_admin
Kafka's Produce test_java_tools::test_console_producer_and_consumer
Kafka's Produce test_java_proofs::test_producer_and_consumer_performance
Kafka's Consume test_java_tools::test_console_producer_and_consumer
Kafka's Consume test_java_tools::test_console_consumer_from_the_end
Kafka's Groups test_java_tools::test_consumer_groups
Kafka's Groups test_java_proofs::test_a_group_goes_on_when_a_member_dies
Kafka's Transactions test_java_proofs::test_transactional_copiers
Kafka's Admin test_java_tools::test_topics
Kafka's Admin test_java_tools::test_configs
Kafka's Errors test_java_tools::test_topics
Kafka's Errors test_java_tools::test_configs
"""


def proofs() -> dict[tuple[str, str], list[str]]:
    """The tests of a client's column."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in PROOFS.split("\n")[1:-1]:
        client, column, test = line.split(" ")
        found.setdefault((client, column), []).append(test)
    return found


def test_what_is_said_has_a_test() -> None:
    table = PAGE.partition("| Client |")[2].partition("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    columns, _, *rows = rows
    assert {
        (name.split(" ")[0], column): cell == "yes"
        for name, *cells in rows
        for column, cell in zip(columns, cells, strict=True)
    } == {
        (client, column): (client, column) in proofs()
        for client in dict.fromkeys(client for client, _ in proofs())
        for column in columns
    }


def test_these_tests_are_there() -> None:
    for each in chain(*proofs().values()):
        module, test = each.split("::")
        assert f"\ndef {test}(" in (CLIENTS / f"{module}.py").read_text(), each


def test_versions() -> None:
    packages = json.loads((CLIENTS / "node" / "package.json").read_text())["dependencies"]
    (kafka,) = re.findall(
        r"<kafka.version>(.*)</kafka.version>",
        (ROOT / "tests" / "shared" / "kafka" / "pom.xml").read_text(),
    )
    (franz,) = re.findall(r"twmb/franz-go v(\S+)", (CLIENTS / "go" / "go.mod").read_text())
    apps = (CLIENTS / "python_apps" / "requirements.txt").read_text()
    for named in (
        f"KafkaJS {packages['kafkajs']}",
        f"@platformatic/kafka {packages['@platformatic/kafka']}",
        f"franz-go {franz}",
        f"Java client {kafka}",
        f"Kafka's command-line tools {kafka}",
        f"Kafka Streams {kafka}",
        *(" ".join(each) for each in re.findall(r"(faust-streaming)==(\S+)", apps)),
        *(f"Quix Streams {each}" for each in re.findall(r"quixstreams==(\S+)", apps)),
    ):
        assert f"| {named} |" in PAGE, named
