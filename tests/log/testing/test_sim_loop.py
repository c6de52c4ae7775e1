"""The simulated event loop: no waiting, one order for one seed, and it says who waits in vain."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

import pytest

from millstream.log.ids import random_id, random_seed
from millstream.log.open import open_log_on
from millstream.log.testing.sim_files import SimFiles
from millstream.log.testing.sim_loop import (
    DeadlockError,
    LivelockError,
    SimClock,
    SimDiskThreads,
    SimLoop,
    run,
)


def test_a_day_of_waiting_takes_no_time() -> None:
    async def main() -> float:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time() - began

    began = time.monotonic()
    assert run(main, 1) == pytest.approx(86_400)
    assert time.monotonic() - began < 5


def test_timers_go_off_in_their_order() -> None:
    async def main() -> list[int]:
        order: list[int] = []

        async def wait(number: int, s: float) -> None:
            await asyncio.sleep(s)
            order.append(number)

        await asyncio.gather(wait(1, 30), wait(2, 0.001), wait(3, 10))
        return order

    assert run(main, 1) == [2, 3, 1]


def test_who_waits_in_vain_is_named() -> None:
    async def wait_for_nobody() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        await asyncio.gather(asyncio.create_task(wait_for_nobody(), name="the lost one"))

    with pytest.raises(DeadlockError, match=r"the lost one.*wait_for_nobody"):
        run(main, 1)


def test_turning_for_ever_is_noticed() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(LivelockError, match="main"):
        run(main, 1)


def test_the_clock_is_the_loops() -> None:
    async def main() -> None:
        clock = SimClock(wall_ms=1000)
        await clock.sleep_ms(500)
        assert (clock.wall_ms(), clock.monotonic_ms()) == (1500, 500)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        loop.jump(60_000)
        clock.correct_wall(-100)
        assert (clock.wall_ms(), clock.monotonic_ms()) == (61_400, 60_500)

    run(main, 1)


def test_a_jump_sets_off_every_timer_on_the_way() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        sleeping = asyncio.create_task(asyncio.sleep(3600))
        await asyncio.sleep(0)
        loop.jump(3_600_000)
        for _ in range(4):
            await asyncio.sleep(0)
        assert sleeping.done()

    run(main, 1)


def test_work_on_the_disk_ends_in_an_order_of_the_seed() -> None:
    async def main() -> tuple[list[int], list[int]]:
        threads, done, told = SimDiskThreads(4), [], []
        for number in range(6):

            def ended(error: BaseException | None, number: int = number) -> None:
                assert error is None
                told.append(number)

            threads.start(lambda number=number: done.append(number), ended)
        assert await threads.run(lambda: "result") == "result"
        await asyncio.sleep(10)
        return done, told

    orders = [run(main, seed) for seed in range(5)]
    assert orders == [run(main, seed) for seed in range(5)]
    assert len({str(order) for order in orders}) > 1
    for done, told in orders:
        assert sorted(done) == sorted(told) == list(range(6))
    assert any(done != told for done, told in orders)


def test_errors_of_work_are_handed_over() -> None:
    async def main() -> None:
        threads, errors = SimDiskThreads(1), []

        def fail() -> None:
            raise OSError("no disk")

        threads.start(fail, errors.append)
        with pytest.raises(OSError, match="no disk"):
            await threads.run(fail)
        await asyncio.sleep(10)
        assert [str(error) for error in errors] == ["no disk"]

    run(main, 1)


def test_a_cancelled_wait_for_the_disk_waits_all_the_same() -> None:
    async def main() -> None:
        threads, done = SimDiskThreads(1), []
        waiting = asyncio.create_task(threads.run(lambda: done.append(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert done == [1]

    run(main, 1)


def test_close_does_what_has_not_begun() -> None:
    async def main() -> None:
        threads, done, told = SimDiskThreads(1), [], []
        threads.start(lambda: done.append(1), told.append)
        threads.close()
        assert done == [1]
        await asyncio.sleep(10)
        assert told == [None]

    run(main, 1)


def test_ids_come_from_the_seed_only_inside() -> None:
    async def main() -> tuple[str, int]:
        return await asyncio.create_task(ids())

    async def ids() -> tuple[str, int]:
        return random_id(), random_seed()

    assert run(main, 1) == run(main, 1)
    assert run(main, 1) != run(main, 2)
    assert random_id() != random_id()
    assert len(random_id()) == 22


def test_tasks_that_are_left_are_cancelled() -> None:
    ended: list[str] = []

    async def lazy() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("lazy")

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(lazy())
        await asyncio.sleep(0)
        return task

    assert run(main, 1).cancelled()
    assert ended == ["lazy"]


async def _a_life_of_a_log() -> str:
    import hashlib

    files, loop = SimFiles(), asyncio.get_running_loop()
    clock = SimClock()
    trace: list[str] = []
    files.on_operation = lambda each: trace.append(f"{loop.time()} {each}")
    async with open_log_on(files, "log", clock=clock, threads=SimDiskThreads) as log:
        for name in ("a", "b", "c"):
            await log.create_topic(name, partitions=3)

        async def produce(number: int) -> None:
            async with log.producer(transactional_id=f"t{number}") as producer:
                for i in range(3):
                    async with producer.transaction():
                        for name in ("a", "b", "c"):
                            await producer.send_batch(name, [b"%d" % i] * 3)
                        await asyncio.sleep(loop.chance.random())

        async def consume() -> None:
            async with log.consumer("a", "b", "c", group="g") as consumer:
                for _ in range(20):
                    trace.append(str(await consumer.poll(100)))
                    await consumer.commit()

        await asyncio.gather(*map(produce, range(4)), consume(), consume(), consume())
    trace.append(str(files.contents()))
    return hashlib.sha256("\n".join(trace).encode()).hexdigest()


def test_the_same_seed_is_the_same_run_in_another_process() -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_sim_loop as t; "
        "print(t.run(t._a_life_of_a_log, int(sys.argv[2])))"
    )

    def digest(seed: int, hash_seed: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", program, os.path.dirname(__file__), str(seed)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    digests = {digest(7, hash_seed) for hash_seed in ("0", "1", "2", "3")}
    assert len(digests) == 1
    assert digest(8, "0") not in digests
