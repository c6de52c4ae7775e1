"""A log under load for a long time: nothing grows without bound, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from millstream.log import open_log
from millstream.log.testing.sim_loop import run
from shared.soak import Load, assert_steady, entries_below, soak

DESCRIPTORS = Path("/proc/self/fd")


def test_ten_minutes() -> None:
    found, load = run(lambda: soak(producers=8, consumers=8, minutes=10, seed=1, pause_s=8), 1)
    assert min(load.sent, load.committed, load.aborted) > 20
    assert load.read > load.sent
    assert_steady(found, warm_up=4, slack=1.5)


@pytest.mark.slow
def test_half_an_hour_of_a_hundred_producers_and_a_hundred_consumers() -> None:
    found, load = run(lambda: soak(producers=100, consumers=100, minutes=30, seed=2, pause_s=20), 2)
    assert min(load.committed, load.aborted) > 500
    assert load.read > load.sent > 20_000
    assert_steady(found, warm_up=6, slack=1.2)


def test_in_real_time_on_a_real_disk(tmp_path: Path) -> None:
    """No thread, no descriptor, no task is left."""

    async def main() -> int:
        async with open_log(f"file:{tmp_path}/log") as log:
            for name in ("events", "payments", "state"):
                await log.create_topic(name, partitions=4, config={"segment.bytes": 1 << 14})
            load = Load(log, 0, pause_s=0.01, poll_ms=20)
            lives = [load.send, load.transact, load.read_in_group, load.read_alone] * 5
            loop = asyncio.get_running_loop()
            clients = [
                loop.create_task(load.live(life, number)) for number, life in enumerate(lives)
            ]
            while min(load.sent, load.read, load.committed, load.aborted) < 30:
                await load.pause()
                failed = [each for each in clients if each.done()]
                assert not failed, failed[0].exception()
            load.stopping.set()
            await asyncio.gather(*clients)
            entries = entries_below(log)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return entries

    threads = threading.active_count()
    descriptors = len(os.listdir(DESCRIPTORS)) if DESCRIPTORS.exists() else 0
    assert asyncio.run(main()) > 0
    assert threading.active_count() == threads
    if descriptors:
        assert len(os.listdir(DESCRIPTORS)) == descriptors
