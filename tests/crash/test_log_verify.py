"""What a crash leaves is no damage: `verify_log` says so before the log is opened again, and after.

Every disk that a power loss allows, of the log's own crash sweep (shared/log_sweep.py).
"""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.open import open_log_on
from millstream.log.storage.findings import Finding
from millstream.log.storage.verify import verify_log
from millstream.log.testing.fake_clock import FakeClock
from millstream.log.testing.sim_files import SimFiles
from shared.log_sweep import (
    CONFIG,
    FOLDER,
    Promises,
    crash_points,
    disks_after,
    open_sim,
    run_until_crash,
    run_workload,
)

COMPACTED = {
    "cleanup.policy": "compact",
    "segment.bytes": 1024,
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": 1000,
}
SHORT = {"segment.bytes": 1024, "retention.bytes": 3000}


def damage(disk: SimFiles) -> list[Finding]:
    """What verify calls damage, on a disk that it must leave as it is."""
    if not disk.exists(FOLDER):
        return []
    writes = disk.writes
    found = list(verify_log(disk, FOLDER, records=True))
    assert disk.writes == writes, "verify wrote to the disk"
    return [each for each in found if each.severity == "error"]


async def open_and_close(disk: SimFiles, durability: str) -> None:
    async with open_sim(disk, durability=durability):
        pass


def sweep(step: int, durability: str) -> int:
    checked = 0
    for point in range(step // 2, crash_points(durability=durability), step):
        files = SimFiles(crash_at=point)
        run_workload(files, Promises(), durability=durability)
        disks = [files.restart()] if durability == "os" else []
        disks += disks_after(files, point, all_of_them=durability == "fsync")
        for disk in disks:
            assert damage(disk) == [], f"crash at write {point}"
            asyncio.run(open_and_close(disk, durability))
            assert damage(disk) == [], f"crash at write {point}, after recovery"
            checked += 1
    return checked


@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_a_crash_is_no_damage(durability: str) -> None:
    assert sweep(71, durability) > 15


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["fsync", "os"])
def test_no_crash_is_damage(durability: str) -> None:
    assert sweep(3, durability) > 400


async def keyed_work(log: EmbeddedLog, random: Random, clock: FakeClock) -> None:
    """Keys, tombstones, transactions and new producers, cleaned again and again."""
    await log.create_topic("keyed", partitions=2, config=COMPACTED, exist_ok=True)
    await log.create_topic("short", config=SHORT, exist_ok=True)
    transactional = log.producer(transactional_id=f"t{random.randrange(2)}")
    plain = log.producer(config={"linger.ms": 0})
    for _ in range(random.randrange(5, 60)):
        keys = [b"k%d" % random.randrange(6) for _ in range(random.randrange(1, 5))]
        values = [None if random.random() < 0.2 else b"v" * random.randrange(200) for _ in keys]
        what = random.random()
        if what < 0.4:
            await plain.send_batch("keyed", values, keys=keys)
            await plain.flush()
        elif what < 0.75:
            await transactional.begin_transaction()
            for _ in range(random.randrange(1, 4)):
                await transactional.send_batch("keyed", values, keys=keys)
            await transactional.send_batch("short", values)
            if random.random() < 0.5:
                await transactional.abort_transaction()
            else:
                await transactional.commit_transaction()
        elif what < 0.85:
            await plain.send_batch("short", [b"." * 300] * 3)
            await plain.flush()
        elif what < 0.9:
            plain = log.producer(config={"linger.ms": 0})
        else:
            clock.advance(random.choice([0, 500, 2000]))
            await log._broker.cleaner.run_once()


async def sessions(files: SimFiles, seed: int) -> None:
    """The log is opened, worked with and closed, up to three times."""
    random, clock = Random(seed), FakeClock()
    for _ in range(random.randrange(1, 4)):
        async with open_log_on(files, FOLDER, config=CONFIG, clock=clock) as log:
            await keyed_work(log, random, clock)
        assert damage(files) == [], f"seed {seed}, closed cleanly"


def sweep_cleaning(seeds: range) -> int:
    checked = 0
    for seed in seeds:
        whole = SimFiles()
        asyncio.run(sessions(whole, seed))
        for attempt in range(3):
            point = Random(seed * 7 + attempt).randrange(whole.writes)
            files = SimFiles(crash_at=point)
            run_until_crash(files, lambda files=files, seed=seed: sessions(files, seed))
            for disk in (files.restart(), *disks_after(files, seed, all_of_them=False)):
                assert damage(disk) == [], f"seed {seed}, crash at write {point}"
                checked += 1
    return checked


def test_compaction_and_retention_are_no_damage() -> None:
    assert sweep_cleaning(range(100, 108)) > 60


@pytest.mark.slow
def test_no_compaction_is_damage() -> None:
    assert sweep_cleaning(range(1000, 1200)) > 1500
