"""Commands that work on a log of the network: they and the servers are killed with SIGKILL, and
started again."""

from __future__ import annotations

import asyncio
import random
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import cycle, repeat
from pathlib import Path
from typing import Literal, NamedTuple

from millstream.log import Log, TopicPartition, UnknownTopicError, open_log
from shared.counting_app import environment
from shared.kafka_nodes import KafkaNodes
from shared.served_log import ServedLog

__all__ = ["Kill", "KilledServers", "kills_between", "written"]

Victim = Literal["command", "server"]
LIMIT_S = 300.0
"""Within which whatever is waited for happens."""


async def written(log: Log) -> int:
    """How many offsets are taken in all topics of users and apps."""
    partitions = []
    for topic in await log.topics():
        if not topic.startswith("__"):
            with suppress(UnknownTopicError):  # only some servers know of it yet
                count = (await log.describe_topic(topic)).partitions
                partitions += [TopicPartition(topic, number) for number in range(count)]
    return sum((await log.end_offsets(partitions, "read_uncommitted")).values())


class Kill(NamedTuple):
    """Who is killed, when so much is done."""

    at: int
    victim: Victim


def kills_between(first: int, last: int, *, commands: int, servers: int, seed: int) -> list[Kill]:
    """Kills all over the time in which so much is done, in the order they come."""
    rng = random.Random(seed)
    who: list[Victim] = ["command", "server"]
    victims = [*repeat(who[0], commands), *repeat(who[1], servers)]
    rng.shuffle(victims)
    step = (last - first) / len(victims)
    return [Kill(int(first + (n + rng.random()) * step), who) for n, who in enumerate(victims)]


class KilledServers:
    """The servers of a log, of which one at most is away."""

    def __init__(self, servers: ServedLog | KafkaNodes) -> None:
        self._servers = servers
        self._nodes = cycle(servers.ids) if isinstance(servers, KafkaNodes) else None
        self._pool = ThreadPoolExecutor(1)
        self._starting: Future[None] | None = None

    @property
    def url(self) -> str:
        """Of their log."""
        return f"kafka://{self._servers.address}"

    def kill(self) -> None:
        """Kill the next, once the one before it is back; it is started again meanwhile."""
        self.wait()
        if isinstance(self._servers, KafkaNodes):
            assert self._nodes is not None
            node = next(self._nodes)
            self._servers.kill(node)
            self._starting = self._pool.submit(self._servers.start, node)
        else:
            self._servers.kill()
            self._starting = self._pool.submit(self._servers.start)

    def wait(self) -> None:
        """Until all are there."""
        if self._starting is not None:
            self._starting.result(LIMIT_S)

    def run(
        self,
        command: Sequence[str],
        folder: Path,
        kills: Sequence[Kill],
        done: Callable[[Log], Awaitable[int]] = written,
    ) -> list[str]:
        """Run a command to its end through these kills, starting it again; who was killed.

        `done` says how much is done; it is asked again and again.
        """
        left = list(kills)
        killed: list[str] = []
        while True:
            with _process(command, folder) as process:
                while left and _lives_until(process, self.url, left[0].at, done):
                    victim = left.pop(0).victim
                    killed.append(victim)
                    if victim == "command":
                        break
                    self.kill()
                else:
                    process.wait(LIMIT_S)
                    assert process.returncode == 0, (folder / "said.txt").read_text()
                    self.wait()
                    return killed


@contextmanager
def _process(command: Sequence[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "said.txt").open("wb") as said:
        process = subprocess.Popen(command, cwd=folder, stdout=said, stderr=said, env=environment())
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _lives_until(
    process: subprocess.Popen[bytes], url: str, count: int, done: Callable[[Log], Awaitable[int]]
) -> bool:
    """Whether so much is done while it runs."""

    async def wait() -> bool:
        end = time.monotonic() + LIMIT_S
        async with open_log(url) as log:
            while process.poll() is None:
                assert time.monotonic() < end, count
                if await done(log) >= count:
                    return True
                await asyncio.sleep(0.05)  # asked again
            return False

    return asyncio.run(wait())
