"""Consume, transform, produce: exactly once, whoever is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from shared import copying
from shared.served_log import ServedLog, until

RECORDS = 2500
PARTITIONS = 2


def copier(served: ServedLog, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, copying.__file__, served.address, name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def filled(served: ServedLog) -> None:
    admin = AdminClient({"bootstrap.servers": served.address})
    for each in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in ("in", "out")]):
        until(lambda each=each: each in admin.list_topics(timeout=5).topics)
    producer = Producer({"bootstrap.servers": served.address})
    for number in range(RECORDS):
        producer.produce("in", b"%d" % number, partition=number % PARTITIONS)
    assert producer.flush(20) == 0


class Reader:
    """Reads what is committed in `out`."""

    def __init__(self, served: ServedLog) -> None:
        self.found: list[int] = []
        self._consumer = Consumer(
            {
                "bootstrap.servers": served.address,
                "group.id": "reader",
                "isolation.level": "read_committed",
            }
        )
        self._consumer.assign([TopicPartition("out", each, 0) for each in range(PARTITIONS)])

    def read(self, within_s: float) -> int:
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            for each in self._consumer.consume(100, 0.1):
                if each.error() is None:
                    self.found.append(int(each.value()))
        return len(self.found)

    def finish(self) -> None:
        until(lambda: self.read(0.5) >= RECORDS, within_s=90)
        self.read(1)
        self._consumer.close()
        assert sorted(self.found) == list(range(RECORDS))
        for partition in range(PARTITIONS):
            own = [each for each in self.found if each % PARTITIONS == partition]
            assert own == sorted(own)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["clients", "server"])
def test_each_record_is_copied_once(tmp_path: Path, killed: str) -> None:
    with ServedLog(tmp_path / "log") as served:
        filled(served)
        reader = Reader(served)
        copiers = {name: copier(served, name) for name in ("a", "b")}
        try:
            for number in range(3):
                assert reader.read(1.0) < RECORDS, "all was done before the kill"
                if killed == "server":
                    served.kill()
                    served.start()
                else:
                    name = "ab"[number % 2]
                    copiers[name].kill()
                    copiers[name].wait()
                    copiers[name] = copier(served, name)
            reader.finish()
        finally:
            for each in copiers.values():
                each.kill()
                each.wait()
