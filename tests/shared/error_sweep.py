"""The disk fails at one operation, or from it on, while a whole log works; reads fail too.

    first     a fresh log is opened, used, and closed
    second    it is opened again, used, and its process is killed
    third     it is opened once more, with recovery, used, and closed
    then      on a disk that works, what was promised is there

Time is simulated, so a call that hangs is a deadlock that is named, and waiting costs nothing.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Literal

from millstream.log.errors import LogError
from millstream.log.open import open_log_on
from millstream.log.storage.files import FileHandle
from millstream.log.storage.memory_files import MemoryFile
from millstream.log.testing.sim_files import Operation, SimFiles, SimHandle, disk_error
from millstream.log.testing.sim_loop import SimClock, SimDiskThreads, run
from shared.error_workload import Told, check, create_topics, work

__all__ = ["Fault", "Kind", "operations", "sweep"]

FOLDER = "log"
LOCK = "/.lock"
"""In memory it is held by its name, and its handle means nothing."""
Kind = Literal["EIO", "ENOSPC", "full"]
"""EIO: any operation, once. ENOSPC: one that writes, once. full: every one that needs room, from
one on, until the log is closed."""
NEED_ROOM = frozenset({"append", "create", "make_dir", "overwrite"})


class CountedHandle(SimHandle):
    """An open file that is missed when nobody closes it."""

    __slots__ = ("is_open",)

    def __init__(self, files: CountedFiles, path: str, file: MemoryFile) -> None:
        super().__init__(files, path, file)
        files.handles.append(self)
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def __repr__(self) -> str:
        return f"an open handle of {self._path}"


class CountedFiles(SimFiles):
    """A simulated disk that knows which files are open."""

    def __init__(self, *, on_operation: Callable[[Operation], OSError | None] | None) -> None:
        super().__init__(on_operation=on_operation)
        self.handles: list[CountedHandle] = []

    def _new_handle(self, path: str, file: MemoryFile) -> FileHandle:
        return CountedHandle(self, path, file)

    def killed(self) -> CountedFiles:
        """The same disk for the next process."""
        disk = CountedFiles(on_operation=self.on_operation)
        disk.root = self.root
        return disk

    def left_open(self) -> list[CountedHandle]:
        return [each for each in self.handles if each.is_open and LOCK not in repr(each)]


class Fault:
    """Lets operation `number` fail; counts over several processes."""

    def __init__(self, kind: Kind, number: int) -> None:
        self.kind, self.number = kind, number
        self.count = 0
        self.operation: Operation | None = None
        self.is_over = False

    def __call__(self, operation: Operation) -> OSError | None:
        if self.kind == "ENOSPC" and not operation.is_write:
            return None
        if self.kind == "full" and operation.kind not in NEED_ROOM:
            return None
        number, self.count = self.count, self.count + 1
        due = number == self.number or (self.kind == "full" and 0 <= self.number < number)
        if not due or self.is_over:
            return None
        self.operation = self.operation or operation
        return disk_error("EIO" if self.kind == "EIO" else "ENOSPC", operation.path)

    def mend(self) -> None:
        """The owner makes room, before the log is opened again."""
        self.is_over = self.operation is not None

    def __repr__(self) -> str:
        return f"{self.kind} at operation {self.number}: {self.operation}"


def opened(files: SimFiles):
    return open_log_on(files, FOLDER, clock=SimClock(), threads=SimDiskThreads)


async def session(
    files: CountedFiles, told: Told, fault: Fault, number: int, *, killed: bool
) -> None:
    """Open, use, close. A log that could not be opened can be, the next time."""
    log = opened(files)
    if not await told.attempt("open", log.__aenter__()):
        assert not files.left_open(), f"open failed and left {files.left_open()}"
        assert not files._locks, "open failed and left the folder locked"
        fault.mend()
        log = opened(files)
        assert await told.attempt("open again", log.__aenter__()), told.errors[-1]
    if number == 1 or not told.topics:
        await create_topics(log, told)
    await work(log, told, number)
    if killed:
        return
    await told.attempt("close", log.close())
    await told.attempt("close again", log.close())
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks are left: {left}"
    assert not files.left_open(), files.left_open()
    assert not files._locks, "the folder is still locked"
    del log
    gc.collect()  # what nobody awaited speaks up now, and not in another run


def run_strictly(main: Callable[[], Awaitable[None]], seed: int) -> None:
    """Run; what nobody awaited, and only the loop was told, fails the run too."""
    problems: list[str] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: problems.append(f"{context['message']}: {context}")
        )
        await main()

    run(watched, seed)
    assert not problems, problems


def run_with(fault: Fault, seed: int = 0) -> tuple[CountedFiles, Told]:
    """All three sessions under this fault."""
    files, told = CountedFiles(on_operation=fault), Told()
    run_strictly(lambda: session(files, told, fault, 1, killed=False), seed)
    fault.mend()
    files = files.killed()
    run(lambda: session(files, told, fault, 2, killed=True), seed)
    fault.mend()
    files = files.killed()
    run_strictly(lambda: session(files, told, fault, 3, killed=False), seed)
    return files, told


def judge(fault: Fault, files: CountedFiles, told: Told) -> None:
    """What was promised is there, after a kill and after a power loss."""
    files.on_operation = None
    for disk in (files.restart(), files.after_crash("dropped", "dropped")):

        async def verify(disk: SimFiles = disk) -> None:
            async with opened(disk) as log:
                await check(log, told)

        run(verify, 0)
    if fault.kind != "full" and fault.operation is not None:
        beside = [name for name, _ in told.errors if name == "elsewhere"]
        if "other" not in fault.operation.path:
            assert not beside, "a partition that had nothing to do with it stopped working"
        again = [name for name, _ in told.errors if name.endswith("again") and "create" in name]
        assert not again, "a topic could not be created on a disk that failed once"


def sweep(kind: Kind, *, step: int = 1, start: int = 0) -> int:
    """Every `step`th operation fails. Returns how many did."""
    number = start
    while True:
        fault = Fault(kind, number)
        try:
            files, told = run_with(fault, number)
            if fault.operation is None:
                return (number - start) // step
            judge(fault, files, told)
        except (AssertionError, LogError, OSError) as error:
            error.add_note(repr(fault))
            raise
        number += step


def operations(kind: Kind) -> int:
    """How many operations can fail."""
    fault = Fault(kind, -1)
    _, told = run_with(fault)
    assert not told.errors, told.errors
    return fault.count
