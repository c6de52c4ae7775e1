"""The default run leaves out the proofs that take minutes, and those on a cluster of Apache Kafka;
`CI=true`, `-m slow` and `-m cluster` run them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from millstream.log import GroupNotEmptyError, open_log
from shared.kafka_jars import Java, java_or_skip
from shared.kafka_nodes import KafkaNodes
from shared.served_log import ServedLog


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


@pytest.fixture(params=["server", pytest.param("cluster", marks=pytest.mark.cluster)])
def kafka_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty log over the network: `millstream serve`, and Apache Kafka."""
    if request.param == "server":
        with ServedLog(tmp_path / "served") as server:
            yield f"kafka://{server.address}"
    else:
        url = f"kafka://{request.getfixturevalue('kafka_node').address}"
        asyncio.run(_empty(url))
        yield url


async def _empty(url: str) -> None:
    """Remove what other tests have left; not the groups whose members died."""
    async with open_log(url) as log:
        for topic in await log.topics():
            if not topic.startswith("__"):
                await log.delete_topic(topic)
        for group in await log.groups():
            with suppress(GroupNotEmptyError):
                await log.delete_group(group.group)
