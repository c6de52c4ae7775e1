"""The SQL sink: records into a table, exactly once.

The offsets lie in the database and change in the transaction of the rows; the database is what a
restart believes. The group `connect-NAME` in the log only shows the lag. All database work is
done in one thread that the task owns, and SQLAlchemy is imported there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from millstream.connect import (
    PartitionState,
    SinkBatch,
    SinkConnector,
    SinkContext,
    SinkTask,
    TaskConfig,
)
from millstream.log import TopicPartition

from .config import SqlSinkConfig

if TYPE_CHECKING:
    from .writer import SqlWriter

__all__ = ["SqlSink", "SqlSinkTask"]

T = TypeVar("T")


class SqlSink(SinkConnector[SqlSinkConfig]):
    """Writes topics to a table.

    SqlSink("daily-table", topic="carrier-daily", url="sqlite:///demo.db", table="carrier_daily",
            columns={"carrier": str, "day": str, "flights": int}, pk=["carrier", "day"])
    """

    config_class = SqlSinkConfig

    def create_task(self, task_config: TaskConfig) -> SqlSinkTask:
        return SqlSinkTask(self.config)


class SqlSinkTask(SinkTask):
    """Hands batches to the database thread, and dead letters to the worker before the commit."""

    def __init__(self, config: SqlSinkConfig) -> None:
        self._config = config
        self._writer: SqlWriter | None = None
        self._thread: ThreadPoolExecutor | None = None

    async def start(self, context: SinkContext) -> None:
        self._context = context
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"connect-{context.connector}")

    async def open(
        self, partitions: Mapping[TopicPartition, PartitionState]
    ) -> Mapping[TopicPartition, int]:
        return await self._in_thread(lambda: self._open(partitions))

    def _open(
        self, partitions: Mapping[TopicPartition, PartitionState]
    ) -> Mapping[TopicPartition, int]:
        from .writer import SqlWriter

        self._writer = SqlWriter(self._config)
        return self._writer.open(partitions)

    async def put(self, batches: Sequence[SinkBatch]) -> None:
        writer = self._writer
        assert writer is not None
        written = await self._in_thread(lambda: writer.write(batches))
        await self._context.dead_letter(written.rejections)
        await self._in_thread(writer.commit)
        self._context.skip(written.skipped)

    async def stop(self) -> None:
        if self._thread is not None:
            await self._in_thread(self._close)
            self._thread.shutdown(wait=False)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)
