"""An app whose work several processes share, under load, and how long a record waits meanwhile."""

from __future__ import annotations

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

from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from millstream.streams.serde import serde_for

__all__ = ["APP", "Feed", "Process", "Results", "all_ended", "command", "prepare", "rescale"]

APP = textwrap.dedent(
    """
    from millstream.streams import App

    app = App("shared", commit_interval_ms=50)
    events = app.topic("shared-events", key=str, value=int, partitions=8)


    @app.table(events)
    def count(total: int, event: int) -> int:
        return total + 1


    count.changes().to("shared-counts")
    """
)
STR, INT = serde_for(str), serde_for(int)
KEYS = 300
LIMIT_S = 240.0


def command(directory: Path, *options: str) -> list[str]:
    """`millstream run` with the app."""
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
    """Keyed records, 4000 a second, for as long as the test wants them; how many of each key."""

    def __init__(self, address: str) -> None:
        self.sent: Counter[str] = Counter()
        self._producer = Producer({"bootstrap.servers": address, "enable.idempotence": True})
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        rng = random.Random(5)
        while not self._stop.wait(0.05):
            for _ in range(200):
                key = f"key-{rng.randrange(KEYS)}"
                self._producer.produce("shared-events", INT.serialize(1), key=STR.serialize(key))
                self.sent[key] += 1
            self._producer.poll(0)

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
        self._consumer.subscribe(["shared-counts"])

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
        one had to wait, in seconds. Then they are read once more: what has waited till now is not
        counted for the next change."""
        self._wait_s = 0.0
        self._until_each_comes()
        longest_s = self._wait_s
        self._until_each_comes()
        return longest_s

    def _until_each_comes(self) -> None:
        begin = time.time()
        self.read(lambda: len(self._written) == KEYS and min(self._written.values()) > begin)

    def check(self, sent: Counter[str]) -> None:
        """All there is, once each."""
        self.read(lambda: sum(self.last.values()) >= sent.total())
        assert self.last == dict(sent)
        assert self.count == sent.total()
        self._consumer.close()


def prepare(directory: Path, address: str) -> None:
    """The app, and its topics."""
    (directory / "app.py").write_text(APP)
    admin = AdminClient({"bootstrap.servers": address})
    topics = [NewTopic("shared-events", 8, 1), NewTopic("shared-counts", 4, 1)]
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
    """What the body leaves running is killed."""
    try:
        yield
    finally:
        for process in processes:
            if process.popen.poll() is None:
                process.end(signal.SIGKILL)


def rescale(directory: Path, address: str) -> dict[str, str]:
    """One worker, four, of which one stands still and one is killed, two. Everything counts once.

    Answers how long a record waited for its result at most: with no change, and at each.
    """
    workers: list[Process] = []
    with all_ended(workers):
        feed, results = Feed(address), Results(address)
        arguments = command(directory, "--log", f"kafka://{address}")

        def start(count: int) -> None:
            workers.extend(Process(arguments) for _ in range(count))
            wait_for_state(directory, len(workers))

        try:
            start(1)
            results.again()
            waits = {"none": results.again()}
            start(3)
            waits["1 to 4"] = results.again()
            workers[3].popen.send_signal(signal.SIGSTOP)
            waits["one stands still"] = results.again()
            workers[3].popen.send_signal(signal.SIGCONT)
            waits["it goes on"] = results.again()
            assert workers[1].end(signal.SIGKILL) == -signal.SIGKILL
            waits["one killed"] = results.again()
            assert workers[2].end(signal.SIGTERM) == 0, "".join(workers[2].lines)
            waits["3 to 2"] = results.again()
        finally:
            sent = feed.finish()
        results.check(sent)
        for each in (workers[0], workers[3]):
            assert each.end(signal.SIGTERM) == 0, "".join(each.lines)
    return {what: f"{wait_s:.1f} s" for what, wait_s in waits.items()}
