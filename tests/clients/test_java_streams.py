"""Kafka Streams, the Java library, counts words on a served log, exactly once."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from shared.kafka_jars import Java
from shared.served_log import ServedLog, until

pytestmark = pytest.mark.slow

SOURCE = Path(__file__).with_name("java") / "WordCount.java"
PARTITIONS = 2
LINES = [f"the word {number % 7} and the number {number % 50}" for number in range(2000)]
EXPECTED = Counter(word for line in LINES for word in line.split())


class App:
    """The app, to be killed."""

    def __init__(self, java: Java, served: ServedLog, folder: Path) -> None:
        classes = java.compiled(SOURCE)
        self.state = folder / "state"
        self._log = folder / "app.log"
        self._command = java.command(
            "WordCount", served.address, str(self.state), classes=classes, heap_mb=256
        )
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def running(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()[-3000:]
        return True

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def stop(self) -> None:
        """A clean stop, which closes its transactions."""
        self._process.terminate()
        assert self._process.wait(60) == 143, self._log.read_text()[-3000:]


class Counts:
    """What is committed in `counts`, in the order of each word."""

    def __init__(self, served: ServedLog) -> None:
        self.total = 0
        self.of_word: dict[str, list[int]] = {}
        self._consumer = Consumer(
            {
                "bootstrap.servers": served.address,
                "group.id": "looking",
                "isolation.level": "read_committed",
            }
        )
        self._consumer.assign([TopicPartition("counts", each, 0) for each in range(PARTITIONS)])

    def read(self) -> int:
        """How many there are by now."""
        for each in self._consumer.consume(1000, 0.5):
            if each.error() is None:
                key, value = each.key(), each.value()
                assert key is not None
                assert value is not None
                self.of_word.setdefault(key.decode(), []).append(int(value))
                self.total += 1
        return self.total

    def close(self) -> None:
        self._consumer.close()


@pytest.mark.parametrize("killed", ["nobody", "app", "app and its state", "server"])
def test_each_word_is_counted_once(java: Java, tmp_path: Path, killed: str) -> None:
    with ServedLog(tmp_path / "log") as served:
        filled(served)
        counts = Counts(served)
        app = App(java, served, tmp_path)
        try:
            until(lambda: app.running() and counts.read() > 100, within_s=90)
            assert counts.total < EXPECTED.total() or killed == "nobody"
            if killed.startswith("app"):
                app.kill()
                if killed == "app and its state":
                    shutil.rmtree(app.state)
                app.start()
            elif killed == "server":
                served.kill()
                served.start()
            until(lambda: app.running() and counts.read() >= EXPECTED.total(), within_s=120)
            app.stop()
            counts.read()
        finally:
            app.kill()
            counts.close()
    assert counts.of_word == {word: list(range(1, count + 1)) for word, count in EXPECTED.items()}


def filled(served: ServedLog) -> None:
    admin = AdminClient({"bootstrap.servers": served.address})
    created = admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in ("lines", "counts")])
    for each in created.values():
        each.result(20)
    producer = Producer({"bootstrap.servers": served.address})
    for number, line in enumerate(LINES):
        producer.produce("lines", line, partition=number % PARTITIONS)
    assert producer.flush(20) == 0
