"""The file source: JSON Lines and CSV files, plain or gzip, into a topic, exactly once.

Source partition: `{"file": absolute path}`. Source offset: `{"record", "line", "position"}`
behind the last record, `position` in unpacked bytes. It is committed with the records, so a
restart goes on at the exact record; a gzip file is unpacked again up to there.

What blocks (reading, unpacking, parsing) runs in one thread the task owns.
"""

from __future__ import annotations

import asyncio
import glob
import logging
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from millstream.connect import (
    FatalConnectError,
    SourceBatch,
    SourceConnector,
    SourceContext,
    SourceOffset,
    SourceTask,
    TaskConfig,
)

from .config import FileSourceConfig
from .reader import FileReader

__all__ = ["FileSource", "FileSourceTask"]

T = TypeVar("T")

logger = logging.getLogger("millstream.connectors.files")


class FileSource(SourceConnector[FileSourceConfig]):
    """Reads files into a topic.

    FileSource("flights-file", path="flights.csv.gz", topic="flights", null="NA",
               columns={"dep_delay": int}, key="carrier", timestamp="time_hour")
    """

    config_class = FileSourceConfig

    def task_configs(self, tasks_max: int) -> Sequence[TaskConfig]:
        """Files are dealt out by their path, so that a new file moves no other."""
        return [{"task": number, "tasks": tasks_max} for number in range(tasks_max)]

    def create_task(self, task_config: TaskConfig) -> FileSourceTask:
        return FileSourceTask(self.config, task_config)


class FileSourceTask(SourceTask):
    """Reads its files one after the other, in order of their names."""

    def __init__(self, config: FileSourceConfig, task_config: TaskConfig) -> None:
        self._config = config
        self._task = int(task_config.get("task", 0))
        self._tasks = int(task_config.get("tasks", 1))
        self._thread: ThreadPoolExecutor | None = None
        self._reader: FileReader | None = None
        self._ends: dict[str, SourceOffset] = {}
        self._sizes_bytes: dict[str, int] = {}
        self._waiting: list[str] = []
        self._warned = False

    async def start(self, context: SourceContext) -> None:
        self._context = context
        self._tail = self._config.follow and not context.until_end
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"connect-{context.connector}")
        await self._in_thread(self._find_files)

    async def poll(self) -> SourceBatch | None:
        return await self._in_thread(self._read_next)

    async def stop(self) -> None:
        if self._thread is not None:
            await self._in_thread(self._close_reader)
            self._thread.shutdown(wait=False)

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _find_files(self) -> None:
        """Queue the files that have grown since they were last queued. Blocks."""
        found = _matches(self._config.path)
        for path in found:
            if zlib.crc32(path.encode()) % self._tasks == self._task:
                size_bytes = Path(path).stat().st_size
                if self._sizes_bytes.get(path, -1) < size_bytes:
                    self._sizes_bytes[path] = size_bytes
                    self._waiting.append(path)
        if not found:
            self._no_files()

    def _no_files(self) -> None:
        message = f"no file matches {self._config.path!r} (looked in {Path.cwd()})"
        if not self._tail:
            raise FatalConnectError(f"{message}; mend `path`, or put the file there")
        if not self._warned:
            logger.warning("%s; waiting for it", message)
            self._warned = True

    def _read_next(self) -> SourceBatch | None:
        """The next batch of any file; None when all are read to their end. Blocks."""
        if not self._waiting and self._reader is None and self._tail:
            self._find_files()
        while self._reader is not None or self._waiting:
            if self._reader is None:
                self._reader = self._open(self._waiting.pop(0))
            batch = self._reader.read()
            if batch is not None:
                self._ends[self._reader.path] = batch.end
                return batch
            self._close_reader()
        return None

    def _open(self, path: str) -> FileReader:
        committed = self._ends.get(path) or self._context.offset({"file": path})
        try:
            return FileReader(
                path,
                self._config,
                committed,
                size_bytes_max=self._context.record_size_bytes_max,
                tail=self._tail,
            )
        except OSError as error:
            raise FatalConnectError(
                f"{path} cannot be opened: {error.strerror}; mend it and start again"
            ) from error

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


def _matches(pattern: str) -> list[str]:
    """The files a path or pattern stands for, absolute, in order of their names."""
    paths = [pattern]
    if not Path(pattern).is_file():
        paths = glob.glob(pattern, recursive=True)  # noqa: PTH207 - Path.glob takes no absolute one
    return sorted(str(Path(path).absolute()) for path in paths if Path(path).is_file())
