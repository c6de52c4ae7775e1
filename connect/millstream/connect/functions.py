"""A connector as one decorated function.

    @source(topic="numbers", key="n")
    async def numbers(position: int | None) -> AsyncIterator[tuple[dict[str, int], int]]:
        for n in itertools.count(position or 0):
            yield {"n": n}, n + 1            # the record, and where to go on behind it

    @sink("numbers")
    async def show(records: SinkBatch) -> None:
        for record in records:
            print(record.offset, record.value)

The decorated name is a connector (give it to `app.source`, `app.sink` or a worker) and still a
function: calling it calls it. A source's records and positions are committed together, exactly
once. A sink's offsets are committed after the function returned, at least once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Self

from .api import (
    SinkConfig,
    SinkConnector,
    SinkContext,
    SinkTask,
    SourceConfig,
    SourceConnector,
    SourceContext,
    SourceTask,
    TaskConfig,
)
from .config import setting, settings
from .errors import FatalConnectError
from .records import SinkBatch, SourceRecord

__all__ = ["FunctionSink", "FunctionSource", "sink", "source"]

SourceFunction = Callable[[Any], AsyncIterator[tuple[Any, Any]]]
SinkFunction = Callable[..., Awaitable[None]]
Extractor = Callable[[Any], Any]

_BUFFER_RECORDS_MAX = 1000
"""Records a source function may be ahead of what is written: also the most one transaction takes.
"""


def _extractor(given: Any) -> Extractor | None:
    """A function of the record as it is; a name becomes a look-up of that field or attribute."""
    if given is None:
        return None
    if callable(given):
        extract: Extractor = given
        return extract
    if not isinstance(given, str):
        raise ValueError("must be a field's name or a function of the record")  # noqa: TRY004

    def look_up(record: Any) -> Any:
        return record[given] if isinstance(record, Mapping) else getattr(record, given)

    return look_up


@settings
class FunctionSourceConfig(SourceConfig):
    """Settings of a source function."""

    key: Extractor | None = setting(
        "The field that is the record key, or a function of the record.",
        default=None,
        parse=_extractor,
        type_name="str or function",
    )
    timestamp: Extractor | None = setting(
        "The field that is the record timestamp, in ms since the epoch, or a function of it.",
        default=None,
        parse=_extractor,
        type_name="str or function",
    )


class FunctionSource(SourceConnector[FunctionSourceConfig]):
    """A source made of an async generator function by `@source`."""

    config_class = FunctionSourceConfig

    def __init__(self, function: SourceFunction, name: str, given: Mapping[str, Any]) -> None:
        if not inspect.isasyncgenfunction(function):
            raise TypeError(f"@source needs `async def {name}(position)` that yields")
        self.function = function
        self._given = dict(given)
        super().__init__(name, **given)
        self.__doc__ = function.__doc__

    def __call__(self, position: Any) -> AsyncIterator[tuple[Any, Any]]:
        """Call the function itself, as a unit test would."""
        return self.function(position)

    def configured(self, name: str, given: Mapping[str, Any]) -> Self:
        """The same function as a connector of another name and with more settings."""
        return type(self)(self.function, name, {**self._given, **given})

    def create_task(self, task_config: TaskConfig) -> FunctionSourceTask:
        return FunctionSourceTask(self.function, self.config)


class FunctionSourceTask(SourceTask):
    """Lets the generator run ahead into a bounded buffer; each poll hands the buffer over."""

    def __init__(self, function: SourceFunction, config: FunctionSourceConfig) -> None:
        self._function = function
        self._config = config
        self._buffer: list[SourceRecord] = []
        self._changed = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def start(self, context: SourceContext) -> None:
        self._partition = {"source": self._config.name}
        committed = context.offset(self._partition)
        position = committed["position"] if committed is not None else None
        self._pump = asyncio.create_task(self._run(position))

    async def _run(self, position: Any) -> None:
        generator = self._function(position)
        try:
            async for item in generator:
                self._buffer.append(self._record(item))
                self._changed.set()
                while len(self._buffer) >= _BUFFER_RECORDS_MAX:
                    self._changed.clear()
                    await self._changed.wait()
        finally:
            self._changed.set()
            close = getattr(generator, "aclose", None)
            if close is not None:
                await close()

    def _record(self, item: Any) -> SourceRecord:
        if not isinstance(item, tuple) or len(item) != 2:
            raise FatalConnectError(
                f"source {self._config.name!r} must yield (record, position), found {item!r:.80}"
            )
        data, position = item
        offset = {"position": position}
        if isinstance(data, SourceRecord):
            return dataclasses.replace(data, source_partition=self._partition, source_offset=offset)
        key, timestamp = self._config.key, self._config.timestamp
        return SourceRecord(
            data,
            key(data) if key is not None else None,
            timestamp(data) if timestamp is not None else None,
            source_partition=self._partition,
            source_offset=offset,
        )

    async def poll(self) -> Sequence[SourceRecord] | None:
        assert self._pump is not None
        while not self._buffer:
            if self._pump.done():
                self._pump.result()  # raises what the function raised, after its last record
                return None
            self._changed.clear()
            await self._changed.wait()
        polled, self._buffer = self._buffer, []
        self._changed.set()
        return polled

    async def stop(self) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)


class FunctionSink(SinkConnector[SinkConfig]):
    """A sink made of an async function by `@sink`."""

    config_class = SinkConfig

    def __init__(self, function: SinkFunction, name: str, given: Mapping[str, Any]) -> None:
        if not inspect.iscoroutinefunction(function):
            raise TypeError(f"@sink needs `async def {name}(records)`")
        self.function = function
        self._given = dict(given)
        super().__init__(name, **given)
        self.__doc__ = function.__doc__

    async def __call__(self, *arguments: Any) -> None:
        """Call the function itself, as a unit test would."""
        await self.function(*arguments)

    def configured(self, name: str, given: Mapping[str, Any]) -> Self:
        """The same function as a connector of another name and with more settings."""
        return type(self)(self.function, name, {**self._given, **given})

    def create_task(self, task_config: TaskConfig) -> FunctionSinkTask:
        return FunctionSinkTask(self.function)


class FunctionSinkTask(SinkTask):
    """Calls the function for each batch of one partition."""

    def __init__(self, function: SinkFunction) -> None:
        self._function = function

    async def start(self, context: SinkContext) -> None:
        """A function has nothing to open."""

    async def put(self, batches: Sequence[SinkBatch]) -> None:
        for batch in batches:
            if len(batch):
                await self._function(batch)

    async def stop(self) -> None:
        """A function has nothing to close."""


def source(
    topic: str,
    *,
    name: str | None = None,
    key: str | Extractor | None = None,
    value: Any = "json",
    timestamp: str | Extractor | None = None,
    **more: Any,
) -> Callable[[SourceFunction], FunctionSource]:
    """Make an async generator function a source connector.

    The function is given the position committed last (None at first) and yields pairs of a record
    and the position behind it; any JSON value can be a position. A record is a value, or a
    `SourceRecord`.

    Args:
        topic: Where the records go.
        name: The connector's name; by default the function's, with hyphens.
        key: The field of the record that is its key, or a function of the record.
        value: How values are written: `json`, `string`, `bytes`, or a converter.
        timestamp: The field that is the record timestamp, in ms since the epoch, or a function.
        more: Any other setting of a source: `partitions`, `errors_tolerance`, ...

    Raises:
        TypeError: it is not an async generator function.
        ConnectConfigError: a setting is wrong.
    """
    given = {"topic": topic, "key": key, "value_converter": value, "timestamp": timestamp, **more}

    def make(function: SourceFunction) -> FunctionSource:
        return FunctionSource(function, name or _name_of(function), given)

    return make


def sink(
    *topics: str, name: str | None = None, value: Any = "json", **more: Any
) -> Callable[[SinkFunction], FunctionSink]:
    """Make an async function a sink connector; it is called with a `SinkBatch` at a time.

    Delivery is at least once: after a crash the last records come again. `records.reject(i,
    reason)` sends one record to the dead-letter topic; raise RetriableConnectError to be called
    again.

    Args:
        topics: What to read.
        name: The connector's name; by default the function's, with hyphens.
        value: How values are read: `json`, `string`, `bytes`, or a converter.
        more: Any other setting of a sink: `tasks_max`, `key_converter`, ...

    Raises:
        TypeError: it is not an async function.
        ConnectConfigError: a setting is wrong.
    """
    given = {"topics": list(topics), "value_converter": value, **more}

    def make(function: SinkFunction) -> FunctionSink:
        return FunctionSink(function, name or _name_of(function), given)

    return make


def _name_of(function: Any) -> str:
    return str(function.__name__).replace("_", "-")
