"""Apache Kafka, for tests of what Millstream does on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.kafka_jars import Java
from shared.kafka_nodes import KafkaNodes


@pytest.fixture(scope="session")
def kafka_node(java: Java, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNodes]:
    """One node for all tests of a process, each of which has topics of its own."""
    with KafkaNodes(java, tmp_path_factory.mktemp("kafka"), 1) as nodes:
        yield nodes


@pytest.fixture
def kafka_cluster(java: Java, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNodes]:
    """Three nodes for one test, which may kill them."""
    with KafkaNodes(java, tmp_path_factory.mktemp("kafka"), 3) as nodes:
        yield nodes
