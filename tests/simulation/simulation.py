"""One seed: lives of a process over one disk, each with its work and its accidents, then calm.

life      open, check everything, let the actors work while faults, cancellations and jumps of
          time happen, then stop: close the log, kill the process, or cut the power
calm      no more accidents: everything that waits comes to its end, all is read, all is checked;
          closed and opened again, nothing has changed
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections import Counter
from random import Random
from typing import Any

from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.errors import LogError, StorageError
from millstream.log.open import open_log_on
from millstream.log.storage.verify import verify_log
from millstream.log.testing.sim_files import Contents, Crash, Entries, Operation, disk_error
from millstream.log.testing.sim_loop import SimClock, SimDiskThreads, SimLoop, run

from .actors import act
from .calm import consumers_see_what_is_there, everybody_comes_to_the_end
from .case import Case
from .checks import check, forgive, settle
from .history import Violation
from .plan import AUTO_GROUP, CHAIN_GROUP, GROUPS, IN, OUT, STEADY_GROUP, TEMP, Life, make_plan
from .snapshot import Snapshot, read_log
from .world import OPERATION_MS_MAX, Disk, World

FOLDER = "log"


class Simulation:
    """The run of one seed. `trace` is filled when it is asked for."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.rng = Random(seed)
        self.seed = seed
        self.world = World(seed, make_plan(self.rng), self.rng)
        self.world.trace = [] if trace else None
        self.disk = Disk()

    def run(self) -> Counter[str]:
        """Raises Violation, or what a loop raises that cannot go on. Returns what was counted."""
        try:
            for number, life in enumerate(self.world.plan.lives):
                self._live(life, f"life {number}")
            self._calm()
        except BaseException as error:
            error.add_note(f"replay: python tests/simulation/run.py --seed {self.seed} --trace")
            raise
        return self.world.count

    def digest(self) -> str:
        """Of everything that happened."""
        text = "\n".join([*(self.world.trace or ()), repr(self.disk.contents())])
        return hashlib.sha256(text.encode()).hexdigest()

    # A life

    def _live(self, life: Life, name: str) -> None:
        world, disk = self.world, self.disk
        world.life, world.faulted, world.bounds = life, False, {}
        self._arm(life)
        stopped = False
        try:
            run(lambda: self._life(life, name), self.rng.getrandbits(32))
        except Crash:
            stopped = True
        world.everything_is_over()
        world.wall_ms += life.downtime_ms
        disk.on_operation = None
        self._next_disk(life, stopped)

    def _arm(self, life: Life) -> None:
        """Faults and the crash of this life."""
        world, disk = self.world, self.disk
        left = life.fault_count if life.fault is not None else 0
        before = life.fault[2] if life.fault is not None else 0

        def operation(each: Operation) -> OSError | None:
            nonlocal left, before
            world.operation(each)
            if world.trace is not None and each.is_write:
                world.note("disk", each.kind, each.path)
            if not left or life.fault is None or not each.is_write:
                return None
            kind, which, _ = life.fault
            if which not in {"any", each.kind}:
                return None
            if before:
                before -= 1
                return None
            left -= 1
            world.faulted = True
            world.note("fault", kind, each.kind, each.path)
            world.count[f"fault {kind} {each.kind}"] += 1
            return disk_error(kind, each.path)

        disk.on_operation = operation
        disk.crash_at = disk.writes + life.crash_after if life.end == "crash" else None

    async def _life(self, life: Life, name: str) -> None:
        world, disk = self.world, self.disk
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        world.clock = SimClock(world.wall_ms)
        stopped = asyncio.Event()
        disk.on_crash = stopped.set
        errors: list[Any] = []
        loop.set_exception_handler(lambda _, context: errors.append(context))
        try:
            world.note("life", name, life)
            work = loop.create_task(self._work(life))
            watch = loop.create_task(stopped.wait())
            done, _ = await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
            if watch in done:
                world.note("crash", disk.operations[-1])
                raise Crash  # nobody waits for anything any more
            watch.cancel()
            await asyncio.wait([watch])
            await work
            if life.end != "close":
                world.note(life.end)
                disk.crashed = True
                raise Crash
            self._nothing_is_left()
        finally:
            disk.on_crash = None
            world.wall_ms = world.clock.wall_ms()
            self._no_error_is_left(errors)

    @staticmethod
    def _nothing_is_left() -> None:
        this = asyncio.current_task()
        left = [each for each in asyncio.all_tasks() if each is not this and not each.done()]
        if left:
            raise Violation("task left behind", str(left))

    def _no_error_is_left(self, errors: list[Any]) -> None:
        for context in errors:
            error = context.get("exception")
            if not isinstance(error, Crash | LogError) and not self.disk.crashed:
                raise Violation("an error nobody took", repr(context))

    async def _work(self, life: Life) -> None:
        world = self.world
        log = await self._open()
        if log is None:
            return
        await self._have_topics()
        self._check(await read_log(log, GROUPS), opened=True)
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(act(world, name), name=name) for name in life.actors]
        tasks.append(loop.create_task(self._watch()))
        tasks.append(loop.create_task(self._jump(life)))
        ending = asyncio.sleep(life.duration_ms / 1000)
        try:
            await _until(tasks[:-2], ending)
            if life.end != "close":
                return
            if self.rng.random() < 0.5:
                await world.in_time(tasks[:-2])
            for task in tasks[-2:]:
                task.cancel()
            await asyncio.wait(tasks[-2:])
            await self._close()
            if not await world.in_time(tasks):
                late = [task for task in tasks if not task.done()]
                raise Violation("stuck", f"after the log was closed: {late}")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error

    async def _open(self) -> EmbeddedLog | None:
        world = self.world
        world.log = open_log_on(
            self.disk,
            FOLDER,
            durability=world.plan.durability,
            config=world.plan.broker,
            clock=world.clock,
            threads=SimDiskThreads,
        )
        opening = asyncio.ensure_future(world.log.__aenter__())
        if not await world.in_time([opening]):
            raise Violation("stuck", "opening does not end")
        try:
            opening.result()
        except LogError as error:
            world.note("not opened", error)
            if not world.faulted:
                raise Violation("unfounded error", repr(error)) from error
            return None
        return world.log

    async def _have_topics(self) -> None:
        world = self.world
        existing = await world.log.topics()
        for name, (partitions, config) in world.plan.topics.items():
            if name in existing:
                continue
            kept = any(sent.topic == name and sent.is_acknowledged for sent in world.history.sent)
            if kept and name != TEMP and world.exact:
                raise Violation("lost", f"topic {name} is gone")
            try:
                await world.log.create_topic(name, partitions=partitions, config=config)
            except LogError as error:
                if not world.faulted:
                    raise Violation("unfounded error", repr(error)) from error

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.rng.random())
            self.world.look()

    async def _jump(self, life: Life) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        while life.jump_rate:
            await asyncio.sleep(self.rng.random() * 2)
            if self.rng.random() < life.jump_rate:
                duration_ms = self.rng.choice((100, 7000, 60_000, 600_000, 86_400_000))
                self.world.note("jump", duration_ms)
                loop.jump(duration_ms)

    async def _close(self) -> None:
        closing = asyncio.ensure_future(self.world.log.close())
        if not await self.world.in_time([closing]):
            raise Violation("stuck", "close does not end")
        try:
            closing.result()
        except LogError as error:
            self.world.note("not closed well", error)
            if isinstance(error, StorageError) and not self.world.faulted:
                raise Violation("unfounded error", repr(error)) from error
        else:
            self.world.note("closed")
            cleaned = self.world.log._broker.cleaner.stats()
            self.world.count["segments deleted by retention"] += cleaned.segments_deleted
            self.world.count["compactions"] += cleaned.compactions
            self.world.count["records compacted away"] += cleaned.records_removed

    # Between lives

    def _next_disk(self, life: Life, stopped: bool) -> None:
        disk, world = self.disk, self.world
        if stopped and life.end == "crash":
            modes: tuple[Contents, ...] = ("mixed", "dropped", "kept", "mixed")
            contents = self.rng.choice(modes)
            entries: Entries = self.rng.choice(("mixed", "dropped"))
            seed = self.rng.getrandbits(32)
            after = disk.after_crash(contents, entries, seed=seed)
            self.disk = Disk(root=after.root)
            world.count["power losses"] += 1
            if world.plan.durability == "os":
                world.exact = False
        else:
            self.disk = Disk(root=disk.restart().root)

    # Checks

    def _check(self, snapshot: Snapshot, *, opened: bool = False) -> None:
        world = self.world
        history = world.history
        if opened and not world.exact:
            forgive(history, snapshot)
        exact = world.exact and world.plan.offsets_retention_ms is None
        case = Case(
            history,
            snapshot,
            world.rules,
            world.clock.wall_ms(),
            chain=(CHAIN_GROUP, IN, OUT) if exact and opened else None,
            steady_groups=(STEADY_GROUP, AUTO_GROUP) if exact and opened else (),
            unwatched_groups=(AUTO_GROUP,),
            offsets_retention_ms=world.plan.offsets_retention_ms,
        )
        if opened:
            settle(case)
        check(case)
        world.count["checks"] += 1

    # Calm

    def _calm(self) -> None:
        world = self.world
        world.calm = True
        life = Life("close", 0, 0, 0.0, 0.0, None, 0, 1000)
        self._arm(life)
        world.life, world.faulted, world.bounds = life, False, {}
        before = run(lambda: self._calm_life(), self.rng.getrandbits(32))
        world.everything_is_over()
        self._next_disk(life, stopped=False)
        kept = self.disk.after_crash("dropped", "dropped")
        self.disk = Disk(root=kept.root)
        self._arm(life)
        after = run(lambda: self._look_again(), self.rng.getrandbits(32))
        if before != after:
            raise Violation("a clean stop", f"changed what is there: {before} to {after}")

    async def _calm_life(self) -> Any:
        world = self.world
        world.clock = SimClock(world.wall_ms)
        log = await self._open()
        assert log is not None
        await self._have_topics()
        self._check(await read_log(log, GROUPS), opened=True)
        try:
            async with asyncio.timeout(OPERATION_MS_MAX / 1000):
                await everybody_comes_to_the_end(world)
                await consumers_see_what_is_there(world)
        except TimeoutError:
            raise Violation("stuck", "the work does not end though nothing disturbs it") from None
        world.look()
        snapshot = await read_log(log, GROUPS)
        for partition, found in snapshot.partitions.items():
            if found.last_stable_offset != found.log_end_offset:
                raise Violation("undecided", f"{partition}: a transaction never ends: {found}")
        world.everything_is_over()
        self._check(snapshot, opened=True)
        await self._close()
        self._nothing_is_left()
        self._verify()
        world.wall_ms = world.clock.wall_ms()
        return self._comparable(snapshot)

    def _comparable(self, snapshot: Snapshot) -> Any:
        """What the cleaner leaves alone."""
        kept = {
            partition: (each.log_end_offset, each.batches)
            for partition, each in snapshot.partitions.items()
            if not (
                self.world.rules[partition.topic].ages or self.world.rules[partition.topic].compacts
            )
        }
        expire = self.world.plan.offsets_retention_ms is not None
        return kept, {} if expire else snapshot.groups

    def _verify(self) -> None:
        """A log that was closed is sound, file by file."""
        self.disk.on_operation = None
        found = [each for each in verify_log(self.disk, FOLDER) if each.severity == "error"]
        if found:
            raise Violation("verify", str(found))

    async def _look_again(self) -> Any:
        world = self.world
        world.clock = SimClock(world.wall_ms)
        log = await self._open()
        assert log is not None
        snapshot = await read_log(log, GROUPS)
        self._check(snapshot, opened=True)
        await self._close()
        self._nothing_is_left()
        return self._comparable(snapshot)


async def _until(tasks: list[asyncio.Task[None]], ending: Any) -> None:
    """Until the time is over or all are done; an actor that failed ends it too."""
    timer = asyncio.ensure_future(ending)
    pending = {*tasks, timer}
    try:
        while len(pending) > 1 and not timer.done():
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if any(task is not timer and task.exception() is not None for task in done):
                return
    finally:
        timer.cancel()


def simulate(seed: int) -> Counter[str]:
    """Run one seed; see `Simulation.run`."""
    gc_was_on = gc.isenabled()
    gc.disable()  # the objects of a run die with it: looking for cycles on the way is a third of it
    try:
        return Simulation(seed).run()
    finally:
        if gc_was_on:
            gc.enable()
