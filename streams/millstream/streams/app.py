"""The app: its topics, streams and tables. Registers only; running it is the worker's."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, Protocol, TypeVar, get_args, overload

from millstream.log.interface import Log

from .build import build
from .decorated import StreamOptions, StreamSource, TableFunction
from .errors import OnError, TopologyError, check_policy
from .functions import function_name
from .graph import Graph, TypeHint
from .grouped import Grouped
from .serde import Serde, serde_for
from .stream import Stream
from .table import Table
from .task import TaskSettings
from .topics import GlobalTable, Topic, flow_of_topic, table_of_topic
from .topology import GlobalTableSpec, StoreSpec, TopicSpec, Topology
from .windows import Duration, WindowSpec, duration_ms

if TYPE_CHECKING:
    from .queries import StoreView

__all__ = ["App", "Companion", "Guarantee"]

K = TypeVar("K")
V = TypeVar("V")
P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound="Companion")
F = TypeVar("F", bound=Callable[[], object])

Guarantee = Literal["exactly_once", "at_least_once"]
"""What a crash may do to results: nothing, or repeat some."""

CONCURRENCY_DEFAULT = 64
"""Calls of an async step at once, where nobody says otherwise."""


class Companion(Protocol):
    """A connector that runs inside an app's process.

    A source with `until_end` returns when its input is exhausted; a sink when it has delivered what
    was in its topics when `run` was called. Without it both run until cancelled.
    """

    name: str

    async def run(
        self,
        log: Log,
        *,
        until_end: bool,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> None: ...


class StoreSource(Protocol):
    """Whoever runs an app, and so has its stores."""

    def store(self, name: str) -> StoreView: ...


class App:
    """A stream app: functions over the topics of a log.

    Args:
        id: names the consumer group, the changelogs and the repartition topics; Kafka's
            application.id. Another id is another app, with state of its own.
        log: `file:DIR` or `memory:`; else $MILLSTREAM_LOG, else `file:./millstream-data`.
        listen: HOST:PORT where Kafka clients reach the log while the app runs.
        idle_timeout: after so much silence stream time moves on and closes windows; None: never.
        on_error: what becomes of a record for which a function raises.
        on_deserialization_error: what becomes of a record that cannot be read.
        concurrency: calls of one async step at once.
        state_dir: where stores lie; else beside the log.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - Kafka's application.id
        *,
        log: str | None = None,
        listen: str | None = None,
        guarantee: Guarantee = "exactly_once",
        commit_interval_ms: int = 100,
        idle_timeout: Duration | None = "30s",
        on_error: OnError = "fail",
        on_deserialization_error: OnError = "dead_letter",
        concurrency: int = CONCURRENCY_DEFAULT,
        state_dir: str | Path | None = None,
    ) -> None:
        if guarantee not in get_args(Guarantee):
            raise TopologyError(
                f"app {id!r}: guarantee is {guarantee!r}; it is one of "
                f"{', '.join(get_args(Guarantee))}"
            )
        check_policy(f"app {id!r}: on_error", on_error)
        check_policy(f"app {id!r}: on_deserialization_error", on_deserialization_error)
        self.id = id
        self.log = log
        self.listen = listen
        self.guarantee: Guarantee = guarantee
        self.commit_interval_ms = commit_interval_ms
        self.idle_timeout_ms = None if idle_timeout is None else duration_ms(idle_timeout)
        self.settings = TaskSettings(id, on_error, on_deserialization_error, concurrency)
        self.state_dir = None if state_dir is None else Path(state_dir)
        self.sources: list[Companion] = []
        self.sinks: list[Companion] = []
        self._graph = Graph(id)
        self._running: StoreSource | None = None

    @property
    def log_url(self) -> str:
        """`log`, else $MILLSTREAM_LOG, else file:./millstream-data."""
        return self.log or os.environ.get("MILLSTREAM_LOG") or "file:./millstream-data"

    @overload
    def topic(
        self,
        name: str,
        *,
        key: type[K] | Serde[K] = ...,
        value: type[V] | Serde[V],
        timestamp: Callable[[V], Any] | None = None,
        partitions: int | None = None,
        config: Mapping[str, str | int | float | bool] | None = None,
    ) -> Topic[K, V]: ...
    @overload
    def topic(
        self,
        name: str,
        *,
        key: TypeHint = ...,
        value: TypeHint = ...,
        timestamp: Callable[[Any], Any] | None = None,
        partitions: int | None = None,
        config: Mapping[str, str | int | float | bool] | None = None,
    ) -> Topic[Any, Any]: ...
    def topic(
        self,
        name: str,
        *,
        key: TypeHint = str,
        value: TypeHint = Any,
        timestamp: Callable[[Any], Any] | None = None,
        partitions: int | None = None,
        config: Mapping[str, str | int | float | bool] | None = None,
    ) -> Topic[Any, Any]:
        """Declare a topic.

        Args:
            key, value: a type (see `millstream.streams.serde`) or a Serde.
            timestamp: event time from the value, as milliseconds since the epoch or a datetime;
                else the timestamp of the record.
            partitions, config: for creating the topic when the app starts and it is not there. It
                keeps its records for ever, whatever their event time, unless `config` has a
                `retention.ms` of its own.
        """
        serdes = serde_for(key), serde_for(value)
        spec = TopicSpec(name, *serdes, timestamp, partitions, dict(config or {}))
        return Topic(self._graph, self._graph.declare(spec))

    def stream(
        self,
        source: Topic[K, V] | Stream[K, V],
        *,
        to: Topic[Any, Any] | str | None = None,
        name: str | None = None,
        value_type: TypeHint = None,
        on_error: OnError | None = None,
        concurrency: int | None = None,
    ) -> StreamSource[K, V]:
        """The records of a topic or stream, and a decorator for a function over them.

            @app.stream(flights, to="late-flights")
            def late(flight: Flight) -> Flight | None:
                return flight if flight.dep_delay > 15 else None

            app.stream(flights).filter(is_late).to("late-flights")

        Args:
            to: a topic for the results of the decorated function.
            name: of its stream; else the function's name.
            concurrency: calls at once, of an async function.
        """
        if isinstance(source, Topic):
            flow = flow_of_topic(self._graph, source.spec)
        else:
            flow = source._flow
        options = StreamOptions(to, name, value_type, on_error, concurrency)
        return StreamSource(flow, options)

    def table(
        self,
        source: Topic[K, V] | Stream[K, V],
        *,
        key: Callable[..., Any] | None = None,
        window: WindowSpec | None = None,
        init: Any = None,
        name: str | None = None,
        key_type: TypeHint = None,
        value_type: TypeHint = None,
        late_to: Topic[Any, Any] | str | None = None,
        on_error: OnError | None = None,
    ) -> Callable[[Callable[P, R]], TableFunction[Any, R, P]]:
        """Decorate a fold: `function(state, value) -> state`, per key, and per window if given.

            @app.table(late, key=carrier_of, window=tumbling("1h", grace="5m"))
            def delay(total: int, flight: Flight) -> int:
                return total + flight.dep_delay

        Args:
            key: a new key for each record; else the record's.
            init: the first state, or a callable for it; else the zero of its annotated type:
                0, "", {}, a dataclass with its defaults.
            name: of the table and its store; else the function's name.
            late_to: a topic for records whose window is closed.
        """

        def decorate(function: Callable[P, R]) -> TableFunction[Any, R, P]:
            stream = Stream[Any, Any](self.stream(source)._flow)
            grouped: Grouped[Any, Any] = stream.group_by_key()
            if key is not None:
                grouped = stream.group_by(key, key_type=key_type, on_error=on_error)
            folding = grouped if window is None else grouped.window(window, late_to=late_to)
            table = folding.aggregate(
                init, function, name=name, value_type=value_type, on_error=on_error
            )
            return TableFunction(table._flow, table.store, function)

        if late_to is not None and window is None:
            raise TopologyError("table: late_to=... needs window=...: without one nothing is late")
        return decorate

    def table_of(self, topic: Topic[K, V], *, name: str | None = None) -> Table[K, V]:
        """A topic as a table: the last value of each key; a null value deletes.

        Its store has a changelog of its own, like any store.
        """
        return table_of_topic(self._graph, topic, name)

    def global_table(self, topic: Topic[K, V], *, name: str | None = None) -> GlobalTable[K, V]:
        """A topic as a table that every worker holds whole: any stream may look up any key in it.

        It is read before anything is processed, and followed while the app runs.
        """
        chosen = self._graph.claim(name or topic.name, f"the global table of {topic.name!r}")
        spec = topic.spec
        store = StoreSpec(chosen, "kv", spec.key_serde, spec.value_serde, logged=False)
        table = self._graph.global_tables[chosen] = GlobalTableSpec(spec, store)
        return GlobalTable(self._graph, table)

    def pipeline(self, function: F) -> F:
        """Decorate a function that builds streams in method style. It is called at once.

        Unnamed state made in it is named after it: `busiest-count`.
        """
        if self._graph.pipeline:
            raise TopologyError(f"pipeline {self._graph.pipeline!r} contains another pipeline")
        self._graph.pipeline = self._graph.claim(function_name(function), "a pipeline")
        try:
            function()
        finally:
            self._graph.pipeline = ""
        return function

    def source(self, companion: C) -> C:
        """Run a source connector in the app's process."""
        self.sources.append(companion)
        return companion

    def sink(self, companion: C) -> C:
        """Run a sink connector in the app's process."""
        self.sinks.append(companion)
        return companion

    def topology(self) -> Topology:
        """The topology as registered so far.

        Raises:
            TopologyError: it cannot run; the message says why.
        """
        return build(self._graph)

    def store(self, name: str) -> StoreView:
        """A store to read from while the app runs in this process: `app.store("delay").get("AA")`.

        A table's store is called as the table is. What is not yet committed is seen, too.

        Raises:
            UnknownStoreError: the app does not run here, or has no such store.
        """
        from .queries import UnknownStoreError

        if self._running is None:
            raise UnknownStoreError(
                f"app {self.id!r} does not run in this process: read its stores while "
                "`run_app` is under way"
            )
        return self._running.store(name)

    def attach(self, running: StoreSource | None) -> None:
        """Whom `store` asks; called by whoever runs the app, with None when it ends."""
        self._running = running

    def __repr__(self) -> str:
        return f"App({self.id!r})"
