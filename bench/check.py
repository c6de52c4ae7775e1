"""Are Millstream's results those of the bare loop? The speed of wrong results is worth nothing."""

from __future__ import annotations

import asyncio
import struct
import sys
from collections import Counter
from pathlib import Path

import orjson

from millstream.log import RecordBatch, TopicPartition, open_log

OUTPUTS = {"W1": "large", "W2": "counts", "W3": "amounts", "W4": "words"}


async def read(log_path: Path, topic: str) -> list[RecordBatch]:
    """All committed records of a topic, partition by partition."""
    batches: list[RecordBatch] = []
    async with open_log(f"file:{log_path}") as log:
        description = await log.describe_topic(topic)
        partitions = [TopicPartition(topic, number) for number in range(description.partitions)]
        async with log.consumer() as consumer:
            await consumer.assign(partitions)
            while any((await consumer.lag()).values()):
                batches += await consumer.poll_batches()
    return batches


def same_lines(batches: list[RecordBatch], expected: Path) -> bool:
    values = [value for batch in batches for value in batch.values]
    return values == expected.read_bytes().splitlines()


def same_updates(batches: list[RecordBatch], expected: Path) -> bool:
    updates = [
        b"%s\t%d" % (key or b"", int.from_bytes(value or b"", "big"))
        for batch in batches
        for key, value in zip(batch.keys, batch.values, strict=True)
    ]
    return updates == expected.read_bytes().splitlines()


def same_windows(batches: list[RecordBatch], expected: Path) -> bool:
    sums: Counter[tuple[int, str]] = Counter()
    for batch in batches:
        for key, value in zip(batch.keys, batch.values, strict=True):
            assert key is not None
            assert value is not None
            sums[int.from_bytes(key[-8:], "big"), key[:-8].decode()] += struct.unpack(">d", value)[
                0
            ]
    wanted = {(start, user): total for start, user, total in map(orjson.loads, expected.open("rb"))}
    return sums == wanted


def same_last_values(batches: list[RecordBatch], expected: Path) -> bool:
    last = {
        key: int.from_bytes(value or b"", "big")
        for batch in batches
        for key, value in zip(batch.keys, batch.values, strict=True)
    }
    wanted = dict(line.split(b"\t") for line in expected.read_bytes().splitlines())
    return last == {word: int(total) for word, total in wanted.items()}


COMPARISONS = {"W1": same_lines, "W2": same_updates, "W3": same_windows, "W4": same_last_values}


async def compare(workload: str, log_path: Path, expected: Path) -> None:
    """Raise when the output topic does not hold what the bare loop wrote."""
    batches = await read(log_path, OUTPUTS[workload])
    if not COMPARISONS[workload](batches, expected):
        raise SystemExit(f"{workload}: the output topic and {expected} differ")


if __name__ == "__main__":
    asyncio.run(compare(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
