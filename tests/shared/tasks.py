"""One task of an app, fed with batches directly: what the test driver cannot show, such as where
batches end, restarts between them, and the bytes that come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream.log.record import Headers, RecordBatch
from millstream.streams.app import App
from millstream.streams.outputs import OutputColumns
from millstream.streams.state import KeyValueStore, MemoryBacking, Store, WindowStore
from millstream.streams.task import Task
from millstream.streams.topology import StoreSpec

__all__ = ["OneTask", "batch_of"]

Row = tuple[bytes | None, bytes | None, int]


def batch_of(
    topic: str, rows: Sequence[Row], *, first: int = 0, headers: list[Headers] | None = None
) -> RecordBatch:
    """Rows of (key, value, timestamp) as a batch that begins at offset `first`."""
    offsets = range(first, first + len(rows))
    columns: list[list[Any]] = (
        [list(column) for column in zip(*rows, strict=True)] if rows else [[], [], []]
    )
    return RecordBatch(topic, 0, offsets, *columns, headers)


def _store(spec: StoreSpec, backing: MemoryBacking) -> Store:
    serde = spec.value_serde
    kind = KeyValueStore if spec.kind == "kv" else WindowStore
    return kind(spec.name, backing, serde.serialize, serde.deserialize)


class OneTask:
    """Partition 0 of a sub-topology, its stores, and what it has sent."""

    def __init__(self, app: App, subtopology: int = 0) -> None:
        self._app = app
        self._topology = app.topology()
        self._subtopology = self._topology.subtopologies[subtopology]
        self._backings = {spec.name: MemoryBacking() for spec in self._subtopology.stores}
        self.stores = self._open()
        self.sent: dict[str, list[Row]] = {}
        self.headers: dict[str, list[Headers]] = {}
        self.task = self._start(-1)

    def _open(self) -> dict[str, Store]:
        specs = self._subtopology.stores
        return {spec.name: _store(spec, self._backings[spec.name]) for spec in specs}

    def _start(self, stream_time: int) -> Task:
        settings = self._app.settings
        return Task(
            self._topology,
            self._subtopology,
            0,
            self.stores,
            {},
            settings,
            stream_time=stream_time,
        )

    def process(self, batch: RecordBatch) -> None:
        self.task.process(batch)

    def commit(self) -> None:
        """Flush, gather what was sent, write the stores."""
        self.task.flush()
        for columns in self.task.take_outputs():
            self._gather(columns)
        for store in self.stores.values():
            store.prepare()
            store.apply(None)
            store.settle()

    def restart(self) -> None:
        """Another task and other stores over what is committed, as after a crash."""
        self.commit()
        self.stores = self._open()
        self.task = self._start(self.task.stream_time)

    def values(self, topic: str) -> list[Any]:
        return [value for _, value, _ in self.sent.get(topic, [])]

    def _gather(self, columns: OutputColumns) -> None:
        rows = zip(columns.keys, columns.values, columns.timestamps, strict=True)
        self.sent.setdefault(columns.topic, []).extend(rows)
        headers: list[Headers] = columns.headers or [()] * len(columns)
        assert len(headers) == len(columns)
        self.headers.setdefault(columns.topic, []).extend(headers)
