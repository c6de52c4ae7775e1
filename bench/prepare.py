"""Writes the input twice: `events.jsonl` for the bare loop, topic `events` for Millstream.

python bench/prepare.py DIRECTORY RECORDS
"""

from __future__ import annotations

import asyncio
import sys
from itertools import islice
from pathlib import Path

from millstream.log import open_log
from workloads import generate

BATCH_RECORDS = 10_000


async def prepare(directory: Path, count: int) -> None:
    records = generate.records(count)
    async with open_log(f"file:{directory / 'log'}") as log:
        await log.create_topic("events", partitions=1, config={"retention.ms": -1})
        async with log.producer() as producer:
            with open(directory / "events.jsonl", "wb") as lines:
                while batch := list(islice(records, BATCH_RECORDS)):
                    keys, values, timestamps = (list(column) for column in zip(*batch, strict=True))
                    lines.writelines(value + b"\n" for value in values)
                    await producer.send_batch("events", values, keys=keys, timestamps=timestamps)


if __name__ == "__main__":
    asyncio.run(prepare(Path(sys.argv[1]), int(sys.argv[2])))
