"""An event loop whose time is simulated: it never waits, and one seed gives one run.

When nothing is ready, the loop jumps to the next timer. No threads, no sockets, no machine's clock:
hours of waiting take milliseconds, and a run that failed fails again. What the log takes from
outside has a twin here:

    SimClock         `Clock`: its time is the loop's
    SimDiskThreads   `DiskThreads`: work begins and ends at random moments, in random order
    run              `asyncio.run`: with this loop, and with ids that come from the seed

    files = SimFiles()

    async def main() -> None:
        async with open_log_on(files, "log", clock=SimClock(), threads=SimDiskThreads) as log:
            ...

    run(main, seed=4711)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

from millstream.log.broker.disk_threads import DiskThreads, Ended
from millstream.log.ids import random_bytes

__all__ = ["DeadlockError", "LivelockError", "SimClock", "SimDiskThreads", "SimLoop", "run"]

T = TypeVar("T")

_TURNS_MAX = 100_000
_CLEANUPS = 20


class DeadlockError(AssertionError):
    """Somebody waits, and nothing is left that could wake him."""


class LivelockError(AssertionError):
    """The loop turned and turned, and no time passed."""


class _Selector:
    """What the loop asks for events: there are none, so the wait is over at once."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def select(self, timeout_s: float | None) -> list[Any]:
        self._loop.pass_time(timeout_s)
        return []


class SimLoop(asyncio.BaseEventLoop):
    """The loop. `chance` is where everything random in a run comes from."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = Random(seed)
        self._time_s = 0.0
        self._turns = 0
        self._selector = _Selector(self)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Seconds since the run began."""
        return self._time_s

    def jump(self, duration_ms: int) -> None:
        """Let time pass while nothing runs, as when the machine was asleep: every timer that is due
        by then goes off at once."""
        self._time_s += duration_ms / 1000

    def pass_time(self, timeout_s: float | None) -> None:
        """Nothing is ready for this long (0: something is; None: nothing ever will be)."""
        if timeout_s is None:
            waiting = "\n".join(sorted(map(_place, asyncio.all_tasks(self))))
            raise DeadlockError(f"Nothing is left to wake these tasks:\n{waiting}")
        self._turns = 0 if timeout_s > 0 else self._turns + 1
        self._time_s += timeout_s
        if self._turns > _TURNS_MAX:
            self._turns = 0
            running = "\n".join(sorted(map(_place, asyncio.all_tasks(self))))
            raise LivelockError(f"{_TURNS_MAX} turns and no time passed:\n{running}")

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody has to be woken: there is no other thread."""


def _place(task: asyncio.Task[Any]) -> str:
    """Where a task waits, innermost last."""
    frames = [f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in task.get_stack()]
    inner: Any = task.get_coro()
    while (inner := getattr(inner, "cr_await", None)) is not None:
        if (frame := getattr(inner, "cr_frame", None)) is not None:
            frames.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
    return f"  {task.get_name()}: {' > '.join(frames)}"


def run(main: Callable[[], Coroutine[Any, Any, T]], seed: int) -> T:
    """Run `main()` to its end on a loop of its own. Tasks that are left are cancelled.

    Raises:
        DeadlockError, LivelockError: it cannot come to its end; the message says who waits where.
    """
    loop = SimLoop(seed)

    async def seeded() -> T:
        random_bytes.set(loop.chance.randbytes)
        return await main()

    try:
        return loop.run_until_complete(seeded())
    finally:
        try:
            _cancel_what_is_left(loop)
        finally:
            loop.close()


def _cancel_what_is_left(loop: SimLoop) -> None:
    """More than once: who waits while he closes waits for what is gone."""
    for _ in range(_CLEANUPS):
        left = sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name())
        if not left:
            break
        for task in left:
            task.cancel()
        loop.run_until_complete(_a_second())
    else:  # they wait for what will never be, as for a disk that crashed
        loop.set_exception_handler(lambda *_: None)
    loop.run_until_complete(loop.shutdown_asyncgens())


async def _a_second() -> None:
    """Time for what a cancelled task still does, such as waiting for the disk."""
    await asyncio.sleep(1)


def _sim_loop() -> SimLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop), "use testing.sim_loop.run"
    return loop


class SimClock:
    """The running SimLoop's time. `wall_ms` can be set apart by `correct_wall`."""

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self._loop = _sim_loop()
        self._wall_at_zero_ms = wall_ms

    def wall_ms(self) -> int:
        return self._wall_at_zero_ms + self.monotonic_ms()

    def monotonic_ms(self) -> int:
        return int(self._loop.time() * 1000)

    async def sleep_ms(self, duration_ms: int) -> None:
        await asyncio.sleep(duration_ms / 1000)

    def correct_wall(self, by_ms: int) -> None:
        """Somebody sets the wall clock; monotonic time goes on."""
        self._wall_at_zero_ms += by_ms


class SimDiskThreads(DiskThreads):
    """Work begins after a random while and is reported after another: what happens between lies
    before it or after it, as with real threads. The work itself is one step."""

    def __init__(self, count: int) -> None:
        super().__init__(0)
        self._sim_loop = _sim_loop()
        self._count = count
        self._running: dict[int, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}
        self._started = 0

    @property
    def inline(self) -> bool:
        return self._count == 0

    def start(self, work: Callable[[], None], ended: Ended) -> None:
        """As `DiskThreads.start`."""
        number = self._started
        self._started += 1

        def begin() -> None:
            del self._running[number]
            error: BaseException | None = None
            try:
                work()
            except BaseException as raised:  # noqa: BLE001 - handed over, as a thread's future does
                error = raised
            self._sim_loop.call_later(self._while_s(), ended, error)

        self._running[number] = (self._sim_loop.call_later(self._while_s(), begin), begin)

    async def run(self, work: Callable[[], T]) -> T:
        """As `DiskThreads.run`."""
        if self.inline:
            return work()
        done: asyncio.Future[T] = self._sim_loop.create_future()
        results: list[T] = []

        def ended(error: BaseException | None) -> None:
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(results[0])

        self.start(lambda: results.append(work()), ended)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            await asyncio.wait([done])
            raise

    def close(self) -> None:
        """What has not begun is done now."""
        for timer, begin in list(self._running.values()):
            timer.cancel()
            begin()

    def _while_s(self) -> float:
        """Mostly a few milliseconds; now and then a disk is slow."""
        chance = self._sim_loop.chance
        return chance.random() * (0.005 if chance.random() < 0.95 else 1.0)
