"""What compaction leaves of one batch.

    data      of each key the record with the highest offset; a tombstone until its horizon; nothing
              of an aborted transaction; nothing without a key
    markers   as long as batches of their transaction are there, then until their horizon

A horizon is the time from which the tombstones of a batch, or a marker, may go. The first
compaction that meets them sets it, delete.retention.ms ahead, in place of the batch's base
timestamp (KIP-534).

A batch of which everything stays is not touched. Otherwise its records are copied as they are:
offsets, times, headers and order stay, and so do the batch's base offset, last offset and
sequences. A batch that must stay though nothing of it does becomes an empty one; a marker that must
stay stays whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from millstream.log.format.codec import HEADER_SIZE_BYTES, BatchHeader, Columns
from millstream.log.format.compression import compress, decompress
from millstream.log.format.control import control_type
from millstream.log.format.header import (
    ATTRIBUTE_DELETE_HORIZON,
    CODEC_MASK,
    LENGTH_END,
    parse_header,
    seal_batch,
)
from millstream.log.format.record_reader import read_records

from .compaction_map import OffsetMap, names_of
from .compaction_transactions import TransactionsMet
from .segment import NO_TIMESTAMP
from .txn_index import AbortedTransaction

__all__ = ["BatchFilter", "Filtered", "records_of"]


class Filtered(NamedTuple):
    """What is left of a batch: its new header and bytes, or None for both; how many records it had
    and has; what goes into the transaction index."""

    header: BatchHeader | None
    batch: bytes | memoryview
    records_read: int
    records_kept: int
    aborted: AbortedTransaction | None = None


def records_of(header: BatchHeader, batch: memoryview) -> tuple[bytes, Columns]:
    """The records of a batch, uncompressed, as bytes and decoded.

    Raises:
        CorruptRecordError
    """
    packed = batch[HEADER_SIZE_BYTES : header.size_bytes]
    data = decompress(header.compression, packed) if header.compression else bytes(packed)
    return data, read_records(data, 0, len(data), header)


class BatchFilter:
    """Fed with every batch in the order of the log. Those from `end` on stay untouched: what makes
    records below it superfluous is not known from there on."""

    def __init__(
        self,
        newest: OffsetMap,
        transactions: TransactionsMet,
        *,
        end: int,
        now_ms: int,
        delete_retention_ms: int,
    ) -> None:
        self._end = end
        self._newest = newest
        self._transactions = transactions
        self._now_ms = now_ms
        self._horizon_ms = now_ms + delete_retention_ms

    def apply(self, header: BatchHeader, batch: memoryview, *, must_stay: bool) -> Filtered:
        """What is left of this batch. `must_stay`: at least an empty batch.

        Raises:
            CorruptRecordError: it is no batch.
        """
        if header.is_control:
            return self._marker(header, batch, must_stay=must_stay)
        is_aborted = self._transactions.is_aborted(header)
        if header.base_offset >= self._end:
            return Filtered(header, batch, header.records_count, header.records_count)
        if is_aborted or not header.records_count:
            return _without_records(header, batch, must_stay=must_stay)
        data, columns = records_of(header, batch)
        kept = self._kept(header, columns)
        if not kept:
            return _without_records(header, batch, must_stay=must_stay)
        expires = header.delete_horizon_ms is None and any(columns.values[i] is None for i in kept)
        if expires:
            return self._with_horizon(header, data, columns, kept)
        count = header.records_count
        if len(kept) == count:
            return Filtered(header, batch, count, count)
        spans = list(_spans(data))
        return _rewritten(header, b"".join(data[slice(*spans[i])] for i in kept), columns, kept)

    def _kept(self, header: BatchHeader, columns: Columns) -> list[int]:
        """Indexes of the records that stay."""
        newest, values = self._newest.newest, columns.values
        kept = [
            i
            for i, (name, offset) in enumerate(
                zip(names_of(columns.keys), columns.offsets, strict=True)
            )
            if name is not None and offset >= newest(name)
        ]
        horizon_ms = header.delete_horizon_ms
        if horizon_ms is not None and horizon_ms <= self._now_ms:
            kept = [i for i in kept if values[i] is not None]
        return kept

    def _marker(self, header: BatchHeader, batch: memoryview, *, must_stay: bool) -> Filtered:
        if not header.records_count:  # Kafka empties the marker that is a producer's last
            self._transactions.end(header)
            return _without_records(header, batch, must_stay=must_stay)
        data, columns = records_of(header, batch)
        if control_type(columns) is None:
            return Filtered(header, batch, 1, 1)
        is_needed, aborted = self._transactions.end(header)
        if is_needed or header.base_offset >= self._end:
            return Filtered(header, batch, 1, 1, aborted if is_needed else None)
        if header.delete_horizon_ms is None:
            return self._with_horizon(header, data, columns, [0])
        if header.delete_horizon_ms > self._now_ms or must_stay:
            return Filtered(header, batch, 1, 1)
        return Filtered(None, b"", 1, 0)

    def _with_horizon(
        self, header: BatchHeader, data: bytes, columns: Columns, kept: list[int]
    ) -> Filtered:
        base = self._horizon_ms
        spans = list(_spans(data))
        records = b"".join(
            _retimed(data[slice(*spans[i])], columns.timestamps[i] - base) for i in kept
        )
        marked = header._replace(
            attributes=header.attributes | ATTRIBUTE_DELETE_HORIZON, base_timestamp=base
        )
        return _rewritten(marked, records, columns, kept)


def _without_records(header: BatchHeader, batch: memoryview, *, must_stay: bool) -> Filtered:
    """Nothing, or the header alone: it says where the batch ended, in offsets and in sequences. Its
    time says nothing any more, so that no index names it."""
    count = header.records_count
    if not must_stay:
        return Filtered(None, b"", count, 0)
    if not count:
        return Filtered(header, batch, 0, 0)
    empty = header._replace(
        batch_length=HEADER_SIZE_BYTES - LENGTH_END,
        attributes=header.attributes & ~(CODEC_MASK | ATTRIBUTE_DELETE_HORIZON),
        base_timestamp=NO_TIMESTAMP,
        max_timestamp=NO_TIMESTAMP,
        records_count=0,
    )
    sealed = seal_batch(empty, b"")
    return Filtered(parse_header(sealed), sealed, count, 0)


def _rewritten(header: BatchHeader, records: bytes, columns: Columns, kept: list[int]) -> Filtered:
    packed = compress(header.compression, records) if header.compression else records
    max_timestamp = header.max_timestamp
    if not header.is_log_append_time:
        max_timestamp = max(columns.timestamps[i] for i in kept)
    smaller = header._replace(
        batch_length=HEADER_SIZE_BYTES - LENGTH_END + len(packed),
        max_timestamp=max_timestamp,
        records_count=len(kept),
    )
    sealed = seal_batch(smaller, packed)
    return Filtered(parse_header(sealed), sealed, header.records_count, len(kept))


def _spans(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each record begins and ends; the records have been read, so they are sound."""
    position, end = 0, len(data)
    while position < end:
        start = position
        size, position = _varint(data, position)
        position += size >> 1
        yield start, position


def _retimed(record: bytes, timestamp_delta: int) -> bytes:
    """The same record with another timestamp delta."""
    _, position = _varint(record, 0)
    _, after_time = _varint(record, position + 1)
    attributes = record[position : position + 1]
    body = attributes + _zigzag_varint(timestamp_delta) + record[after_time:]
    return _zigzag_varint(len(body)) + body


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A number as it stands there, before zig-zag, and where it ends."""
    raw = shift = 0
    while True:
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            return raw, position
        shift += 7


def _zigzag_varint(value: int) -> bytes:
    raw = value << 1 if value >= 0 else ~(value << 1)
    parts = bytearray()
    while raw >= 0x80:
        parts.append((raw & 0x7F) | 0x80)
        raw >>= 7
    parts.append(raw)
    return bytes(parts)
