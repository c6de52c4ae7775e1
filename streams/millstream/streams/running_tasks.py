"""The tasks a worker runs, each with its stores, its inputs and what waits to be processed.

Tasks come and go with the partitions the group assigns. One is opened in this order: stores from
their folders, restore from the changelogs, stream time from the committed offsets, then the task.
When it is closed, everything that is not committed is forgotten.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import fields
from typing import NamedTuple

from millstream.log.record import OffsetAndMetadata, RecordBatch, TopicPartition

from .counters import TaskCounters
from .intake import Intake
from .restore import StoreInLog, restore_stores
from .run_context import RunContext
from .state import KeyValueStore, Store, WindowStore
from .state_thread import StateThread
from .task import Task
from .topology import StoreSpec, SubTopology, Topology, changelog_topic

__all__ = ["RunningTask", "RunningTasks", "offset_metadata", "stream_time_of"]

_METADATA_PREFIX = '{"stream_time":'


def offset_metadata(stream_time: int) -> str:
    """What is committed beside an offset.

    Stream time may have been moved by an idle time-out or the end of the input; it decides which
    records are late, so a restart has to know it.
    """
    return f"{_METADATA_PREFIX}{stream_time}}}"


def stream_time_of(committed: Iterable[OffsetAndMetadata | None]) -> int:
    """The stream time in the metadata of a task's offsets; -1 where there is none."""
    notes = (offset.metadata for offset in committed if offset is not None)
    return max(
        (
            int(note.removeprefix(_METADATA_PREFIX).removesuffix("}"))
            for note in notes
            if note.startswith(_METADATA_PREFIX)
        ),
        default=-1,
    )


class RunningTask:
    """A task and what belongs to it.

    `inputs` are named as in the log, in the order of the sub-topology's sources. `is_dirty` says
    whether anything happened since the last commit, `active_ms` when the last record came
    (monotonic), and `stream_time_then` the stream time at that moment.
    """

    def __init__(
        self, part: _Part, task: Task, intake: Intake, *, now_ms: int, stream_time: int
    ) -> None:
        self.subtopology = part.subtopology
        self.partition = part.number
        self.inputs = part.inputs
        self.stores = part.stores
        self.task = task
        self.intake = intake
        self.is_dirty = False
        self.active_ms = now_ms
        self.stream_time_then = stream_time

    @property
    def dirty_entries(self) -> int:
        """Entries in the overlays of the stores."""
        return sum(store.dirty_entries for store in self.stores.values())


class _Part(NamedTuple):
    """What will be a task as soon as its stores are restored."""

    subtopology: SubTopology
    number: int
    inputs: tuple[TopicPartition, ...]
    stores: Mapping[str, Store]


