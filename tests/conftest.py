"""The default run leaves out the proofs that take minutes, and those on a cluster of Apache Kafka;
`CI=true`, `-m slow` and `-m cluster` run them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from shared.kafka_jars import Java, java_or_skip
from shared.kafka_nodes import KafkaNodes


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("CI") or config.getoption("-m"):
        return
    late = [
        each for each in items if {"slow", "cluster"} & {mark.name for mark in each.iter_markers()}
    ]
    if late:
        config.hook.pytest_deselected(items=late)
        items[:] = [item for item in items if item not in late]


@pytest.fixture(scope="session")
def java() -> Java:
    """Apache Kafka's classes; the test is skipped where they cannot be had."""
    return java_or_skip()


@pytest.fixture(scope="session")
def kafka_node(java: Java, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNodes]:
    """One node for all tests of a process, each of which has topics of its own."""
    with KafkaNodes(java, tmp_path_factory.mktemp("kafka"), 1) as nodes:
        yield nodes
