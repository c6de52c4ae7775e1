"""A whole log whose files were damaged: it opens or refuses, it never breaks."""

from __future__ import annotations

import asyncio
from functools import cache

import orjson

from fuzz.stored import with_checksums
from millstream.log import Log, TopicPartition
from millstream.log.cli.dumping import Dumping, files_in
from millstream.log.errors import LogError
from millstream.log.open import open_log_on
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.storage.verify import verify_log
from shared.damage import contents_of, files_with

STEP_BYTES = 8
STEPS_MAX = 12
IN = TopicPartition("in", 0)
CONFIG = {"flush.threads": 0}
SMALL = {"segment.bytes": 1024, "index.interval.bytes": 200}


def opened(data: bytes) -> list[str]:
    """Damage a log as `data` says, open it, read it, write to it, close it; open it again.

    Returns the names of the errors that were raised, all of which must be documented ones.
    """
    files = damaged(data)
    errors: list[str] = []
    nobody_asked_for: list[dict[str, object]] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: nobody_asked_for.append(context)
        )
        for _ in range(2):
            try:
                async with asyncio.timeout(20):
                    async with open_log_on(files, "log", config=CONFIG) as log:
                        await _use(log, errors)
            except LogError as error:
                errors.append(f"{type(error).__name__}: {error}")
        assert asyncio.all_tasks() == {asyncio.current_task()}, "a task is left"

    asyncio.run(main())
    assert nobody_asked_for == []
    assert not files._locks, "the folder stayed locked"
    return errors


def verified(data: bytes) -> list[str]:
    """What `verify_log` finds; it reads, and writes nothing."""
    files = damaged(data)
    before = contents_of(files)
    found = list(verify_log(files, "log", records=True))
    assert contents_of(files) == before, "it wrote"
    assert data or not found, found
    return [str(each) for each in found]


def dumped(data: bytes) -> None:
    """All that `millstream log dump` shows, which must be JSON."""
    files = damaged(data)
    for path in files_in(files, "log"):
        for entry in Dumping(files, records=True, decode=True).entries(path):
            orjson.dumps(entry)


async def _use(log: Log, errors: list[str]) -> None:
    """Every kind of call, each on its own: the rest of the log goes on working."""
    for call in (_read, _look_up, _write, _transact, _delete, _clean):
        try:
            await call(log)
        except LogError as error:
            errors.append(f"{type(error).__name__}: {error}")


async def _read(log: Log) -> None:
    for isolation in ("read_committed", "read_uncommitted"):
        async with log.consumer(isolation=isolation) as consumer:
            topics = [name for name in await log.topics() if not name.startswith("__")]
            for topic in topics[:3]:
                count = min((await log.describe_topic(topic)).partitions, 3)
                await consumer.assign([TopicPartition(topic, number) for number in range(count)])
                while await consumer.poll_batches(0):
                    pass


async def _look_up(log: Log) -> None:
    await log.group_offsets("app")
    await log.offsets_for_time({IN: 0})
    await log.offsets_for_time({IN: 1 << 62})
    await log.end_offsets([IN])


async def _write(log: Log) -> None:
    async with log.producer(config={"linger.ms": 0}) as producer:
        await producer.send("in", b"more")
        await producer.send_batch("out", [b"more"] * 3)


async def _transact(log: Log) -> None:
    async with log.producer(transactional_id="app") as producer:
        async with producer.transaction():
            await producer.send_batch("out", [b"in a transaction"])
            await producer.send_offsets({IN: 1}, group="app")


async def _delete(log: Log) -> None:
    await log.delete_records({IN: 2})


async def _clean(log: Log) -> None:
    """Retention and compaction, now."""
    await log._broker.cleaner.run_once()


@cache
def whole() -> dict[str, bytes]:
    """The files of a log that was closed cleanly, by their paths."""
    files = MemoryFiles()

    async def fill() -> None:
        async with open_log_on(files, "log", config=CONFIG) as log:
            await log.create_topic("in", config=SMALL)
            await log.create_topic("out", config=SMALL)
            await log.create_topic("keyed", config=SMALL | {"cleanup.policy": "compact"})
            for number in range(3):
                async with log.producer(config={"linger.ms": 0}) as producer:
                    for _ in range(3):
                        await producer.send("in", b"%d" % number * 150)
                        await producer.send("keyed", b"%d" % number * 150, key=b"%d" % number)
            async with log.producer(transactional_id="app") as producer:
                for number in range(3):
                    await producer.begin_transaction()
                    await producer.send_batch("out", [b"%d" % number * 150] * 2)
                    await producer.send_offsets({IN: number + 1}, group="app")
                    await (producer.abort_transaction, producer.commit_transaction)[number % 2]()
            await log.alter_group_offsets("plain", {IN: 3})
            await log.delete_records({IN: 1})

    asyncio.run(fill())
    return contents_of(files)


def _order(path: str) -> tuple[bool, str]:
    """Files of topics last: a short input reaches what the log as a whole stands on."""
    return path.count("/") > 1, path


def damaged(data: bytes) -> MemoryFiles:
    """Steps of eight bytes: which file, what to do to it, where (2 bytes), four bytes to do it
    with."""
    contents = dict(whole())
    for start in range(0, min(len(data), STEP_BYTES * STEPS_MAX), STEP_BYTES):
        step = data[start : start + STEP_BYTES].ljust(STEP_BYTES, b"\x00")
        paths = sorted(contents, key=_order)
        path = paths[step[0] % len(paths)]
        content = contents.pop(path)
        position = int.from_bytes(step[2:4], "big") % (len(content) + 1)
        changed = _change(content, step[1], position, step[4:])
        if step[1] % 9 == 7:
            path = paths[step[4] % len(paths)]  # one file in the place of another
        if changed is not None:
            contents[path] = changed
    return files_with(contents)


def _change(content: bytes, kind: int, position: int, with_bytes: bytes) -> bytes | None:
    before, after = content[:position], content[position:]
    changes = {
        0: lambda: before + with_bytes + after[4:],
        1: lambda: before,
        2: lambda: before + bytes(len(after)),
        3: lambda: before + with_bytes * 20 + after,
        4: lambda: None,
        5: lambda: before + bytes([with_bytes[0] ^ (after or b"\x01")[0]]) + after[1:],
        6: lambda: with_checksums(before + with_bytes + after[4:]),
        7: lambda: content,
        8: lambda: before + after * 2,
    }
    return changes[kind % 9]()
