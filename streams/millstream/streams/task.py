"""A task: one sub-topology for one partition number. Synchronous but for `drain`; told the time.

It owns the stream time, the open windows and the outputs of its partition; its stores belong to the
worker, which commits them together with the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from millstream.log.record import Record, RecordBatch

from .counters import TaskCounters
from .errors import OnError, ProcessingError, SerdeError
from .failures import dead_letter_headers, located, policy_for
from .fuse import FusedSubTopology, fuse
from .fuse.code import Program, Site
from .fuse.environment import PendingCall
from .nodes import AsyncNode, CountPartsNode, Node, SinkNode
from .open_windows import NEVER, OpenWindows
from .outputs import OutputColumns
from .pending import Failed, run_calls
from .stores import KeyValueState, Store, WindowState
from .topology import SubTopology, Topology, dead_letter_topic

__all__ = ["OutputColumns", "Task", "TaskCounters", "TaskSettings"]


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """What an app says about the running of its tasks."""

    app_id: str
    on_error: OnError = "fail"
    on_deserialization_error: OnError = "dead_letter"
    concurrency: int = 64


COUNTED_KEYS_MAX: Final = 100_000
"""Distinct keys counted between flushes, about 15 MB; with more the counts are sent early."""


class CountParts:
    """Counts since the last flush, by key object or key bytes."""

    __slots__ = ("as_objects", "counts", "timestamp")

    def __init__(self, as_objects: bool) -> None:
        self.as_objects = as_objects
        self.counts: dict[Any, int] = {}
        self.timestamp = -1


class Task:
    """One sub-topology for one partition.

    Order of use: make it when its stores are restored; `process` each batch, then `drain` if
    `has_async`; before a commit `flush`, then `take_outputs`. After a failed one make another task.
    """

    def __init__(
        self,
        topology: Topology,
        subtopology: SubTopology,
        partition: int,
        stores: Mapping[str, Store],
        global_stores: Mapping[str, KeyValueState],
        settings: TaskSettings,
        *,
        stream_time: int = -1,
    ) -> None:
        self.id = f"{subtopology.id}_{partition}"
        self.partition = partition
        self.stream_time = stream_time
        """Largest timestamp seen or advanced to, ms; -1 for none. Commit it with the offsets.

        Only kept where something depends on it: windows, or functions that ask.
        """
        self.counters = TaskCounters()
        self._settings = settings
        self._stores: dict[str, Any] = {**global_stores, **stores}
        self._fused: FusedSubTopology = fuse(subtopology, topology.app_id)
        self._buffers: dict[str, OutputColumns] = {}
        self._pending: dict[Node, list[PendingCall]] = {}
        self._parts: dict[CountPartsNode, CountParts] = {}
        self._windows = {
            fold: OpenWindows(fold, cast("WindowState", stores[fold.store.name]))
            for fold in self._fused.folds
        }
        self._windows_by_store = {fold.store.name: each for fold, each in self._windows.items()}
        self._runs: dict[tuple[Node, bool], Callable[..., Any]] = {}
        self.has_async = bool(self._fused.async_nodes)

    def process(self, batch: RecordBatch) -> None:
        """Run the steps over a batch of one of the source topics.

        Raises:
            ProcessingError, SerdeError: a record failed under the policy "fail". The task's state
            is undefined: abort the transaction and make a new task.
        """
        if not len(batch):
            return
        run = self._run(self._fused.sources[batch.topic], batch.headers is not None)
        self.stream_time = run(batch, self.stream_time)
        self.counters.records += len(batch)
        for node, parts in self._parts.items():
            if len(parts.counts) > COUNTED_KEYS_MAX:
                self._send_parts(node, parts)

    async def drain(self) -> None:
        """Run pending async steps, bounded and in order, and the steps behind them.

        Raises:
            ProcessingError: as `process`.
        """
        while any(self._pending.values()):
            for node in self._fused.async_nodes:
                rows = list(self._pending.get(node, ()))
                if rows:
                    self._pending[node].clear()
                    concurrency = node.concurrency or self._settings.concurrency
                    results = await run_calls(rows, many=node.many, concurrency=concurrency)
                    self._continue(node, rows, results)
            self._close(self.stream_time, deferred=True)

    def advance(self, stream_time_ms: int) -> None:
        """Move stream time forward without a record; close windows that are over. Never back."""
        if stream_time_ms > self.stream_time:
            self.stream_time = stream_time_ms
            self.close_due(stream_time_ms)
            self._close(stream_time_ms, deferred=True)

    def close_windows(self) -> None:
        """Advance stream time just far enough to close every open window (the end of the input).

        Windows that open when others close (made of final results) are closed too; where an async
        step stands between, after the next `drain`: repeat both until `next_close_ms` is None.
        """
        while (last := max((each.last_close for each in self._windows.values()), default=-1)) >= 0:
            self.stream_time = max(self.stream_time, last)
            self.close_due(self.stream_time)
            self._close(self.stream_time, deferred=True)

    def flush(self) -> None:
        """Turn what is gathered between commits (partial counts) into outputs.

        Raises:
            ProcessingError: a key cannot be serialised.
        """
        for node, parts in self._parts.items():
            if parts.counts:
                self._send_parts(node, parts)

    def take_outputs(self) -> list[OutputColumns]:
        """What was sent to topics since the last call; only topics that got something."""
        return [buffer.take() for buffer in self._buffers.values() if len(buffer)]

    @property
    def next_close_ms(self) -> int | None:
        """Stream time at which the next window closes; None without open windows."""
        first = min((each.next_close for each in self._windows.values()), default=NEVER)
        return None if first == NEVER else first

    # What the generated programs ask of their task (fuse.environment.Environment).

    def close_due(self, now: int) -> int:
        """Close what is over by now; answers the new `next_close`."""
        self.stream_time = now
        self._close(now, deferred=False)
        return self.next_close

    @property
    def next_close(self) -> int:
        """Stream time at which the next window closes, of those that programs close."""
        return min(
            (
                windows.next_close
                for fold, windows in self._windows.items()
                if fold not in self._fused.deferred
            ),
            default=NEVER,
        )

    def buffer(self, topic: str, windowed_keys: bool) -> OutputColumns:
        if topic not in self._buffers:
            self._buffers[topic] = OutputColumns(topic, [], [], [], None, windowed_keys)
        return self._buffers[topic]

    def pending(self, node: AsyncNode) -> list[PendingCall]:
        return self._pending.setdefault(node, [])

    def parts(self, node: CountPartsNode, as_objects: bool) -> CountParts:
        return self._parts.setdefault(node, CountParts(as_objects))

    def key_value_store(self, name: str) -> KeyValueState:
        store: KeyValueState = self._stores[name]
        return store

    def open_windows(self, name: str) -> OpenWindows:
        return self._windows_by_store[name]

    def failed(self, program: Program, error: Exception, record: Record) -> None:
        """Apply the error policy to a record; returns when the next one may follow."""
        site = program.site_of(error.__traceback__)
        if site is None:  # of no step: a window that closed on the way has already judged it
            raise error
        self._fail(error, site, record)

    def _fail(self, error: Exception, site: Site, record: Record) -> None:
        shown = located(error, site, record)
        if not isinstance(shown, SerdeError | ProcessingError):
            raise shown
        shown.__cause__ = error
        on_error = site.node.on_error or self._settings.on_error
        if site.is_deserialization:
            on_error = self._settings.on_deserialization_error
        policy = policy_for(on_error, shown, record)
        if policy == "fail":
            raise shown
        if policy == "skip":
            self.counters.skipped += 1
            return
        self.counters.dead_letters += 1
        letters = self.buffer(dead_letter_topic(self._settings.app_id), False)
        letters.with_headers().append(dead_letter_headers(record, shown))
        letters.keys.append(record.key)
        letters.values.append(record.value)
        letters.timestamps.append(record.timestamp)

    def _run(self, entry: Node, with_headers: bool) -> Callable[..., Any]:
        run = self._runs.get((entry, with_headers))
        if run is None:
            run = self._fused.program(entry, with_headers).bind(self)
            self._runs[entry, with_headers] = run
        return run

    def _continue(self, node: AsyncNode, rows: list[PendingCall], results: list[Any]) -> None:
        site = Site(node, "function", node.function)
        kept: list[int] = []
        for i, result in enumerate(results):
            if isinstance(result, Failed):
                self._fail(result.error, site, Record(*rows[i][5]))
            else:
                kept.append(i)
        if len(kept) < len(rows):
            rows, results = [rows[i] for i in kept], [results[i] for i in kept]
        run = self._run(node, any(row[4] for row in rows))
        run(rows, results)

    def _close(self, now: int, *, deferred: bool) -> None:
        """Send the final results of windows that are over, oldest first, then forget them."""
        for fold, windows in self._windows.items():
            if (fold in self._fused.deferred) is not deferred:
                continue
            for start in windows.due(now):
                if self._fused.has_final(fold):
                    rows = list(windows.store.items(start))
                    self._run(fold, False)(start, rows)
                windows.close(start)

    def _send_parts(self, node: CountPartsNode, parts: CountParts) -> None:
        sink = node.sink
        keys = list(parts.counts)
        if parts.as_objects:
            keys = [self._encode_key(sink, key) for key in keys]
        counts = [sink.value_serde.serialize(count) for count in parts.counts.values()]
        buffer = self.buffer(sink.topic, False)
        buffer.keys.extend(keys)
        buffer.values.extend(counts)
        buffer.timestamps.extend([parts.timestamp] * len(keys))
        parts.counts = {}

    def _encode_key(self, sink: SinkNode, key: Any) -> bytes:
        try:
            return sink.key_serde.serialize(key)
        except Exception as error:
            raise ProcessingError(
                f"step {sink.name!r} was given the key {key!r}, which is not "
                f"{sink.key_serde.type_name}: {error}. Say key_type=... where the key is made",
                topic=sink.topic,
                partition=self.partition,
                offset=-1,
                step=sink.name,
                function="",
            ) from error
