"""Dead letters: records that cannot be used, kept with all that is known about them.

A dead letter has the raw key and value, the original timestamp and headers, and Kafka Connect's
headers `__connect.errors.*`: topic, partition and offset it came from (sinks), connector and
task, the stage, the exception. A source adds `__connect.errors.source.partition` and
`.source.offset`: file, line and byte position, say, as JSON.

Sources write dead letters in the transaction of the records around them. Sinks write them, durably,
before they commit their offsets; after a restart the topic is read for letters behind those
offsets, so that none is written twice. Their producer is transactional only to be fenced: a sink
that was taken over cannot add a letter after its successor has looked.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence

import orjson

from millstream.log import Headers, Log, Producer, TopicPartition, UnknownTopicError
from millstream.log.config import EVENT_TIME_TOPIC

from .errors import FatalConnectError
from .reading import read_to_end
from .records import Rejection
from .status import TaskRun

__all__ = ["PREFIX", "SinkDeadLetters", "dead_letter_columns", "place_of", "stop_at"]

PREFIX = "__connect.errors."

_TRACE_CHARACTERS_MAX = 4000
"""A trace longer than this is cut: the letter must not grow because of it."""

_LETTER_OVERHEAD_BYTES = 512
"""Batch header, record fields and slack, kept free below max.message.bytes."""


def place_of(rejection: Rejection) -> str:
    """Where the record came from, for people: `flights-0 offset 17`, or file, line and so on."""
    if rejection.origin is not None:
        partition, offset = rejection.origin
        return f"{partition.topic} partition {partition.partition} offset {offset}"
    if rejection.source_partition is None:
        return "a record"
    fields = {**rejection.source_partition, **(rejection.source_offset or {})}
    return ", ".join(f"{name} {value}" for name, value in fields.items())


def stop_at(connector: str, rejection: Rejection) -> FatalConnectError:
    """The error that stops a connector in front of a record (`errors_tolerance = "none"`)."""
    error = FatalConnectError(
        f"connector {connector!r} stopped at {place_of(rejection)}: {rejection.error}. Everything "
        "before it is delivered. Mend the record and start again, or set errors_tolerance to 'all' "
        "to send such records to the dead-letter topic."
    )
    error.__cause__ = rejection.error
    return error


def dead_letter_columns(
    rejections: Sequence[Rejection], connector: str, task_id: int, size_bytes_max: int
) -> tuple[list[bytes | None], list[bytes | None], list[Headers]]:
    """Keys, values and headers of dead letters, each small enough for `size_bytes_max`."""
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    headers: list[Headers] = []
    for rejection in rejections:
        described = rejection.headers + _error_headers(rejection, connector, task_id)
        key, value, cut = _fitted(rejection, described, size_bytes_max)
        keys.append(key)
        values.append(value)
        headers.append(described + cut)
    return keys, values, headers


def _error_headers(rejection: Rejection, connector: str, task_id: int) -> Headers:
    error = rejection.error
    trace = "".join(traceback.format_exception(error))[:_TRACE_CHARACTERS_MAX]
    fields = {
        "connector.name": connector,
        "task.id": str(task_id),
        "stage": rejection.stage,
        "exception.class.name": f"{type(error).__module__}.{type(error).__qualname__}",
        "exception.message": str(error),
        "exception.stacktrace": trace,
    }
    if rejection.origin is not None:
        partition, offset = rejection.origin
        fields |= {
            "topic": partition.topic,
            "partition": str(partition.partition),
            "offset": str(offset),
        }
    if rejection.source_partition is not None:
        fields["source.partition"] = orjson.dumps(dict(rejection.source_partition)).decode()
        fields["source.offset"] = orjson.dumps(dict(rejection.source_offset or {})).decode()
    return tuple(
        (PREFIX + name, text.encode("utf-8", "backslashreplace")) for name, text in fields.items()
    )


def _fitted(
    rejection: Rejection, headers: Headers, size_bytes_max: int
) -> tuple[bytes | None, bytes | None, Headers]:
    """Key and value cut to fit, and headers that say how long they were."""
    taken = _LETTER_OVERHEAD_BYTES + sum(
        len(name) + len(data or b"") + 10 for name, data in headers
    )
    room = max(0, size_bytes_max - taken)
    cut: Headers = ()
    parts: list[bytes | None] = []
    for name, data in (("key", rejection.key), ("value", rejection.value)):
        kept = data if data is None else data[:room]
        if data is not None and len(data) > room:
            cut += ((f"{PREFIX}{name}.size.bytes", str(len(data)).encode()),)
        room -= len(kept or b"")
        parts.append(kept)
    return parts[0], parts[1], cut


class SinkDeadLetters:
    """Writes a sink task's dead letters, each exactly once."""

    def __init__(
        self,
        log: Log,
        producer: Producer,
        *,
        topic: str,
        connector: str,
        task_id: int,
        tolerant: bool,
        run: TaskRun,
    ) -> None:
        self._log = log
        self._producer = producer
        self._topic = topic
        self._connector = connector
        self._task_id = task_id
        self._tolerant = tolerant
        self._run = run
        self._written: set[tuple[TopicPartition, int]] = set()
        self._size_bytes_max: int | None = None

    async def recall(self, positions: Mapping[TopicPartition, int]) -> None:
        """Learn which records at or behind `positions` have a dead letter already."""
        try:
            async for batch in read_to_end(self._log, self._topic):
                for headers in batch.headers or ():
                    origin = _origin_in(headers, self._connector)
                    if origin is not None and origin[1] >= positions.get(origin[0], origin[1] + 1):
                        self._written.add(origin)
        except UnknownTopicError:
            return  # nothing was ever rejected

    async def __call__(self, rejections: Sequence[Rejection]) -> None:
        """Write these letters and wait until they are durable. Raises as
        `SinkContext.dead_letter`.
        """
        if not self._tolerant:
            raise stop_at(self._connector, rejections[0])
        new = [rejection for rejection in rejections if rejection.origin not in self._written]
        if not new:
            return
        if self._size_bytes_max is None:
            topic = await self._log.create_topic(
                self._topic, config=EVENT_TIME_TOPIC, exist_ok=True
            )
            self._size_bytes_max = int(topic.config["max.message.bytes"])
        keys, values, headers = dead_letter_columns(
            new, self._connector, self._task_id, self._size_bytes_max
        )
        timestamps = [max(rejection.timestamp or 0, 0) for rejection in new]
        async with self._producer.transaction():
            await self._producer.send_batch(
                self._topic, values, keys=keys, timestamps=timestamps, headers=headers
            )
        self._run.dead_letters += len(new)


def _origin_in(headers: Headers, connector: str) -> tuple[TopicPartition, int] | None:
    """Where a dead letter came from, when this connector wrote it."""
    found = {
        name.removeprefix(PREFIX): data.decode("utf-8", "replace")
        for name, data in headers
        if name.startswith(PREFIX) and data is not None
    }
    if found.get("connector.name") != connector or "offset" not in found:
        return None
    return TopicPartition(found["topic"], int(found["partition"])), int(found["offset"])
