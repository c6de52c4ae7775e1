"""A process that writes to a log is killed with SIGKILL, again and again, at random moments.

Acknowledged transactions are there exactly once, with their offsets; unfinished and aborted ones
never; and the next process goes on at once.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from millstream.log import Log, TopicPartition, open_log
from shared import kill_child
from shared.kill_child import GROUP, IN


def run_and_kill(url: str, lines_max: int, *, slowly: bool) -> list[tuple[int, int]]:
    """Let the child commit a number of times, kill it, and return what it acknowledged."""
    command = [sys.executable, kill_child.__file__, url]
    acknowledged = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        killer = threading.Timer(random.uniform(0.05, 0.8), child.send_signal, [signal.SIGKILL])
        if slowly:
            killer.start()  # at any moment, opening and recovering too
        for line in child.stdout:
            number, offset = line.split()[1:]
            acknowledged.append((int(number), int(offset)))
            if not slowly and len(acknowledged) == lines_max:
                child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    killer.cancel()
    return acknowledged


async def values(log: Log, partition: TopicPartition) -> list[bytes]:
    found: list[bytes] = []
    async with log.consumer() as consumer:
        await consumer.assign([partition])
        while batches := await consumer.poll_batches(0):
            for batch in batches:
                found += [value or b"" for value in batch.values]
    return found


async def check(url: str, acknowledged: list[tuple[int, int]]) -> None:
    async with open_log(url) as log:
        if "out" not in await log.topics():
            assert not acknowledged
            return
        offset = (await log.group_offsets(GROUP)).get(IN)
        count = offset.offset if offset is not None else 0
        for partition in (0, 1):
            found = await values(log, TopicPartition("out", partition))
            expected = [value for n in range(count) for value in (b"%d" % n, b"." * (n % 7 * 100))]
            assert found == expected
        sent = await values(log, IN)
        for number, at in acknowledged:
            assert number < count, "an acknowledged transaction"
            assert sent[at] == b"%d" % number, "an acknowledged record"


def kill_and_check(folder: Path, durability: str, times: int, *, slowly: bool) -> int:
    url = f"file:{folder}/log?durability={durability}"
    acknowledged: list[tuple[int, int]] = []
    for _ in range(times):
        acknowledged += run_and_kill(url, random.randrange(1, 60), slowly=slowly)
        asyncio.run(check(url, acknowledged))
    return len(acknowledged)


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_killed_while_it_writes(tmp_path: Path, durability: str) -> None:
    assert kill_and_check(tmp_path, durability, 3, slowly=False) > 0


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_killed_at_any_moment(tmp_path: Path, durability: str) -> None:
    assert kill_and_check(tmp_path, durability, 30, slowly=True) > 30
