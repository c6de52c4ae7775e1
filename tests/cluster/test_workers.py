"""Worker processes of an app come, go and are killed on Apache Kafka; all counts once."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.kafka_nodes import KafkaNodes
from shared.worker_processes import prepare, rescale

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_workers_come_and_go_under_load(tmp_path: Path, kafka_node: KafkaNodes) -> None:
    prepare(tmp_path, kafka_node.address)
    print(rescale(tmp_path, kafka_node.address))
