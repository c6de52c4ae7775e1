"""TestDriver: an app run in the test itself: no log, no files, no threads, a clock of its own.

Records are processed one at a time, in the order they are sent, through repartition topics and over
several partitions, by the same tasks and stores as in a run; after each, everything is committed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Self

from millstream.log.format.partitioner import partition_for_key
from millstream.log.record import Headers, RecordBatch

from .app import App
from .build import sinks_of
from .counters import TaskCounters
from .errors import StreamsError
from .outputs import OutputColumns
from .queries import StoreView, spec_named
from .serde import Serde, serde_for
from .state import KeyValueStore, MemoryBacking, Store, WindowStore
from .task import Task
from .topics import Topic
from .topology import StoreSpec, SubTopology, Topology, dead_letter_topic
from .windows import Duration, duration_ms

__all__ = ["TestDriver", "TestRecord"]

WINDOW_START_SIZE_BYTES = 8


class TestRecord(NamedTuple):
    """A record as an app wrote it, key and value as objects."""

    key: Any
    value: Any
    timestamp: int
    partition: int
    headers: Headers = ()


@dataclass(slots=True)
class _TopicLog:
    """What was written to one topic."""

    key_serde: Serde[Any]
    value_serde: Serde[Any]
    partitions: int
    ends: dict[int, int] = field(default_factory=dict)
    """Next offset by partition."""
    records: list[tuple[bytes | None, bytes | None, int, int, Headers]] = field(
        default_factory=list
    )
    unread: int = 0
    """Index of the first record `read` has not given yet."""


@dataclass(slots=True)
class _Running:
    """A task and its stores."""

    task: Task
    stores: dict[str, Store]
    active_ms: int = 0
    stream_time_then: int = -1


class _Parts:
    """The parts of stores, as a `StoreView` asks for them."""

    def __init__(
        self, tasks: Mapping[tuple[int, int], _Running], global_stores: Mapping[str, Store]
    ) -> None:
        self._tasks = tasks
        self._global_stores = global_stores

    def parts(self, store: str) -> dict[int, Store]:
        if store in self._global_stores:
            return {0: self._global_stores[store]}
        return {
            number: running.stores[store]
            for (_, number), running in self._tasks.items()
            if store in running.stores
        }

    def part_count(self, store: str) -> int:
        return len(self.parts(store))


class TestDriver:
    """Runs an app in a test.

        with TestDriver(app) as driver:
            driver.send("orders", {"amount": 120}, key="anna", timestamp=0)
            [record] = driver.read("large-orders")

    A record that fails under the policy "fail" raises from `send`; the driver is of no use after.

    Args:
        partitions: of topics that are not declared with a number.
        idle_timeout: the app's, or another; windows then close when the clock is advanced over so
            much silence. Off by default: stream time moves by records and `advance_stream_time`.
    """

    __test__ = False  # pytest takes classes called Test... for tests

    def __init__(
        self, app: App, *, partitions: int = 1, idle_timeout: Duration | None = None
    ) -> None:
        self._app = app
        self._topology = app.topology()
        self._idle_timeout_ms = None if idle_timeout is None else duration_ms(idle_timeout)
        self._now_ms = 0
        self._topics = _topic_logs(self._topology, partitions)
        self._globals = {
            each.store.name: _store(each.store, 0) for each in self._topology.global_tables
        }
        self._tasks = {
            (subtopology.id, number): self._start(subtopology, number)
            for subtopology in self._topology.subtopologies
            for number in range(max(self._topics[n].partitions for n in subtopology.sources))
        }
        self._readers = {
            topic: subtopology.id
            for subtopology in self._topology.subtopologies
            for topic in subtopology.sources
        }
        self._waiting: deque[RecordBatch] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is held open; `with` only marks where the app runs."""

    @property
    def now_ms(self) -> int:
        """The wall clock, as `advance` has moved it from 0."""
        return self._now_ms

    @property
    def counters(self) -> TaskCounters:
        """What all tasks have counted."""
        total = TaskCounters()
        for running in self._tasks.values():
            for each in fields(TaskCounters):
                count = getattr(total, each.name) + getattr(running.task.counters, each.name)
                setattr(total, each.name, count)
        return total

    def send(
        self,
        topic: Topic[Any, Any] | str,
        value: Any,
        *,
        key: Any = None,
        timestamp: int | None = None,
        headers: Headers | Mapping[str, bytes | None] = (),
        partition: int | None = None,
    ) -> None:
        """Write a record and process everything it leads to.

        Args:
            value, key: of the topic's types; bytes are written as they are, None is null.
            timestamp: milliseconds; else the wall clock.
            partition: else by the key, as a producer does; without a key one after another.

        Raises:
            ProcessingError, SerdeError: the record failed under the policy "fail".
        """
        name = topic if isinstance(topic, str) else topic.name
        log = self._log(name)
        raw_key, raw_value = _to_bytes(key, log.key_serde), _to_bytes(value, log.value_serde)
        if partition is None:
            partition = self._partition(log, raw_key)
        pairs = tuple(headers.items()) if isinstance(headers, Mapping) else tuple(headers)
        time_ms = self._now_ms if timestamp is None else timestamp
        self._write(name, raw_key, raw_value, time_ms, partition, pairs)
        self._run()

    def read(self, topic: Topic[Any, Any] | str) -> list[TestRecord]:
        """What was written to a topic since it was last read, in order.

        Dead letters are in `<app-id>-dead-letter`, with keys and values as bytes.
        """
        log = self._log(topic if isinstance(topic, str) else topic.name)
        rows, log.unread = log.records[log.unread :], len(log.records)
        decode_key, decode_value = log.key_serde.deserialize, log.value_serde.deserialize
        return [
            TestRecord(
                None if key is None else decode_key(key),
                None if value is None else decode_value(value),
                timestamp,
                partition,
                headers,
            )
            for key, value, timestamp, partition, headers in rows
        ]

    def store(self, name: str) -> StoreView:
        """The store of a table, which is called as the table is."""
        specs = [spec for each in self._topology.subtopologies for spec in each.stores]
        specs += [table.store for table in self._topology.global_tables]
        return StoreView(spec_named(name, specs), _Parts(self._tasks, self._globals))

    def advance(self, duration: Duration) -> None:
        """Move the wall clock: the timestamp of records sent without one, and idle time-outs."""
        self._now_ms += duration_ms(duration)
        if self._idle_timeout_ms is None:
            return
        for running in self._tasks.values():
            silent_ms = self._now_ms - running.active_ms
            if silent_ms >= self._idle_timeout_ms and running.stream_time_then >= 0:
                running.task.advance(running.stream_time_then + silent_ms)
        self._run()

    def advance_stream_time(self, stream_time_ms: int) -> None:
        """Move the stream time of all tasks, as a record of that time would."""
        for running in self._tasks.values():
            running.task.advance(stream_time_ms)
            self._commit(running)
            self._run()

    def close_windows(self) -> None:
        """The end of the input: close every open window, as `millstream run --until-end` does."""
        for running in self._tasks.values():
            while running.task.next_close_ms is not None:
                running.task.close_windows()
                self._commit(running)
            self._run()

    def _start(self, subtopology: SubTopology, number: int) -> _Running:
        stores = {spec.name: _store(spec, number) for spec in subtopology.stores}
        task = Task(self._topology, subtopology, number, stores, self._globals, self._app.settings)
        return _Running(task, stores)

    def _log(self, topic: str) -> _TopicLog:
        if topic not in self._topics:
            known = ", ".join(sorted(self._topics))
            raise StreamsError(f"app {self._app.id!r} has no topic {topic!r}; it has: {known}")
        return self._topics[topic]

    @staticmethod
    def _partition(log: _TopicLog, key: bytes | None, *, windowed: bool = False) -> int:
        if key is None:
            return len(log.records) % log.partitions
        inner = key[:-WINDOW_START_SIZE_BYTES] if windowed else key
        return partition_for_key(inner, log.partitions)

    def _write(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp: int,
        partition: int,
        headers: Headers,
    ) -> None:
        log = self._topics[topic]
        log.records.append((key, value, timestamp, partition, headers))
        offset = log.ends.get(partition, 0)
        log.ends[partition] = offset + 1
        for table in self._topology.global_tables:
            if table.topic.name == topic and key is not None:
                store = self._globals[table.store.name]
                store.restore([key], [value], {})
                store.restored()
        if topic in self._readers:
            columns = [key], [value], [timestamp], [headers] if headers else None
            offsets = range(offset, offset + 1)
            self._waiting.append(RecordBatch(topic, partition, offsets, *columns))

    def _run(self) -> None:
        """Process what waits, and what that leads to, until nothing waits."""
        for running in self._tasks.values():
            self._commit(running)
        while self._waiting:
            batch = self._waiting.popleft()
            running = self._tasks[self._readers[batch.topic], batch.partition]
            running.task.process(batch)
            running.active_ms = self._now_ms
            self._commit(running)
            running.stream_time_then = running.task.stream_time

    def _commit(self, running: _Running) -> None:
        if running.task.has_async:
            asyncio.run(running.task.drain())
        running.task.flush()
        for store in running.stores.values():
            store.prepare()
            store.apply(None)
            store.settle()
        for columns in running.task.take_outputs():
            for key, value, timestamp, headers in _rows(columns):
                log = self._topics[columns.topic]
                partition = self._partition(log, key, windowed=columns.windowed_keys)
                self._write(columns.topic, key, value, timestamp, partition, headers)


