"""Apps of Faust and of Quix Streams on a served log."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from shared.downloads import digest, download, kept
from shared.served_log import ServedLog, until

pytestmark = pytest.mark.slow

SOURCES = Path(__file__).with_name("python_apps")
PARTITIONS = 2
NAMES = 5
ROUND = 100


@pytest.fixture(scope="session")
def python() -> str:
    """A Python with both libraries, in an environment of their own, for what they pin."""
    required = SOURCES / "requirements.txt"

    def fill(folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
        install = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "-r", required]
        download("faust-streaming and quixstreams", install)

    return str(kept(f"python-{digest(required, sys.version)}", fill) / "bin" / "python")


class App:
    """An app as a process."""

    def __init__(self, python: str, name: str, served: ServedLog, folder: Path) -> None:
        self._folder = folder
        self._state = folder / "state"
        self._log = folder / "app.log"
        self._command = [python, str(SOURCES / f"{name}_hello.py")]
        if name == "faust":
            self._command += ["worker", "--without-web", "-l", "info"]
        self._settings = {**os.environ, "SERVER": served.address, "STATE": str(self._state)}
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._settings, stdout=log, stderr=log
            )

    def running(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()[-3000:]
        return True

    def ready(self, times: int) -> bool:
        """Whether Faust was so often; Quix Streams does not say."""
        said = self._log.read_text().count("[^Worker]: Ready")
        return said == times or "worker" not in self._command

    def stop(self) -> None:
        self._process.terminate()
        assert self._process.wait(60) == 0, self._log.read_text()[-3000:]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)

    def lose_state(self) -> None:
        """What it knew is in its changelog only."""
        shutil.rmtree(self._state, ignore_errors=True)


class Greetings:
    """What is committed in the topic of greetings, in the order of each name."""

    def __init__(self, served: ServedLog, topic: str) -> None:
        self.total = 0
        self.counts: dict[str, list[int]] = {}
        settings = {"group.id": "looking", "isolation.level": "read_committed"}
        self._consumer = Consumer({"bootstrap.servers": served.address, **settings})
        self._consumer.assign([TopicPartition(topic, each, 0) for each in range(PARTITIONS)])

    def read(self) -> int:
        """How many there are by now."""
        for each in self._consumer.consume(100, 0.5):
            value = each.value()
            if each.error() is None and value is not None:
                hello, name, count = value.decode().split()
                assert hello == "hello"
                self.counts.setdefault(name, []).append(int(count))
                self.total += 1
        return self.total

    def close(self) -> None:
        self._consumer.close()


def send_names(served: ServedLog, topic: str) -> None:
    producer = Producer({"bootstrap.servers": served.address})
    for number in range(ROUND):
        producer.produce(topic, f"name{number % NAMES}", partition=number % PARTITIONS)
    assert producer.flush(20) == 0


@pytest.mark.parametrize("name", ["faust", "quix"])
def test_hello(python: str, tmp_path: Path, name: str) -> None:
    """Stopped or killed, and without its files, it goes on counting where it was."""
    with ServedLog(tmp_path / "log") as served:
        topics = f"{name}-names", f"{name}-greetings"
        admin = AdminClient({"bootstrap.servers": served.address})
        created = admin.create_topics([NewTopic(each, PARTITIONS, 1) for each in topics])
        for each in created.values():
            each.result(20)
        greetings = Greetings(served, topics[1])
        app = App(python, name, served, tmp_path)
        try:
            # Faust may lose what is there before it is ready, on Apache Kafka too
            until(lambda: app.running() and greetings.read() == 0 and app.ready(1), within_s=60)
            send_names(served, topics[0])
            until(lambda: app.running() and greetings.read() == ROUND, within_s=60)
            if name == "faust":
                app.stop()
            else:
                app.kill()
            app.lose_state()
            app.start()
            until(lambda: app.running() and greetings.read() == ROUND and app.ready(2), within_s=60)
            send_names(served, topics[0])
            until(lambda: app.running() and greetings.read() >= 2 * ROUND, within_s=60)
            app.stop()
            greetings.read()
        finally:
            app.kill()
            greetings.close()
    expected = list(range(1, 2 * ROUND // NAMES + 1))
    assert greetings.counts == {f"name{each}": expected for each in range(NAMES)}
