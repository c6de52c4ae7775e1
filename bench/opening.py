"""How long opening a log takes, after a clean stop and after SIGKILL, and what memory it takes.

    python bench/opening.py [--records 1000000,10000000] [--tail 0,100000,1000000]

For each size: so many records of 100 bytes in 16 partitions. Then one process closes the log
cleanly; another gets SIGKILL when `tail` records have come since the last checkpoint (the log
writes one every minute). What is timed is `open_log` in a fresh process, from the call to a log
that can be read and written; beside it the resident memory of that process, before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from millstream.log import Log, TopicPartition, open_log

PARTITIONS = 16
RECORD_BYTES = 100
BATCH_RECORDS = 1000


async def write(log: Log, count: int) -> None:
    async with log.producer() as producer:
        values = [os.urandom(RECORD_BYTES) for _ in range(BATCH_RECORDS)]
        for i in range(count // BATCH_RECORDS):
            partition = i % PARTITIONS
            await producer.send_batch("events", values, partition=partition)


async def fill(folder: str, count: int) -> None:
    async with open_log(f"file:{folder}") as log:
        await log.create_topic("events", partitions=PARTITIONS, config={"retention.ms": -1})
        await write(log, count)


async def die(folder: str, tail: int) -> None:
    """Write `tail` records after a checkpoint, then get killed."""
    async with open_log(f"file:{folder}") as log:
        await write(log, BATCH_RECORDS * PARTITIONS)
        await log._broker.partitions.checkpoint()  # what the log does every minute
        await write(log, tail)
        os.kill(os.getpid(), signal.SIGKILL)


async def opened(folder: str) -> None:
    before = resident_mb()
    cpu, started = time.process_time(), time.perf_counter()
    async with open_log(f"file:{folder}") as log:
        seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu
        after = resident_mb()
        partitions = [TopicPartition("events", number) for number in range(PARTITIONS)]
        ends = await log.end_offsets(partitions)
        async with log.consumer() as consumer:
            await consumer.assign(partitions)
            await consumer.seek_to_end()
            await consumer.seek(partitions[0], ends[partitions[0]] - 1)
            assert len(await consumer.poll()) == 1
    print(json.dumps([seconds, cpu_seconds, before, after]))


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def child(*arguments: object, dies: bool = False) -> str:
    command = [sys.executable, __file__, "--step", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == (-signal.SIGKILL if dies else 0), done.stderr.decode()
    return done.stdout.decode()


def report(records: int, stop: str, folder: Path) -> None:
    size_mb = sum(path.stat().st_size for path in folder.rglob("*.log")) / 1e6
    seconds, cpu_seconds, before, after = json.loads(child("open", folder))
    print(
        f"| {records:,} | {size_mb:,.0f} | {stop} | **{seconds:.3f}** | {cpu_seconds:.3f} "
        f"| {after:.0f} | {after - before:.0f} |",
        flush=True,
    )


def run(sizes: list[int], tails: list[int], root: Path) -> None:
    print("| records | MB | stop | open, s | CPU s | resident MB | of that for the log |")
    print("|---|---|---|---|---|---|---|")
    for records in sizes:
        folder = root / "log"
        child("fill", folder, records)
        child("open", folder)  # the page cache is warm for all
        report(records, "clean", folder)
        for tail in tails:
            child("die", folder, tail, dies=True)
            report(records, f"SIGKILL, {tail:,} records after a checkpoint", folder)
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", default="1000000,10000000")
    parser.add_argument("--tail", default="0,100000,1000000")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step, folder, *count = arguments.step
        steps = {"fill": fill, "die": die, "open": opened}
        asyncio.run(steps[step](folder, *map(int, count)))
        return
    with tempfile.TemporaryDirectory() as root:
        sizes, tails = (
            [int(each) for each in text.split(",")] for text in (arguments.records, arguments.tail)
        )
        run(sizes, tails, Path(root))


if __name__ == "__main__":
    main()
