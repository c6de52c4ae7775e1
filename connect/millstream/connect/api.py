"""What a connector is: the classes to write one, and what its worker tells it.

A `Connector` is a name, checked settings, and a way to split the work into tasks. A `SourceTask` is
asked for records again and again; a `SinkTask` is given them. The worker (`source_worker`,
`sink_worker`) does the rest: converters, topics, transactions, offsets, dead letters, trying
again.

Life of a task: `start`, then `poll` or `put` many times, then `stop`. `stop` is called whenever
`start` was, also when that failed or the task is cancelled, and must not raise. After a retriable
failure the worker makes a new task, so a task never has to repair itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar

import orjson

from millstream.log import Log, TopicPartition

from .config import ConnectorConfig, setting, settings
from .converter import Converter, converter_for
from .records import (
    Progress,
    Rejection,
    SinkBatch,
    SourceBatch,
    SourceOffset,
    SourcePartition,
    SourceRecord,
)
from .status import TaskRun

__all__ = [
    "Connector",
    "PartitionState",
    "SinkConfig",
    "SinkConnector",
    "SinkContext",
    "SinkTask",
    "SourceConfig",
    "SourceConnector",
    "SourceContext",
    "SourceTask",
    "TaskConfig",
    "partition_key",
]

TaskConfig = Mapping[str, Any]
"""What one task is told about its share of the work: JSON values, made by `task_configs`."""

_CONVERTERS = "json, string, bytes, or a converter object"


@settings
class SourceConfig(ConnectorConfig):
    """Settings every source has."""

    topic: str = setting("The topic to write to. It is created when it does not exist.")
    partitions: int = setting(
        "How many partitions the topic gets when this connector creates it.", default=1, minimum=1
    )
    topic_config: dict[str, Any] = setting(
        "Topic settings (Kafka's names) used when this connector creates the topic. Without a "
        "retention.ms here it keeps its records for ever.",
        default={},
        type_name="table",
    )
    key_converter: Converter = setting(
        f"How record keys are written: {_CONVERTERS}.",
        default="string",
        parse=converter_for,
        type_name="converter",
    )
    value_converter: Converter = setting(
        f"How record values are written: {_CONVERTERS}.",
        default="json",
        parse=converter_for,
        type_name="converter",
    )
    producer_override: dict[str, Any] = setting(
        "Settings of the log's producer (Kafka's names), `compression.type` say.",
        default={},
        type_name="table",
    )
    poll_interval_ms: int = setting(
        "How long to wait after a poll that found nothing, in ms.", default=1000, minimum=1
    )


@settings
class SinkConfig(ConnectorConfig):
    """Settings every sink has."""

    topics: list[str] = setting(
        "The topics to read, also as `topic`.", aliases=("topic",), type_name="list of str"
    )
    key_converter: Converter = setting(
        f"How record keys are read: {_CONVERTERS}.",
        default="string",
        parse=converter_for,
        type_name="converter",
    )
    value_converter: Converter = setting(
        f"How record values are read: {_CONVERTERS}.",
        default="json",
        parse=converter_for,
        type_name="converter",
    )
    consumer_override: dict[str, Any] = setting(
        "Settings of the log's consumer (Kafka's names), `max.partition.fetch.bytes` say.",
        default={},
        type_name="table",
    )
    offset_flush_interval_ms: int = setting(
        "How often the group `connect-NAME` commits its offsets in the log, in ms.",
        default=1000,
        minimum=1,
    )


SourceConfigT_co = TypeVar("SourceConfigT_co", bound=SourceConfig, covariant=True)
SinkConfigT_co = TypeVar("SinkConfigT_co", bound=SinkConfig, covariant=True)
ConfigT_co = TypeVar("ConfigT_co", bound=ConnectorConfig, covariant=True)


def partition_key(partition: SourcePartition) -> bytes:
    """A source partition as the bytes it is known by: JSON with sorted names."""
    return orjson.dumps(dict(partition), option=orjson.OPT_SORT_KEYS)


class SourceContext:
    """What a worker tells a source task: who it is, and where to go on."""

    def __init__(
        self,
        connector: str,
        task_id: int,
        *,
        offsets: Mapping[bytes, SourceOffset],
        until_end: bool,
        record_size_bytes_max: int,
    ) -> None:
        self.connector = connector
        self.task_id = task_id
        self.until_end = until_end
        self.record_size_bytes_max = record_size_bytes_max
        """The topic's `max.message.bytes`: nothing longer can be written."""
        self._offsets = offsets

    def offset(self, partition: SourcePartition) -> SourceOffset | None:
        """The last committed offset of a source partition; None to begin at its beginning."""
        return self._offsets.get(partition_key(partition))


