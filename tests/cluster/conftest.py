"""Apache Kafka, for tests of what Millstream does on a real cluster."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.kafka_jars import Java
from shared.kafka_nodes import KafkaNodes


@pytest.fixture
def kafka_cluster(java: Java, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNodes]:
    """Three nodes for one test, which may kill them."""
    with KafkaNodes(java, tmp_path_factory.mktemp("kafka"), 3) as nodes:
        yield nodes
