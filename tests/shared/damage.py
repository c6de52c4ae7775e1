"""Logs with everything in them, on a disk in memory, and ways to damage their files."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from millstream.log import TopicPartition
from millstream.log.open import open_log_on
from millstream.log.storage.files import write_file
from millstream.log.storage.findings import Finding
from millstream.log.storage.memory_files import MemoryFile, MemoryFiles, MemoryFolder
from millstream.log.storage.verify import verify_log
from shared.log_sweep import CONFIG, FOLDER, SMALL_SEGMENTS, Promises, workload

__all__ = [
    "FOLDER",
    "contents_of",
    "copy_of",
    "errors",
    "files_of",
    "files_with",
    "whole_log",
]


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


def contents_of(files: MemoryFiles) -> dict[str, bytes]:
    """Every file and what it holds."""
    return {path: bytes(node.content) for path, node in files_of(files)}


def files_with(contents: dict[str, bytes]) -> MemoryFiles:
    """A disk with these files."""
    files = MemoryFiles()
    for path, content in contents.items():
        *folders, _ = path.split("/")
        for depth in range(1, len(folders) + 1):
            if not files.exists("/".join(folders[:depth])):
                files.make_dir("/".join(folders[:depth]))
        write_file(files, path, content)
    return files


def copy_of(files: MemoryFiles) -> MemoryFiles:
    """Another disk with the same content."""
    return files_with(contents_of(files))


def errors(files: MemoryFiles) -> list[Finding]:
    """What verify calls damage."""
    return [each for each in verify_log(files, FOLDER) if each.severity == "error"]
