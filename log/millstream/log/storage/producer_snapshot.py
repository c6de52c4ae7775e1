"""Producer state on disk, so that a start need not read the whole partition.

    OFFSET.snapshot, big-endian:  int16 version (1)   uint32 CRC-32C of what follows   int32 count
    each producer, 46 bytes:      int64 producer id      int16 epoch          int32 last sequence
                                  int64 last offset      int32 offset delta   int64 timestamp
                                  int32 coordinator epoch    int64 first offset of its transaction

It describes the batches below OFFSET. Of the five batches remembered only the last one is kept, as
in Kafka; -1 stands for none. The timestamp is when the producer was last heard of, by this log's
clock: producer.id.expiration.ms counts from it, and records may carry times of years ago. Written
when a segment is closed, at checkpoints and at a clean stop; a snapshot that a crash damaged is
told by its checksum and ignored.
"""

from __future__ import annotations

import struct

from millstream.log.errors import CorruptRecordError
from millstream.log.format.header import checksum
from millstream.log.record import TopicPartition

from .producer_state import SEQUENCES, BatchSequence, ProducerEntry, ProducerState

__all__ = ["decode_snapshot", "encode_snapshot"]

HEAD = struct.Struct(">hIi")
CHECKED_FROM = 6
"""Version and checksum are not covered by the checksum."""
ENTRY = struct.Struct(">qhiqiqiq")
VERSION = 1
NONE = -1


def encode_snapshot(state: ProducerState) -> bytes:
    """The bytes of a snapshot file."""
    entries = b"".join(
        _encode_entry(entry, state.open_transactions.get(entry.producer_id, NONE))
        for entry in state.producers.values()
    )
    covered = struct.pack(">i", len(state.producers)) + entries
    return struct.pack(">hI", VERSION, checksum(covered)) + covered


def _encode_entry(entry: ProducerEntry, first_offset: int) -> bytes:
    last = entry.batches[-1] if entry.batches else None
    return ENTRY.pack(
        entry.producer_id,
        entry.epoch,
        last.last_sequence if last else NONE,
        last.last_offset if last else NONE,
        last.last_offset - last.first_offset if last else 0,
        entry.last_seen_ms,
        entry.coordinator_epoch,
        first_offset,
    )


def decode_snapshot(data: bytes, path: str, topic_partition: TopicPartition) -> ProducerState:
    """From the bytes of a snapshot file; `path` is for messages.

    Raises:
        CorruptRecordError: it is damaged, or a version this release does not know.
    """
    if len(data) < HEAD.size:
        raise CorruptRecordError(f"{path} has {len(data)} bytes, too few for a producer snapshot")
    version, expected, count = HEAD.unpack_from(data)
    if version != VERSION:
        raise CorruptRecordError(f"{path} has version {version}; this release reads {VERSION}")
    found = checksum(memoryview(data)[CHECKED_FROM:])
    if found != expected or len(data) != HEAD.size + count * ENTRY.size:
        raise CorruptRecordError(
            f"{path} is damaged: CRC-32C {found:#010x} where {expected:#010x} was written, "
            f"{len(data)} bytes for {count} producers"
        )
    state = ProducerState(topic_partition)
    transactions = {}
    for fields in ENTRY.iter_unpack(memoryview(data)[HEAD.size :]):
        entry = _entry_of(fields)
        state.producers[entry.producer_id] = entry
        if fields[-1] != NONE:
            transactions[entry.producer_id] = fields[-1]
    state.open_transactions = dict(sorted(transactions.items(), key=lambda item: item[1]))
    return state


def _entry_of(fields: tuple[int, ...]) -> ProducerEntry:
    producer_id, epoch, last_sequence, last_offset, delta, timestamp, coordinator, _ = fields
    entry = ProducerEntry(producer_id, epoch, coordinator, timestamp, timestamp)
    if last_offset != NONE:
        first_sequence = (last_sequence - delta) % SEQUENCES
        entry.batches.append(
            BatchSequence(
                first_sequence, last_sequence, last_offset - delta, last_offset, timestamp
            )
        )
    return entry
