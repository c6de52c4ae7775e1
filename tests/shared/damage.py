"""Logs with everything in them, on a disk in memory, and ways to damage their files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from millstream.log import TopicPartition
from millstream.log.open import open_log_on
from millstream.log.storage.findings import Finding
from millstream.log.storage.memory_files import MemoryFile, MemoryFiles, MemoryFolder
from millstream.log.storage.verify import verify_log
from shared.log_sweep import CONFIG, FOLDER, SMALL_SEGMENTS, Promises, workload

__all__ = ["FOLDER", "copy_of", "errors", "files_of", "whole_log"]


def whole_log() -> MemoryFiles:
    """Segments, aborted transactions, committed offsets, deleted records; closed cleanly."""
    files = MemoryFiles()

    async def write() -> None:
        async with open_log_on(files, FOLDER, config=CONFIG) as log:
            await workload(log, Promises())
        async with open_log_on(files, FOLDER, config=CONFIG) as log:
            settings = {**SMALL_SEGMENTS, "index.interval.bytes": 100}
            await log.create_topic("indexed", config=settings)
            async with log.producer() as producer:
                for n in range(40):
                    values = [b"%d" % n + b"." * 60]
                    await producer.send_batch("indexed", values, timestamps=[1_000_000 + n])
                await producer.flush()
            await log.delete_records({TopicPartition("indexed", 0): 20})

    asyncio.run(write())
    return files


def files_of(files: MemoryFiles) -> Iterator[tuple[str, MemoryFile]]:
    """Path and file, of every file there is."""
    yield from _within(files.root, "")


def _within(folder: MemoryFolder, path: str) -> Iterator[tuple[str, MemoryFile]]:
    for name, node in sorted(folder.entries.items()):
        if isinstance(node, MemoryFolder):
            yield from _within(node, f"{path}{name}/")
        else:
            yield path + name, node


def copy_of(files: MemoryFiles) -> MemoryFiles:
    """Another disk with the same content."""
    copy = MemoryFiles()
    for path, node in files_of(files):
        folder = ""
        for name in path.split("/")[:-1]:
            folder += name
            if not copy.exists(folder):
                copy.make_dir(folder)
            folder += "/"
        copy.open(path, create=True).append(bytes(node.content))
    return copy


def errors(files: MemoryFiles) -> list[Finding]:
    """What verify calls damage."""
    return [each for each in verify_log(files, FOLDER) if each.severity == "error"]
