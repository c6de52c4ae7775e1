"""The codec twice, compiled and interpreted, and a mock Kafka cluster to talk to."""

from __future__ import annotations

import socket
import struct
import warnings
from importlib import import_module
from types import ModuleType, SimpleNamespace

import confluent_kafka
import pytest
from hypothesis import settings

from millstream.log.format import (
    codec,
    compression,
    control,
    header,
    partitioner,
    record_reader,
    record_writer,
)
from shared.twin import interpreted_twin

settings.register_profile("format", deadline=None)
settings.load_profile("format")


@pytest.fixture(scope="session")
def interpreted() -> SimpleNamespace:
    """The modules of the format package: codec, control, partitioner, ..."""
    return interpreted_twin()


# Where there was no C compiler, interpreted is all there is.
@pytest.fixture(
    scope="session", params=["compiled", "interpreted"] if codec.COMPILED else ["interpreted"]
)
def form(request: pytest.FixtureRequest, interpreted: SimpleNamespace) -> SimpleNamespace:
    """The same, in turn as they are installed and interpreted."""
    if request.param == "interpreted":
        return interpreted
    return SimpleNamespace(
        codec=codec,
        compression=compression,
        control=control,
        header=header,
        partitioner=partitioner,
        record_reader=record_reader,
        record_writer=record_writer,
    )


@pytest.fixture(scope="session")
def kafka_python() -> ModuleType:
    """kafka-python's module for record batches; importing it warns on some versions of Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return import_module("kafka.record.default_records")


class MockCluster:
    """librdkafka's mock cluster, and as much of Kafka's protocol as moves raw batches."""

    def __init__(self) -> None:
        # The cluster lives as long as the client that has it.
        self.owner = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})
        (broker,) = self.owner.list_topics(timeout=10).brokers.values()
        self.address = (broker.host, broker.port)
        self.bootstrap_servers = f"{broker.host}:{broker.port}"

    def produce(self, topic: str, batch: bytes) -> int:
        """Produce v3: append one raw batch to partition 0 and say its base offset."""
        self.owner.list_topics(topic, timeout=10)  # which creates it
        body = struct.pack(">hhi", -1, -1, 10_000) + struct.pack(">i", 1) + _string(topic)
        body += struct.pack(">iii", 1, 0, len(batch)) + batch
        reply = self._call(0, 3, body)
        start = 4 + 2 + len(topic) + 4
        _, error, base_offset, _ = struct.unpack_from(">ihqq", reply, start)
        assert error == 0, f"the broker answered error {error}"
        return int(base_offset)

    def fetch(self, topic: str, offset: int = 0) -> bytes:
        """Fetch v4: the raw batches of partition 0."""
        body = struct.pack(">iiiib", -1, 1000, 1, 1 << 24, 0) + struct.pack(">i", 1)
        body += _string(topic) + struct.pack(">iiqi", 1, 0, offset, 1 << 24)
        reply = self._call(1, 4, body)
        start = 4 + 4 + 2 + len(topic) + 4
        _, error, _, _, aborted = struct.unpack_from(">ihqqi", reply, start)
        assert error == 0, f"the broker answered error {error}"
        start += struct.calcsize(">ihqqi") + 16 * max(aborted, 0)
        (size_bytes,) = struct.unpack_from(">i", reply, start)
        return reply[start + 4 : start + 4 + size_bytes]

    def _call(self, api: int, version: int, body: bytes) -> bytes:
        message = struct.pack(">hhi", api, version, 7) + _string("test") + body
        with socket.create_connection(self.address, timeout=10) as connection:
            connection.sendall(struct.pack(">i", len(message)) + message)
            with connection.makefile("rb") as stream:
                (size_bytes,) = struct.unpack(">i", stream.read(4))
                reply = stream.read(size_bytes)
        assert struct.unpack_from(">i", reply) == (7,)
        return reply[4:]


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()


@pytest.fixture(scope="session")
def mock_cluster() -> MockCluster:
    return MockCluster()
