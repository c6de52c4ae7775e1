"""What a crash leaves is no damage: `verify_log` says so before the log is opened again, and after.

Every disk that a power loss allows, of the log's own crash sweep (shared/log_sweep.py).
"""

from __future__ import annotations

import asyncio

import pytest

from millstream.log.storage.findings import Finding
from millstream.log.storage.verify import verify_log
from millstream.log.testing.sim_files import SimFiles
from shared.log_sweep import FOLDER, Promises, crash_points, disks_after, open_sim, run_workload


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