def _rows(columns: OutputColumns) -> Iterator[tuple[bytes | None, bytes | None, int, Headers]]:
    headers = columns.headers or [()] * len(columns)
    return zip(columns.keys, columns.values, columns.timestamps, headers, strict=True)


def _to_bytes(value: Any, serde: Serde[Any]) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return serde.serialize(value)


def _store(spec: StoreSpec, partition: int) -> Any:
    kind = KeyValueStore if spec.kind == "kv" else WindowStore
    serde = spec.value_serde
    backing = MemoryBacking()
    return kind(spec.name, backing, serde.serialize, serde.deserialize, partition=partition)


def _topic_logs(topology: Topology, partitions: int) -> dict[str, _TopicLog]:
    """Every topic the app reads or writes, in the types it is written in."""
    declared = {name: spec.partitions or partitions for name, spec in topology.topics.items()}
    counts = {**declared, **topology.partition_counts(declared)}
    raw = serde_for(bytes)
    logs = {dead_letter_topic(topology.app_id): _TopicLog(raw, raw, 1)}
    for spec in topology.topics.values():
        logs[spec.name] = _TopicLog(spec.key_serde, spec.value_serde, counts[spec.name])
    for subtopology in topology.subtopologies:
        for sink in (sink for node in subtopology.nodes for sink in sinks_of(node)):
            count = counts.get(sink.topic, partitions)
            logs[sink.topic] = _TopicLog(sink.key_serde, sink.value_serde, count)
    return logs
