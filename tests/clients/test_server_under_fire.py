"""`millstream serve` under attack for long, with confluent-kafka beside it as if nothing were."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from millstream.log.server.dispatch import apis
from shared.hostile import changed, memory_bytes, noise, random_request, recorded_requests, throw
from shared.wire_client import WireClient

METADATA = 3

GROWTH_BYTES_MAX = 96 << 20
QUIET_S = 5.0
SLOWER_MAX = 30
"""Times that a request may take longer while the server is attacked from 20 connections at once:
those who attack it share its cores."""


class Beside:
    """Writes and reads, in a group, until it is told to stop."""

    def __init__(self, address: str) -> None:
        self._settings = {"bootstrap.servers": address}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent: list[bytes] = []
        self.read: list[bytes] = []
        self.complaints: list[object] = []

    def __enter__(self) -> Beside:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        told = {"error_cb": self.complaints.append}
        producer = Producer(self._settings | told | {"enable.idempotence": True})
        consumer = Consumer(
            self._settings | told | {"group.id": "beside", "auto.offset.reset": "earliest"}
        )
        consumer.subscribe(["beside"])
        while not self._stop.is_set() or len(self.read) < len(self.sent):
            if not self._stop.is_set():
                value = b"%d" % len(self.sent)
                producer.produce("beside", value, on_delivery=self._delivered)
                self.sent.append(value)
            producer.poll(0)
            for message in consumer.consume(100, 0.05):
                if message.error():
                    self.complaints.append(message.error())
                else:
                    self.read.append(message.value())
        producer.flush(10)
        consumer.close()

    def _delivered(self, error: object, _message: object) -> None:
        if error is not None:
            self.complaints.append(error)


class Answered:
    """Asks, one request after the other, and notes how long each took."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def for_seconds(self, seconds: float) -> list[float]:
        """In order of size."""
        loop = asyncio.get_running_loop()
        end, took = loop.time() + seconds, []
        async with WireClient(self._address) as client:
            while loop.time() < end:
                begun = loop.time()
                answer = await client.ask(METADATA, 9, topics=[{"name": "beside"}])
                took.append(loop.time() - begun)
                assert answer.topics[0].error_code == 0
                await asyncio.sleep(0.01)
        return sorted(took)

    def measure(self, seconds: float) -> list[float]:
        """In a thread, on a loop of its own: nobody else's work is in the figures."""
        return asyncio.run(self.for_seconds(seconds))


@pytest.mark.slow
def test_clients_notice_nothing(tmp_path: Path) -> None:
    seconds = float(os.environ.get("FUZZ_SECONDS", "30"))
    source = random.Random(int(os.environ.get("FUZZ_SEED", "7")))
    command = "from millstream.cli.main import main; main()"
    server = subprocess.Popen(
        [
            *(sys.executable, "-c", command, "serve", "--data", str(tmp_path / "log")),
            *("--listen", "127.0.0.1:0"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a line for each connection that is cut off
        text=True,
    )
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip().rpartition(" ")[2]
        Producer({"bootstrap.servers": address}).list_topics("beside", timeout=10)
        with Beside(address) as beside, ThreadPoolExecutor(1) as threads:
            quiet = Answered(address).measure(QUIET_S)
            noisy = threads.submit(Answered(address).measure, seconds)
            resident = asyncio.run(attack(address, source, seconds, server.pid))
            attacked = noisy.result()
        figures = [(each[len(each) // 2], each[-1]) for each in (quiet, attacked)]
        print("median and longest, quiet and attacked:", figures, "s")
        assert figures[1][0] < SLOWER_MAX * figures[0][0], figures
        assert beside.complaints == []
        assert beside.read == beside.sent
        assert len(beside.sent) > seconds
        assert max(resident[1:]) - resident[0] < GROWTH_BYTES_MAX, resident
        folders = sum(each.is_dir() for each in (tmp_path / "log").iterdir())
        files, sockets = open_files(server.pid)
        assert sockets < 100
        assert files < 4 * folders + 50  # each topic that was created has some
        server.terminate()
        assert server.wait(30) == 0
    finally:
        server.kill()
        server.communicate()


def open_files(process: int) -> tuple[int, int]:
    """How many files and how many sockets a process has open."""
    opened = [os.readlink(each) for each in Path(f"/proc/{process}/fd").iterdir()]
    sockets = sum(each.startswith("socket:") for each in opened)
    return len(opened) - sockets, sockets


async def attack(address: str, source: random.Random, seconds: float, process: int) -> list[int]:
    """What the server holds after each quarter."""
    loop = asyncio.get_running_loop()
    every = [(key, version) for key, handler in apis().items() for version in handler.versions]
    resident = []
    for _ in range(4):
        end = loop.time() + seconds / 4
        while loop.time() < end:
            key, version = source.choice(every)
            seeds = [random_request(source, key, version) for _ in range(20)]
            seeds += source.sample(recorded_requests(), 10)
            await throw(address, [changed(source, each) for each in seeds for _ in range(2)])
            await throw(address, [noise(source) for _ in range(20)])
        resident.append(memory_bytes("VmRSS", process))
    return resident
