"""The disk fails at one operation, or from it on, while a whole log works; reads fail too.

    first     a fresh log is opened, used, and closed
    second    it is opened again, used, and its process is killed
    third     it is opened once more, with recovery, used, and closed
    then      on a disk that works, what was promised is there

Each session begins where the one before ended without a failure; one operation of it fails.

Time is simulated, so a call that hangs is a deadlock that is named, and waiting costs nothing.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Literal, NamedTuple

from millstream.log.open import open_log_on
from millstream.log.storage.files import FileHandle
from millstream.log.storage.memory_files import MemoryFile
from millstream.log.testing.sim_files import Operation, SimFiles, SimHandle, disk_error
from millstream.log.testing.sim_loop import SimClock, SimDiskThreads, run
from shared.error_workload import Told, check, create_topics, work
from shared.sweeping import distinct, noting

__all__ = ["Fault", "Kind", "parts", "sweep"]

FOLDER = "log"
SEED = 0
LOCK = "/.lock"
"""In memory it is held by its name, and its handle means nothing."""
Kind = Literal["EIO", "ENOSPC", "full"]
"""EIO: any operation, once. ENOSPC: one that writes, once. full: every one that needs room, from
one on, until the log is closed."""
READING = {"consume", "look up"}
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
    """Lets operation `number` fail."""

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


SESSIONS = {1: False, 2: True, 3: False}
"""Number -> whether the process is killed at its end."""


class Start(NamedTuple):
    """Where a session begins when nothing has failed so far."""

    session: int
    files: CountedFiles
    told: Told

    def copy(self) -> Start:
        files = CountedFiles(on_operation=None)
        files.root = deepcopy(self.files.root)
        return Start(self.session, files, deepcopy(self.told))


class Part(NamedTuple):
    """A session, and how many of its operations can fail."""

    start: Start
    operations: int


def parts(kind: Kind) -> list[Part]:
    """The three sessions, run once on a disk that works."""
    found = []
    here = Start(1, CountedFiles(on_operation=None), Told())
    for number in SESSIONS:
        start = here.copy()
        fault = Fault(kind, -1)
        files = play(here._replace(session=number), fault)
        assert not here.told.errors, here.told.errors
        found.append(Part(start._replace(session=number), fault.count))
        here = Start(number, files.killed(), here.told)
    return found


def play(start: Start, fault: Fault) -> CountedFiles:
    """One session under this fault."""
    number, files, told = start
    files.on_operation = fault
    running = run if SESSIONS[number] else run_strictly
    running(lambda: session(files, told, fault, number, killed=SESSIONS[number]), SEED)
    fault.mend()
    return files


def judge(fault: Fault, files: CountedFiles, told: Told) -> None:
    """What was promised is there, after a kill and after a power loss."""
    files.on_operation = None
    for disk in distinct((files.after_crash("dropped", "dropped"), files.restart())):

        async def verify(disk: SimFiles = disk) -> None:
            async with opened(disk) as log:
                await check(log, told)

        run(verify, SEED)
    if fault.kind == "full":
        return
    failed = [name for name, _ in told.errors]
    assert fault.operation is not None
    assert "elsewhere" not in failed or "other" in fault.operation.path, (
        "a partition that had nothing to do with it stopped working"
    )
    assert not [name for name in failed if name.startswith("create") and name.endswith("again")]
    if not fault.operation.is_write and failed[:1] and failed[0] in READING:
        assert len(failed) == 1, f"one read failed, and then: {failed}"


def fail_at(part: Part, kind: Kind, number: int) -> None:
    """Let one operation of a session fail; after a kill, go on with the next session."""
    fault = Fault(kind, number)
    start = part.start.copy()
    with noting(f"session {start.session}"), noting(fault):
        files = play(start, fault)
        assert fault.operation is not None, "the run was not the same again"
        if start.session == 2:
            files = play(Start(3, files.killed(), start.told), fault)
        judge(fault, files, start.told)


def sweep(kind: Kind, *, step: int = 1, offset: int | None = None) -> int:
    """Every `step`th operation fails, from the one with number `offset` on (half a step), each in a
    run of its own. Returns how many did."""
    failed, number = 0, step // 2 if offset is None else offset
    gc.freeze()  # so that looking for what was forgotten looks at one run, and not at the process
    try:
        for part in parts(kind):
            while number < part.operations:
                fail_at(part, kind, number)
                failed, number = failed + 1, number + step
            number -= part.operations
    finally:
        gc.unfreeze()
    return failed
