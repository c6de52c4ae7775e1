"""The log beside plain files: the same bytes through write(2), fsync(2), read(2), in one run.

    python bench/storage.py [--megabytes 256] [--rounds 5]

Every figure is taken in a process of its own, on a folder of its own, after a sync of the disk; the
two sides of a pair run one after the other, and the ratio is plain time / Millstream time, pair by
pair. Only the work itself is timed, not the start of the process.

    append    batches of 100 KB, as a producer or a server hands them over: checked (CRC,
              sequences), placed at their offset, indexed, written; with fsync in groups of 1 MB,
              one group at a time, or the next written while the last is on its way to the disk
    produce   from records in columns: encoded into such batches first
    fetch     batches as they lie on disk, as a server sends them
    consume   records in columns: fetched, checked, decoded
    commit    one record in a transaction, from commit_transaction() to its return
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from millstream.log import TopicPartition, open_log
from millstream.log.broker.partitions import FetchRequest
from millstream.log.format.codec import encode_batch

BATCH_BYTES = 100_000
GROUP_BATCHES = 10
"""Batches that share an fsync."""
READ_BYTES = 1 << 20
TOPIC = TopicPartition("events", 0)
CONFIG = {"retention.ms": -1}
COMMITS = 300


@contextmanager
def timed(result: dict[str, float]) -> Iterator[None]:
    cpu, started = time.process_time(), time.perf_counter()
    yield
    result["seconds"] = time.perf_counter() - started
    result["cpu_seconds"] = time.process_time() - cpu


def columns(record_bytes: int) -> tuple[list[bytes], list[int]]:
    """Values and times of one batch; incompressible, so that nothing on the way can cheat."""
    values = [os.urandom(record_bytes) for _ in range(BATCH_BYTES // record_bytes)]
    return values, [1_700_000_000_000 + i for i in range(len(values))]


def batches(record_bytes: int, total_bytes: int) -> list[bytes]:
    """A few different batches, over and over: their making is not what is measured."""
    made = []
    for _ in range(8):
        values, times = columns(record_bytes)
        made.append(encode_batch([None] * len(values), values, times, None, 0, len(values)))
    return [made[i % len(made)] for i in range(total_bytes // len(made[0]))]


def plain_write(
    folder: Path, record_bytes: int, total_bytes: int, *, sync: bool
) -> dict[str, float]:
    result: dict[str, float] = {}
    todo = batches(record_bytes, total_bytes)
    file = os.open(folder / "plain", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    with timed(result):
        for i, batch in enumerate(todo, 1):
            os.write(file, batch)
            if sync and i % GROUP_BATCHES == 0:
                os.fsync(file)
    os.close(file)
    return result


async def append(
    folder: Path, record_bytes: int, total_bytes: int, *, sync: bool, in_flight: int = 1
) -> dict[str, float]:
    result: dict[str, float] = {}
    todo = batches(record_bytes, total_bytes)
    durability = "fsync" if sync else "os"
    async with open_log(f"file:{folder / 'log'}", durability=durability) as log:
        await log.create_topic(TOPIC.topic, config=CONFIG)
        partitions = log._broker.partitions  # what a server calls
        groups: deque[asyncio.Future[None]] = deque()
        with timed(result):
            for i, batch in enumerate(todo, 1):
                info = partitions.append(TOPIC, batch)
                if i % GROUP_BATCHES == 0:
                    groups.append(partitions.durable(TOPIC, info.last_offset + 1))
                    await (groups.popleft() if len(groups) >= in_flight else asyncio.sleep(0))
            for group in groups:
                await group
    return result


async def produce(
    folder: Path, record_bytes: int, total_bytes: int, *, sync: bool
) -> dict[str, float]:
    result: dict[str, float] = {}
    made = [columns(record_bytes) for _ in range(8)]
    durability = "fsync" if sync else "os"
    async with open_log(f"file:{folder / 'log'}", durability=durability) as log:
        await log.create_topic(TOPIC.topic, config=CONFIG)
        settings = {"batch.size": BATCH_BYTES + 20_000}
        async with log.producer(config=settings) as producer:
            with timed(result):
                for i in range(1, total_bytes // BATCH_BYTES + 1):
                    values, times = made[i % len(made)]
                    await producer.send_batch(TOPIC.topic, values, timestamps=times, partition=0)
                    if i % GROUP_BATCHES == 0:
                        await producer.flush()
                await producer.flush()
    return result


async def prepared_log(folder: Path, record_bytes: int, total_bytes: int) -> None:
    await append(folder, record_bytes, total_bytes, sync=False)


def plain_read(folder: Path) -> dict[str, float]:
    result: dict[str, float] = {}
    files = sorted((folder / "log" / str(TOPIC)).glob("*.log"))
    with timed(result):
        for path in files:
            file = os.open(path, os.O_RDONLY)
            while os.read(file, READ_BYTES):
                pass
            os.close(file)
    return result


async def fetch(folder: Path) -> dict[str, float]:
    result: dict[str, float] = {}
    async with open_log(f"file:{folder / 'log'}", durability="os") as log:
        partitions = log._broker.partitions
        end = partitions.end_offset(TOPIC, "read_committed")
        offset, with_timer = 0, timed(result)
        with with_timer:
            while offset < end:
                request = FetchRequest(TOPIC, offset, READ_BYTES)
                answer = await partitions.fetch([request], isolation="read_committed")
                data = answer[TOPIC].data
                offset = _next_offset(data, offset)
    return result


def _next_offset(data: bytes, offset: int) -> int:
    """What a client does to know where to go on: from batch header to batch header."""
    position = 0
    while position < len(data):
        base = int.from_bytes(data[position : position + 8], "big")
        offset = base + int.from_bytes(data[position + 23 : position + 27], "big") + 1
        position += int.from_bytes(data[position + 8 : position + 12], "big") + 12
    return offset


async def consume(folder: Path) -> dict[str, float]:
    result: dict[str, float] = {}
    async with open_log(f"file:{folder / 'log'}", durability="os") as log:
        end = (await log.end_offsets([TOPIC]))[TOPIC]
        settings = {"max.partition.fetch.bytes": READ_BYTES}
        async with log.consumer(config=settings) as consumer:
            await consumer.assign([TOPIC])
            await consumer.seek(TOPIC, 0)
            with timed(result):
                while consumer.position()[TOPIC] < end:
                    await consumer.poll_batches()
    return result


def plain_commit(folder: Path) -> dict[str, float]:
    """One small append made durable: the least that any commit can cost."""
    file = os.open(folder / "plain", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    taken = []
    for _ in range(COMMITS):
        os.write(file, b"x" * 180)
        started = time.perf_counter()
        os.fsync(file)
        taken.append(time.perf_counter() - started)
    os.close(file)
    return latencies(taken)


async def commit(folder: Path) -> dict[str, float]:
    async with open_log(f"file:{folder / 'log'}") as log:
        await log.create_topic(TOPIC.topic, config=CONFIG)
        async with log.producer(transactional_id="bench") as producer:
            taken = []
            for _ in range(COMMITS):
                await producer.begin_transaction()
                await producer.send_batch(TOPIC.topic, [b"x" * 100])
                started = time.perf_counter()
                await producer.commit_transaction()
                taken.append(time.perf_counter() - started)
    return latencies(taken)


def latencies(taken: list[float]) -> dict[str, float]:
    ordered = sorted(taken)
    return {
        "seconds": statistics.median(taken),
        "p99": ordered[int(len(ordered) * 0.99)],
        "cpu_seconds": time.process_time() / len(taken),
    }


def measure(case: str, folder: Path, record_bytes: int, total_bytes: int) -> dict[str, float]:
    """One figure, in this process."""
    sync, in_flight = "fsync" in case, 2 if case.endswith("-2") else 1
    name = case.removesuffix("-2").removesuffix("-fsync").removesuffix("-os")
    sides: dict[str, Callable[[], object]] = {
        "write": lambda: plain_write(folder, record_bytes, total_bytes, sync=sync),
        "append": lambda: append(folder, record_bytes, total_bytes, sync=sync, in_flight=in_flight),
        "produce": lambda: produce(folder, record_bytes, total_bytes, sync=sync),
        "prepare": lambda: prepared_log(folder, record_bytes, total_bytes),
        "read": lambda: plain_read(folder),
        "fetch": lambda: fetch(folder),
        "consume": lambda: consume(folder),
        "plain-commit": lambda: plain_commit(folder),
        "commit": lambda: commit(folder),
    }
    found = sides[name]()
    result = asyncio.run(found) if asyncio.iscoroutine(found) else found
    result = result or {}
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return result


def in_process(case: str, folder: Path, record_bytes: int, total_bytes: int) -> dict[str, float]:
    """The same in a process of its own."""
    os.sync()
    done = subprocess.run(
        [
            sys.executable,
            __file__,
            "--case",
            case,
            str(folder),
            str(record_bytes),
            str(total_bytes),
        ],
        check=True,
        capture_output=True,
    )
    return json.loads(done.stdout)


PAIRS = [
    ("append-os", "write-os", 0.6),
    ("produce-os", "write-os", None),
    ("append-fsync", "write-fsync", 0.8),
    ("append-fsync-2", "write-fsync", 0.8),
    ("produce-fsync", "write-fsync", None),
    ("fetch", "read", 0.5),
    ("consume", "read", None),
]


def report(
    name: str,
    pairs: list[tuple[dict[str, float], dict[str, float]]],
    megabytes: float,
    target: float | None,
) -> None:
    ratios = [plain["seconds"] / ours["seconds"] for ours, plain in pairs]
    ours = min(pairs, key=lambda pair: pair[0]["seconds"])[0]
    plain = min(pairs, key=lambda pair: pair[1]["seconds"])[1]
    print(
        f"| {name} | {megabytes / ours['seconds']:,.0f} | {megabytes / plain['seconds']:,.0f} "
        f"| **{statistics.median(ratios):.2f}** [{min(ratios):.2f}..{max(ratios):.2f}] "
        f"| {target or ''} | {ours['cpu_seconds']:.2f} | {plain['cpu_seconds']:.2f} "
        f"| {ours['peak_mb']:.0f} | {plain['peak_mb']:.0f} |",
        flush=True,
    )


def run(megabytes: int, rounds: int, root: Path) -> None:
    print(
        "| | Millstream MB/s | plain MB/s | ratio, median [min..max] | target | CPU s "
        "| plain CPU s | peak MB | plain peak MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for record_bytes in (1000, 100):
        for name, baseline, target in PAIRS:
            pairs = []
            for _ in range(rounds):
                with tempfile.TemporaryDirectory(dir=root) as scratch:
                    folder = Path(scratch)
                    if baseline == "read":
                        in_process("prepare", folder, record_bytes, megabytes * 1_000_000)
                        in_process("read", folder, record_bytes, 0)  # both from the page cache
                    sides = [
                        in_process(case, folder, record_bytes, megabytes * 1_000_000)
                        for case in (name, baseline)
                    ]
                    pairs.append((sides[0], sides[1]))
            report(f"{name}, {record_bytes} B", pairs, megabytes, target)
    run_commits(rounds, root)


def run_commits(rounds: int, root: Path) -> None:
    print("\n| | median ms | p99 ms | of one fsync, median | CPU ms a commit | peak MB |")
    print("|---|---|---|---|---|---|")
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(dir=root) as scratch:
            found.append(
                [in_process(case, Path(scratch), 0, 0) for case in ("plain-commit", "commit")]
            )
    fsync = statistics.median(pair[0]["seconds"] for pair in found)
    for i, name in enumerate(("one fsync", "commit of a transaction")):
        side = [pair[i] for pair in found]
        median = statistics.median(each["seconds"] for each in side)
        p99 = statistics.median(each["p99"] for each in side)
        print(
            f"| {name} | {median * 1000:.2f} | {p99 * 1000:.2f} | {median / fsync:.1f} "
            f"| {side[0]['cpu_seconds'] * 1000:.2f} | {side[0]['peak_mb']:.0f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--megabytes", type=int, default=256, help="written or read in each process"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--directory", type=Path, default=None, help="where to write; default: temporary"
    )
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case:
        case, folder, record_bytes, total_bytes = arguments.case
        print(json.dumps(measure(case, Path(folder), int(record_bytes), int(total_bytes))))
        return
    with tempfile.TemporaryDirectory(dir=arguments.directory) as root:
        run(arguments.megabytes, arguments.rounds, Path(root))


if __name__ == "__main__":
    main()