class RunningTasks:
    """All tasks of a worker, by the partitions they read."""

    def __init__(
        self,
        context: RunContext,
        global_stores: Mapping[str, KeyValueStore],
        thread: StateThread,
    ) -> None:
        self._context = context
        self._global_stores = global_stores
        self._thread = thread
        self._by_input: dict[TopicPartition, RunningTask] = {}
        self._intakes: dict[str, Intake] = {}
        self._closed = TaskCounters()
        self.restored_records = 0

    def __iter__(self) -> Iterator[RunningTask]:
        """Every task once."""
        return iter({id(task): task for task in self._by_input.values()}.values())

    @property
    def intakes(self) -> list[Intake]:
        return list(self._intakes.values())

    def counters(self) -> TaskCounters:
        """What the tasks counted, closed ones included."""
        total = TaskCounters()
        for counters in [self._closed, *(running.task.counters for running in self)]:
            _add(total, counters)
        return total

    def reading(self, partitions: Collection[TopicPartition]) -> list[RunningTask]:
        """The tasks that read any of these partitions."""
        return [task for task in self if not set(partitions).isdisjoint(task.inputs)]

    def of(self, batch: RecordBatch) -> RunningTask:
        """The task a fetched batch is for."""
        return self._by_input[TopicPartition(batch.topic, batch.partition)]

    def has(self, partition: TopicPartition) -> bool:
        """Whether a task reads this partition."""
        return partition in self._by_input

    async def open(self, committed: Mapping[TopicPartition, OffsetAndMetadata | None]) -> None:
        """Open the tasks of newly assigned partitions, given what is committed of these.

        Raises:
            StateStoreError: a store cannot be opened, read or written.
        """
        parts: list[_Part] = []
        for subtopology in self._context.topology.subtopologies:
            names = [self._context.names.in_log(source) for source in subtopology.sources]
            for number in sorted({partition.partition for partition in committed}):
                candidates = [TopicPartition(name, number) for name in names]
                inputs = tuple(partition for partition in candidates if partition in committed)
                if inputs:
                    stores = {s.name: self._store(s, number) for s in subtopology.stores}
                    parts.append(_Part(subtopology, number, inputs, stores))
        try:
            await self._restore(parts)
        except BaseException:  # a cancelled start, too, must not leave databases open
            await self._close_stores(store for part in parts for store in part.stores.values())
            raise
        for part in parts:
            offsets = [committed[partition] for partition in part.inputs]
            running = self._start(part, stream_time_of(offsets))
            running.intake.open(running.inputs)
            self._by_input.update(dict.fromkeys(running.inputs, running))

    async def close(self, closed: Collection[RunningTask]) -> None:
        """Close tasks. What is not committed is forgotten; what is, is flushed to the disk, so that
        the next to open them has nothing to restore."""
        for running in closed:
            self._forget(running)
        await self._close_stores(store for task in closed for store in task.stores.values())

    async def _close_stores(self, stores: Iterable[Store]) -> None:
        backings = [store.backing for store in stores if store.backing.blocking]
        async with AsyncExitStack() as stack:
            for backing in backings:
                stack.push_async_callback(self._thread.run, backing.close)
            for backing in backings:
                await self._thread.run(backing.flush)

    def _start(self, part: _Part, stream_time: int) -> RunningTask:
        context = self._context
        task = Task(
            context.topology,
            part.subtopology,
            part.number,
            part.stores,
            self._global_stores,
            context.app.settings,
            stream_time=stream_time,
        )
        return RunningTask(
            part,
            task,
            self._intake(part.subtopology, part.number),
            now_ms=context.clock.monotonic_ms(),
            stream_time=stream_time,
        )

    def _store(self, spec: StoreSpec, number: int) -> Store:
        kind = KeyValueStore if spec.kind == "kv" else WindowStore
        return kind(
            spec.name,
            self._context.directory.backing(spec.name, number),
            spec.value_serde.serialize,
            spec.value_serde.deserialize,
            partition=number,
            logged=spec.logged,
        )

    def _intake(self, subtopology: SubTopology, number: int) -> Intake:
        """Tasks of their own choose by themselves; tasks whose order matters downstream,
        together."""
        grace_ms = grace_downstream_ms(self._context.topology, subtopology)
        key = f"{subtopology.id}" if grace_ms is not None else f"{subtopology.id}_{number}"
        if key not in self._intakes:
            self._intakes[key] = Intake(slack_ms=0 if grace_ms is None else grace_ms // 2)
        return self._intakes[key]

    async def _restore(self, parts: Collection[_Part]) -> None:
        app_id = self._context.app_id
        stores = [
            StoreInLog(store, TopicPartition(changelog_topic(app_id, name), part.number))
            for part in parts
            for name, store in part.stores.items()
            if store.logged
        ]
        if stores:
            self.restored_records += await restore_stores(
                self._context.log,
                stores,
                self._thread,
                wall_ms=self._context.clock.wall_ms,
                progress=self._context.progress,
            )

    def _forget(self, running: RunningTask) -> None:
        _add(self._closed, running.task.counters)
        running.intake.close(running.inputs)
        for partition in running.inputs:
            del self._by_input[partition]
        self._intakes = {key: intake for key, intake in self._intakes.items() if intake.inputs}


def grace_downstream_ms(topology: Topology, subtopology: SubTopology) -> int | None:
    """The shortest grace of the windows that get this sub-topology's records through a topic.

    None when there are no such windows. Tasks of a sub-topology read their partitions at their own
    pace, one perhaps a month ahead of another; in a topic that all of them write, records would
    then lie so far out of order that windows drop them as late. So such tasks are kept together in
    event time (`Intake`), closer than the grace."""
    reached = {subtopology.id}
    graces: list[int] = []
    for later in topology.subtopologies:
        if later.id not in reached and not reached.isdisjoint(later.upstream):
            reached.add(later.id)
            graces += [spec.window.grace_ms for spec in later.stores if spec.window is not None]
    return min(graces, default=None)


def _add(total: TaskCounters, more: TaskCounters) -> None:
    for counter in fields(TaskCounters):
        setattr(total, counter.name, getattr(total, counter.name) + getattr(more, counter.name))