class SourceTask(ABC):
    """Reads from one share of a source."""

    @abstractmethod
    async def start(self, context: SourceContext) -> None:
        """Open what is needed. Called once, before anything else."""

    @abstractmethod
    async def poll(self) -> SourceBatch | Sequence[SourceRecord] | None:
        """The next records. What one poll returns is written in one transaction.

        It may wait for records. None or nothing says that there is no more at present: with
        `until_end` the source is at its end then, otherwise the worker asks again after
        `poll_interval_ms`.

        Raises:
            RetriableConnectError: the worker makes a new task and goes on behind what it committed.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Let everything go. Must not raise."""


class DeadLetterSink(Protocol):
    """Takes rejected records; written by the worker."""

    async def __call__(self, rejections: Sequence[Rejection]) -> None: ...


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What the log says about a partition when a sink opens it.

    `start_offset` is the first record still there, `end_offset` the high watermark. `topic_id`
    changes when a topic is deleted and created again, and differs between logs.
    """

    topic_id: str
    start_offset: int
    end_offset: int


class SinkContext:
    """What a worker tells a sink task, and what it does for it."""

    def __init__(
        self, connector: str, run: TaskRun, *, until_end: bool, dead_letters: DeadLetterSink
    ) -> None:
        self.connector = connector
        self.task_id = run.id
        self.until_end = until_end
        self._run = run
        self._dead_letters = dead_letters

    async def dead_letter(self, rejections: Sequence[Rejection]) -> None:
        """Write rejected records to the dead-letter topic; when it returns they are durable there.

        A record whose dead letter was written by an earlier run is left out, so calling this before
        committing the sink's own offsets writes each dead letter exactly once.

        Raises:
            FatalConnectError: `errors_tolerance` is `none`.
        """
        if rejections:
            await self._dead_letters(rejections)

    def skip(self, count: int) -> None:
        """Count records that mean nothing to this sink, tombstones say; they are delivered."""
        self._run.skipped += count


class SinkTask(ABC):
    """Delivers records of some partitions."""

    @abstractmethod
    async def start(self, context: SinkContext) -> None:
        """Open what is needed. Called once, before anything else."""

    async def open(
        self, partitions: Mapping[TopicPartition, PartitionState]
    ) -> Mapping[TopicPartition, int] | None:
        """Take over partitions, before their first records arrive.

        Returns:
            Where to read from, for a sink that keeps its offsets with its data (exactly once); None
            to go on at the offsets of the group `connect-NAME` (at least once).
        """
        return None

    @abstractmethod
    async def put(self, batches: Sequence[SinkBatch]) -> None:
        """Deliver these records, in order.

        Raises:
            RetriableConnectError: the worker makes a new task, which is given the records again.
        """

    async def flush(self) -> Mapping[TopicPartition, int] | None:
        """Make what was put durable and say which offsets are safe; None: all that was put."""
        return None

    @abstractmethod
    async def stop(self) -> None:
        """Let everything go. Must not raise."""


class Connector(ABC, Generic[ConfigT_co]):
    """A configured connector. It fits `app.source` and `app.sink`, and any worker.

    Raises (when made):
        ConnectConfigError: with every fault in the settings.
    """

    config_class: ClassVar[type[ConnectorConfig]]
    kind: ClassVar[Literal["source", "sink"]]
    version: ClassVar[str] = "0.1.0"

    config: ConfigT_co

    def __init__(self, name: str, /, **settings: Any) -> None:
        # Any: what config_class makes is a ConfigT_co, which a ClassVar cannot say.
        made: Any = self.config_class.from_settings(name, settings)
        self.config = made

    @property
    def name(self) -> str:
        """The connector's name: its offsets, group and transactional ids are derived from it."""
        return self.config.name

    def task_configs(self, tasks_max: int) -> Sequence[TaskConfig]:
        """Split the work: one entry for each task, at most `tasks_max`, at least one."""
        return [{}]

    async def run(self, log: Log, *, until_end: bool, progress: Progress | None = None) -> None:
        """Run all tasks in this event loop.

        With `until_end` it returns when the source is at its end, or the sink has delivered what
        was in its topics when it was called; without, it runs until cancelled. Cancelling leaves
        records and offsets consistent.

        Raises:
            ConnectError, LogError: a task failed; what it had committed stays.
        """
        from .worker import run_connector

        await run_connector(self, log, until_end=until_end, progress=progress)


class SourceConnector(Connector[SourceConfigT_co], Generic[SourceConfigT_co]):
    """A connector that writes records into the log."""

    kind = "source"

    @abstractmethod
    def create_task(self, task_config: TaskConfig) -> SourceTask:
        """A new task for one entry of `task_configs`."""


class SinkConnector(Connector[SinkConfigT_co], Generic[SinkConfigT_co]):
    """A connector that delivers records from the log.

    The partitions of its topics are dealt out to its tasks.
    """

    kind = "sink"

    def task_configs(self, tasks_max: int) -> Sequence[TaskConfig]:
        return [{} for _ in range(tasks_max)]

    @abstractmethod
    def create_task(self, task_config: TaskConfig) -> SinkTask:
        """A new task. All tasks of a sink are alike; they differ in their partitions."""
