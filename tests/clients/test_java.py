"""The Java client writes, reads, joins groups, and looks after a served log; all it sees is what it
sees on Apache Kafka."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.kafka_jars import Java
from shared.kafka_nodes import KafkaNodes
from shared.served_log import ServedLog

SOURCE = Path(__file__).with_name("java") / "Clients.java"


@pytest.fixture(
    params=[
        pytest.param("millstream", marks=pytest.mark.slow),
        pytest.param("kafka", marks=pytest.mark.cluster),
    ]
)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of what the clients are run on."""
    if request.param == "kafka":
        nodes: KafkaNodes = request.getfixturevalue("kafka_node")
        yield nodes.address
    else:
        with ServedLog(tmp_path / "log") as served:
            yield served.address


def seen(java: Java, address: str, scenario: str) -> dict[str, Any]:
    """What the program saw."""
    command = java.command("Clients", address, scenario, classes=java.compiled(SOURCE))
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_messages(java: Java, server: str) -> None:
    assert seen(java, server, "messages") == {
        "nowhere": "InvalidTopicException",
        "tooLarge": "RecordTooLargeException",
        "read": 102,
        "headers": 100,
        "nulls": 1,
        "from": 0,
        "later": True,
        "sought": 2,
        "reset": True,
        "fromTime": True,
        "fromEnd": "new",
        "outOfRange": "OffsetOutOfRangeException",
    }


def test_transactions(java: Java, server: str) -> None:
    first = [str(number) for number in range(5)]
    assert seen(java, server, "transactions") == {
        "open": [],
        "committed0": 5,
        "committed1": 5,
        "stale": "CommitFailedException",
        "epoch": 4,  # raised by each end (KIP-890)
        "read_committed": first,
        "read_uncommitted": ["aborted", *first, *(str(number) for number in range(5, 10))],
    }


def test_fencing(java: Java, server: str) -> None:
    found = seen(java, server, "fencing")
    assert found.pop("late") in ("ProducerFencedException", "InvalidTxnStateException")
    assert found == {
        "commit": "ProducerFencedException",
        "send": "InvalidProducerEpochException",
        "timedOut": "CompleteAbort",
        "forever": "KafkaException",
        "byOperator": "ProducerFencedException",
        "read_committed": ["third"],
    }


def test_groups(java: Java, server: str) -> None:
    notes = [f"note {each}" for each in range(4)]
    assert seen(java, server, "groups") == {
        "RangeAssignor": notes,
        "CooperativeStickyAssignor": notes,
        "static": "FencedInstanceIdException",
    }


def test_admin(java: Java, server: str) -> None:
    assert seen(java, server, "admin") == {
        "created": 2,
        "config": "600000",
        "again": "TopicExistsException",
        "checked": None,
        "listed": False,
        "byId": "java-admin",
        "bad": "InvalidTopicException",
        "copies": "InvalidReplicationFactorException",
        "fewer": "InvalidPartitionsException",
        "partitions": 3,
        "altered": "delete,compact 604800000",
        "earliest": 2,
        "newest": 4,
        "beyond": "OffsetOutOfRangeException",
        "offset": 3,
        "groups": True,
        "state": "Empty",
        "noGroup": "GroupIdNotFoundException",
        "producers": 1,
        "nodes": 1,
        "gone": "UnknownTopicOrPartitionException",
    }
