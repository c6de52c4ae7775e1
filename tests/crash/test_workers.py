"""Several worker processes share an app's work; they come, go and are killed, and all counts once.

How long a record waits for its result when the number of workers changes is printed.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from millstream.streams.serde import serde_for
from shared.serve_command import ServeCommand
from shared.served_log import ServedLog

APP = textwrap.dedent(
    """
    from millstream.streams import App

    app = App("shared", commit_interval_ms=50)
    events = app.topic("events", key=str, value=int, partitions=8)


    @app.table(events)
    def count(total: int, event: int) -> int:
        return total + 1


    count.changes().to("counts")
    """
)
STR, INT = serde_for(str), serde_for(int)
KEYS = 300
LIMIT_S = 240.0


def command(directory: Path, *options: str) -> list[str]:
    program = "from millstream.cli.main import main; main()"
    return [
        *(sys.executable, "-c", program, "--log-format", "text", "run"),
        *(str(directory / "app.py"), "--state-dir", str(directory / "state"), *options),
    ]


class Process:
    """A command whose stderr is kept and can be waited for."""

    def __init__(self, arguments: list[str]) -> None:
        self.popen = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            with self._more:
                self.lines.append(line)
                self._more.notify_all()
        self.popen.stderr.close()
        with self._more:
            self._more.notify_all()

    def said(self, pattern: str, times: int = 1) -> list[str]:
        """The group of each match, once there are so many."""
        with self._more:
            found: list[str] = []

            def enough() -> bool:
                found[:] = re.findall(pattern, "".join(self.lines))
                return len(found) >= times or self.popen.poll() is not None

            assert self._more.wait_for(enough, timeout=60), "".join(self.lines)
            assert len(found) >= times, "".join(self.lines)
            return found

    def end(self, number: int) -> int:
        """Send a signal; its exit code."""
        self.popen.send_signal(number)
        code = self.popen.wait(timeout=90)
        self._reader.join()
        return code


class Feed:
    """Keyed records, written for as long as the test wants them, and how many of each key."""

    def __init__(self, address: str) -> None:
        self.sent: Counter[str] = Counter()
        self._producer = Producer({"bootstrap.servers": address, "enable.idempotence": True})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        rng = random.Random(5)
        while not self._stop.is_set():
            for _ in range(200):
                key = f"key-{rng.randrange(KEYS)}"
                self._producer.produce("events", INT.serialize(1), key=STR.serialize(key))
                self.sent[key] += 1
            self._producer.poll(0.05)

    def finish(self) -> Counter[str]:
        """No more; what was written."""
        self._stop.set()
        self._thread.join()
        assert self._producer.flush(60) == 0
        return self.sent


class Results:
    """What has come out, read as any consumer does. Every key comes many times a second."""

    def __init__(self, address: str) -> None:
        self.last: dict[str, int] = {}
        self.count = 0
        self._written: dict[str, float] = {}
        self._wait_s = 0.0
        self._consumer = Consumer(
            {
                "bootstrap.servers": address,
                "group.id": "results",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        self._consumer.subscribe(["counts"])

    def read(self, until: Callable[[], bool]) -> None:
        """Until it is so."""
        end = time.monotonic() + LIMIT_S
        while not until():
            assert time.monotonic() < end, (self.count, len(self.last))
            for message in self._consumer.consume(1000, timeout=0.1):
                assert message.error() is None
                key, now = STR.deserialize(message.key()), time.time()
                self.last[key] = INT.deserialize(message.value())
                self.count += 1
                self._written[key] = message.timestamp()[1] / 1000  # that of the record counted
                self._wait_s = max(self._wait_s, now - self._written[key])

    def again(self) -> float:
        """Read until a record that is written from now on has come of each key; the longest that
        one had to wait, in seconds."""
        self._wait_s, begin = 0.0, time.time()
        self.read(lambda: len(self._written) == KEYS and min(self._written.values()) > begin)
        return self._wait_s

    def check(self, sent: Counter[str]) -> None:
        """All there is, once each."""
        self.read(lambda: sum(self.last.values()) >= sent.total())
        assert self.last == dict(sent)
        assert self.count == sent.total()
        self._consumer.close()


def prepare(directory: Path, address: str) -> None:
    (directory / "app.py").write_text(APP)
    admin = AdminClient({"bootstrap.servers": address})
    topics = [NewTopic("events", 8, 1), NewTopic("counts", 4, 1)]
    for future in admin.create_topics(topics).values():
        future.result(30)


def wait_for_state(directory: Path, workers: int) -> None:
    """Until so many workers have a task of their own."""
    end = time.monotonic() + 60
    while (
        len({each.parts[-4] for each in directory.glob("state/shared/*/count/*/CURRENT")}) < workers
    ):
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def all_ended(processes: list[Process]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            if process.popen.poll() is None:
                process.end(signal.SIGKILL)


@pytest.mark.slow
def test_workers_come_and_go_under_load(tmp_path: Path) -> None:
    """One, four of which one is killed, two."""
    workers: list[Process] = []
    server = ServeCommand(tmp_path / "log")
    with all_ended(workers):
        prepare(tmp_path, server.address)
        feed, results = Feed(server.address), Results(server.address)

        def start(count: int) -> None:
            workers.extend(Process(arguments) for _ in range(count))
            wait_for_state(tmp_path, len(workers))

        arguments = command(tmp_path, "--log", f"kafka://{server.address}")
        try:
            start(1)
            results.again()
            start(3)
            waits = {"1 to 4": results.again()}
            assert workers[1].end(signal.SIGKILL) == -signal.SIGKILL
            waits["one killed"] = results.again()
            assert workers[2].end(signal.SIGTERM) == 0
            waits["3 to 2"] = results.again()
        finally:
            sent = feed.finish()
        results.check(sent)
        assert [each.end(signal.SIGTERM) for each in (workers[0], workers[3])] == [0, 0]
        assert server.stop() == 0
    print({what: f"{wait_s:.1f} s" for what, wait_s in waits.items()}, sent.total())


@pytest.mark.slow
def test_one_command_starts_and_watches_them(tmp_path: Path) -> None:
    """On a log that one process owns: it serves the log to its workers. Killed ones come back."""
    (tmp_path / "app.py").write_text(APP)
    log = f"file:{tmp_path / 'log'}"
    arguments = ("--log", log, "--listen", "127.0.0.1:0", "--workers", "3")
    app = Process(command(tmp_path, *arguments))
    with all_ended([app]):
        (address,) = app.said(r"log served .*advertised=(\S+)")[:1]
        pids = [int(pid) for pid in app.said(r"worker started .*pid=(\d+)", 3)]
        feed, results = Feed(address), Results(address)
        try:
            results.again()
            for n in range(3):
                os.kill(pids[n], signal.SIGKILL)
                app.said(r"worker started .*pid=(\d+)", 4 + n)
                results.again()
        finally:
            sent = feed.finish()
        results.check(sent)
        assert app.end(signal.SIGTERM) == 0


@pytest.mark.slow
def test_the_server_is_killed_under_its_workers(tmp_path: Path) -> None:
    """It comes back on its address, and the workers go on."""
    workers: list[Process] = []
    with ServedLog(tmp_path / "log") as server, all_ended(workers):
        prepare(tmp_path, server.address)
        feed, results = Feed(server.address), Results(server.address)
        arguments = command(tmp_path, "--log", f"kafka://{server.address}")
        try:
            workers += [Process(arguments), Process(arguments)]
            results.again()
            for _ in range(3):
                server.kill()
                server.start()
                results.again()
        finally:
            sent = feed.finish()
        results.check(sent)
        assert [each.end(signal.SIGTERM) for each in workers] == [0, 0]


def test_workers_and_until_end_are_refused_together(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    ran = subprocess.run(
        command(tmp_path, "--workers", "2", "--until-end"), capture_output=True, text=True
    )
    assert ran.returncode == 2
    assert "--until-end" in ran.stderr
