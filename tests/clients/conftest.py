"""One `millstream serve` for all tests of clients, each of which has topics of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shared.kafka_nodes import KafkaNodes
from shared.serve_command import serving

FENCED = "transaction aborted .* reason=.another producer took over.$"


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a server."""
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, "--config", "num.partitions=2", says=FENCED) as server:
        yield server.address


@pytest.fixture(params=["millstream", pytest.param("kafka", marks=pytest.mark.cluster)])
def either(request: pytest.FixtureRequest) -> str:
    """HOST:PORT of that server, and of Apache Kafka, which clients are to see the same from."""
    if request.param == "kafka":
        nodes: KafkaNodes = request.getfixturevalue("kafka_node")
        return nodes.address
    address: str = request.getfixturevalue("address")
    return address
