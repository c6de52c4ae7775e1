"""From what a source hands over to what the producer takes: conversion, size limits, rejections."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from millstream.log import Headers, RecordTooLargeError

from .api import SourceConfig
from .errors import ConversionError
from .records import Rejection, SourceBatch, SourceOffset, SourcePartition, Stage

__all__ = ["RECORD_OVERHEAD_BYTES", "SourcePart", "convert"]

RECORD_OVERHEAD_BYTES = 61 + 36
"""A batch header (61 bytes), and the most that a record's own lengths, deltas and counts take."""

_HEADER_OVERHEAD_BYTES = 10
"""The most that the two lengths of one record header take."""

_SLICE_RECORDS = 500
"""Records converted between two turns of the event loop: about half a millisecond of work."""

T = TypeVar("T")


@dataclass(slots=True)
class SourcePart:
    """A source batch ready to write. `end` None leaves the committed source offset as it is."""

    topic: str
    partition: int | None
    source_partition: SourcePartition
    source_offsets: Sequence[SourceOffset]
    end: SourceOffset | None
    values: list[bytes | None]
    keys: list[bytes | None] | None
    timestamps: list[int] | None
    headers: list[Headers] | None
    rejections: list[Rejection]

    def before(self, index: int) -> SourcePart:
        """What comes before the record at `index` of the original batch; nothing there is bad."""
        return SourcePart(
            self.topic,
            self.partition,
            self.source_partition,
            self.source_offsets,
            self.source_offsets[index - 1] if index else None,
            self.values[:index],
            self.keys[:index] if self.keys is not None else None,
            self.timestamps[:index] if self.timestamps is not None else None,
            self.headers[:index] if self.headers is not None else None,
            [],
        )


async def convert(batch: SourceBatch, config: SourceConfig, size_bytes_max: int) -> SourcePart:
    """The batch in bytes. Records that cannot be converted or are too large become rejections."""
    values: list[bytes | None] = []
    keys: list[bytes | None] | None = None if batch.keys is None else []
    bad: dict[int, Rejection] = {}
    for start in range(0, len(batch), _SLICE_RECORDS):
        stop = min(start + _SLICE_RECORDS, len(batch))
        new_values, new_keys = _convert_slice(batch, config, start, stop, size_bytes_max, bad)
        values += new_values
        if keys is not None:
            keys += new_keys
        await asyncio.sleep(0)
    indexes: Sequence[int] = range(len(batch))
    if bad:
        indexes = [i for i in indexes if i not in bad]
    headers = batch.headers if batch.headers is not None and any(batch.headers) else None
    return SourcePart(
        batch.topic,
        batch.partition,
        batch.source_partition,
        batch.offsets,
        batch.end,
        _kept(values, indexes, bad),
        None if keys is None else _kept(keys, indexes, bad),
        None if batch.timestamps is None else _kept(batch.timestamps, indexes, bad),
        None if headers is None else _kept(headers, indexes, bad),
        [*batch.rejections, *bad.values()],
    )


def _kept(column: list[T], indexes: Sequence[int], bad: dict[int, Rejection]) -> list[T]:
    return [column[i] for i in indexes] if bad else column


def _convert_slice(
    batch: SourceBatch,
    config: SourceConfig,
    start: int,
    stop: int,
    size_bytes_max: int,
    bad: dict[int, Rejection],
) -> tuple[list[bytes | None], list[bytes | None]]:
    """Values and keys of records `start` to `stop`; None, and an entry in `bad`, for bad ones."""
    to_value, to_key = config.value_converter.to_log, config.key_converter.to_log
    try:
        values = [to_value(value) for value in batch.values[start:stop]]
        keys = [to_key(key) for key in batch.keys[start:stop]] if batch.keys is not None else []
        if _longest(values) + _longest(keys) + RECORD_OVERHEAD_BYTES <= size_bytes_max and (
            batch.headers is None
        ):
            return values, keys
    except ConversionError:
        pass  # found again below, record by record
    values, keys = [], []
    for i in range(start, stop):
        key, value = _convert_one(batch, config, i, size_bytes_max, bad)
        keys.append(key)
        values.append(value)
    return values, keys


def _longest(column: Sequence[bytes | None]) -> int:
    return max((len(data) for data in column if data is not None), default=0)


def _convert_one(
    batch: SourceBatch,
    config: SourceConfig,
    i: int,
    size_bytes_max: int,
    bad: dict[int, Rejection],
) -> tuple[bytes | None, bytes | None]:
    stage: Stage = "KEY_CONVERTER"
    key: bytes | None = None
    try:
        key = config.key_converter.to_log(batch.keys[i]) if batch.keys is not None else None
        stage = "VALUE_CONVERTER"
        value = config.value_converter.to_log(batch.values[i])
        stage = "KAFKA_PRODUCE"
        _check_size(batch, i, key, value, size_bytes_max)
    except (ConversionError, RecordTooLargeError) as error:
        evidence = batch.evidence
        bad[i] = Rejection(
            error,
            stage,
            key,
            evidence.raw(i) if evidence is not None else _as_evidence(batch.values[i]),
            batch.timestamps[i] if batch.timestamps is not None else None,
            batch.headers[i] if batch.headers is not None else (),
            source_partition=batch.source_partition,
            source_offset=evidence.start(i) if evidence is not None else batch.offsets[i],
            index=i,
        )
        return None, None
    return key, value


def _check_size(
    batch: SourceBatch, i: int, key: bytes | None, value: bytes | None, size_bytes_max: int
) -> None:
    size_bytes = RECORD_OVERHEAD_BYTES + len(key or b"") + len(value or b"")
    for name, data in batch.headers[i] if batch.headers is not None else ():
        size_bytes += len(name.encode()) + len(data or b"") + _HEADER_OVERHEAD_BYTES
    if size_bytes > size_bytes_max:
        raise RecordTooLargeError(
            f"record of about {size_bytes} bytes for topic {batch.topic!r}, whose "
            f"max.message.bytes is {size_bytes_max}; raise it or make the record smaller"
        )


def _as_evidence(value: Any) -> bytes:
    """Bytes that show a value which could not be converted; as close to it as JSON gets."""
    if isinstance(value, bytes):
        return value
    try:
        return orjson.dumps(value, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return repr(value).encode("utf-8", "backslashreplace")
