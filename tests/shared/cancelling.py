"""A call that is cancelled at its k-th await, for every k: what must hold afterwards.

`early`: the cancellation comes as soon as the call waits. `late`: what it waited for has happened,
and the cancellation comes before the call goes on.

Afterwards the same call works, and every other; the log closes with nothing left behind; and what
was acknowledged, before, during and after, is there when it is opened again.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Literal, NamedTuple

from millstream.log import Log
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.testing.sim_files import SimFiles
from millstream.log.testing.sim_loop import run
from shared import error_workload as calls
from shared.error_sweep import SEED, CountedFiles, opened, run_strictly
from shared.error_workload import Told, check
from shared.sweeping import distinct, noting

When = Literal["early", "late"]
Call = Callable[[Log, Told, int], Awaitable[object]]


class CancelledAt:
    """Awaits a coroutine and cancels it at its k-th await; `awaits` counts those it came to."""

    def __init__(self, coroutine: Coroutine[Any, Any, object], k: int, when: When) -> None:
        self._coroutine, self._k, self._when = coroutine, k, when
        self.awaits = 0

    def __await__(self) -> Generator[Any, Any, object]:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        thrown: BaseException | None = None
        while True:
            try:
                if thrown is None:
                    waited_for = self._coroutine.send(None)
                else:
                    waited_for = self._coroutine.throw(thrown)
            except StopIteration as ended:
                return ended.value
            self.awaits += 1
            is_due = self.awaits == self._k
            if is_due and self._when == "early":
                loop.call_soon(task.cancel)
            try:
                thrown = None
                yield waited_for
            except BaseException as raised:  # noqa: BLE001 - handed on to the coroutine
                thrown = raised
            if is_due and self._when == "late" and thrown is None:
                thrown = asyncio.CancelledError()


async def _sends_at_once(log: Log, told: Told, number: int) -> None:
    """Many sends of one producer wait for one batch."""
    sent, acknowledged = (
        told.sent.setdefault("other", []),
        told.acknowledged.setdefault("other", []),
    )
    async with log.producer() as producer:
        values = [b"%d at once %d" % (number, row) for row in range(4)]
        sent += values
        found = await asyncio.gather(
            *(producer.send("other", value, partition=0) for value in values)
        )
        acknowledged += [
            (metadata.offset, value) for metadata, value in zip(found, values, strict=True)
        ]


async def _two_members(log: Log, told: Told, number: int) -> None:
    """A consumer that joins while another one is there, reads, commits and leaves."""
    async with log.consumer("in", "other", group="two") as first:
        await first.poll(0)
        async with log.consumer("in", "other", group="two") as second:
            for _ in range(3):
                await second.poll(100)
                await first.poll(100)
            await second.commit()


async def _wait_for_records(log: Log, told: Told, number: int) -> None:
    async with log.consumer("old") as consumer:
        while await consumer.poll(10):
            pass
        await consumer.poll(2000)


CALLS: dict[str, Call] = {
    "create topics": lambda log, told, _: calls.create_topics(log, told),
    "produce": lambda log, told, number: calls.produce(log, told, "in", number, 3),
    "sends at once": _sends_at_once,
    "transact": lambda log, told, number: calls.transact(log, told, number, commit=True),
    "abort": lambda log, told, number: calls.transact(log, told, number, commit=False),
    "consume in a group": lambda log, *_: calls.consume(log),
    "two members": _two_members,
    "wait for records": _wait_for_records,
    "commit offsets": lambda log, told, number: calls.commit_offsets(log, told, number),
    "make and delete a topic": lambda log, *_: calls.short_lived(log),
    "alter": lambda log, *_: log.alter_topic("other", config={"retention.ms": 10**10}),
    "add partitions": lambda log, _, number: calls.more_partitions(log, number),
}


class Found(NamedTuple):
    """How the cancelled call ended."""

    awaits: int
    outcome: Literal["cancelled", "done"]


def cancel_call(name: str, k: int, when: When) -> Found:
    """Cancel this call at its k-th await, go on, close; then judge what is on the disk."""
    files, told = CountedFiles(on_operation=None), Told()
    results: list[Found] = []

    async def main() -> None:
        log = opened(files)
        async with log:
            if name != "create topics":
                await calls.create_topics(log, told)
                await calls.produce(log, told, "in", 0, 4)
                await calls.transact(log, told, 0, commit=True)
            results.append(await _cancelled(CALLS[name](log, told, 10), k, when))
            await CALLS[name](log, told, 20)
            await calls.create_topics(log, told)
            await calls.transact(log, told, 30, commit=True)
            await calls.produce(log, told, "other", 30, 2)
            await calls.consume(log)
            await check(log, told)
        _check_nothing_is_left(files)

    _judged(main, files, told)
    return results[0]


def cancel_open(k: int, when: When) -> Found:
    """Cancel the opening of a log that has to be recovered, then open it."""
    files, told = _used()
    files = files.killed()
    results: list[Found] = []

    async def main() -> None:
        log = opened(files)
        results.append(await _cancelled(log.__aenter__(), k, when))
        if results[0].outcome == "cancelled":
            _check_nothing_is_left(files)
        async with log:
            await calls.produce(log, told, "other", 30, 2)
            await calls.transact(log, told, 30, commit=True)
        _check_nothing_is_left(files)

    _judged(main, files, told)
    return results[0]


def cancel_close(k: int, when: When) -> Found:
    """Cancel the closing of a log with producers and consumers at work, then close it."""
    files, told = CountedFiles(on_operation=None), Told()
    results: list[Found] = []

    async def main() -> None:
        log = await _begun(files, told)
        results.append(await _cancelled(log.close(), k, when))
        await log.close()
        _check_nothing_is_left(files)

    _judged(main, files, told)
    return results[0]


async def _begun(files: SimFiles, told: Told) -> EmbeddedLog:
    """A log with an open transaction, a member of a group, and records on their way."""
    log = opened(files)
    await log.__aenter__()
    await calls.create_topics(log, told)
    await calls.produce(log, told, "in", 0, 4)
    await calls.transact(log, told, 0, commit=True)
    consumer = log.consumer("in", group="readers")
    await consumer.poll(100)
    producer = log.producer(transactional_id="open")
    await producer.begin_transaction()
    await producer.send_batch("out", [b"99/0"], partition=0)
    await log.producer().send_batch("old", [b"on its way"] * 3)
    return log


def _used() -> tuple[CountedFiles, Told]:
    """What a process leaves that was killed at work."""
    files, told = CountedFiles(on_operation=None), Told()

    async def main() -> None:
        await _begun(files, told)

    run(main, SEED)
    return files, told


async def _cancelled(call: Awaitable[object], k: int, when: When) -> Found:
    stepped = CancelledAt(call.__await__() if not asyncio.iscoroutine(call) else call, k, when)

    async def own() -> None:
        await stepped

    task = asyncio.get_running_loop().create_task(own())
    await asyncio.wait([task], timeout=calls.CALL_S)
    assert task.done(), "a cancelled call hangs"
    if task.cancelled():
        return Found(stepped.awaits, "cancelled")
    task.result()
    return Found(stepped.awaits, "done")


def _check_nothing_is_left(files: CountedFiles) -> None:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks are left: {left}"
    assert not files.left_open(), files.left_open()
    assert not files._locks, "the folder is still locked"


def _judged(main: Callable[[], Coroutine[Any, Any, None]], files: SimFiles, told: Told) -> None:
    async def then_collect() -> None:
        await main()
        gc.collect()

    run_strictly(then_collect, SEED)
    for disk in distinct((files.after_crash("dropped", "dropped"), files.restart())):

        async def verify(disk: SimFiles = disk) -> None:
            async with opened(disk) as log:
                await check(log, told)

        run(verify, SEED)


def every_await(cancel: Callable[[int, When], Found], *, step: int = 1) -> int:
    """Cancel at every `step`th await, early and late. Returns how many were."""
    count = 0
    for when in ("early", "late"):
        k = 1
        while True:
            with noting(f"cancelled {when} at await {k}"):
                found = cancel(k, when)
            if found.awaits < k:
                break
            assert found.outcome == "cancelled", f"swallowed: {when}, await {k}"
            count, k = count + 1, k + step
    return count
