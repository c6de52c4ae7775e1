"""Every decoder of stored bytes, as a function of bytes: one list for all drivers.

A target must answer any input with a result or one of its documented errors. The hypothesis tests
(test_fuzz.py) and the coverage-guided runs (run.py) both take their functions and seeds from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from fuzz import folders, seeds, stored
from millstream.log.broker import offset_records, txn_records
from millstream.log.broker.consumer_protocol import decode_assignment, decode_subscription
from millstream.log.broker.offsets import OffsetLoader, OffsetTable
from millstream.log.broker.topics import TopicTable
from millstream.log.config import check_topic_name
from millstream.log.errors import CorruptRecordError, LogError, StorageError
from millstream.log.format import codec, compression, partitioner
from millstream.log.format.control import control_type
from millstream.log.format.header import check_batch, parse_header
from millstream.log.ids import is_id
from millstream.log.limits import PARTITIONS_PER_TOPIC_MAX
from millstream.log.settings import LONG_MAX
from millstream.log.storage.checkpoints import (
    decode_offsets,
    decode_topic_id,
    encode_offsets,
    encode_partition_metadata,
)
from millstream.log.storage.producer_snapshot import decode_snapshot, encode_snapshot
from shared.partitions import PARTITION
from shared.twin import interpreted_twin

__all__ = ["TARGETS", "Target", "outcome"]

DECOMPRESSED_BYTES_MAX = 1 << 20
"""What the batches here may decompress to, so that the memory of a run tells a bomb."""

interpreted = interpreted_twin()


class Target(NamedTuple):
    """One decoder.

    Args:
        seeds: valid bytes, from the real encoders.
        run: decodes; may raise `errors` and nothing else.
        memory_bytes: what a run may allocate beside a constant times the size of its input.
    """

    name: str
    run: Callable[[bytes], object]
    errors: tuple[type[Exception], ...]
    seeds: Callable[[], Sequence[bytes]]
    memory_bytes: int = 1 << 18


def outcome(target: Target, data: bytes) -> object:
    """What the decoder answers; a documented error is an answer."""
    try:
        return target.run(data)
    except target.errors as error:
        return type(error)


def decode(form: object, data: bytes) -> object:
    """All of one batch, by the compiled or the interpreted codec."""
    try:
        header = parse_header(data)
        columns = form.codec.decode_batch(data, 0, header, size_bytes_max=DECOMPRESSED_BYTES_MAX)
        if header.is_control:
            form.control.control_type(columns)
        return columns
    except CorruptRecordError as error:
        return str(error)


class _Installed:
    """The codec as it is installed."""

    codec = codec

    class control:
        control_type = staticmethod(control_type)


def batch(data: bytes) -> None:
    """Compiled and interpreted must agree, in the words of the error too."""
    assert decode(_Installed, data) == decode(interpreted, data)


def checked_batch(data: bytes) -> None:
    header = parse_header(data)
    check_batch(data, 0, header)
    assert header.size_bytes <= len(data)


def decompress(number: int) -> Callable[[bytes], object]:
    def run(data: bytes) -> None:
        plain = compression.decompress(number, data, DECOMPRESSED_BYTES_MAX)
        assert len(plain) <= DECOMPRESSED_BYTES_MAX

    return run


def murmur2(data: bytes) -> None:
    hashed = partitioner.murmur2(data)
    assert hashed == interpreted.partitioner.murmur2(data)
    keys = [data, None, data[1:]]
    found = partitioner.partitions_for_keys(keys, 7)
    assert found == interpreted.partitioner.partitions_for_keys(keys, 7)
    assert 0 <= found[0] < 7
    assert found[1] == -1


def snapshot(data: bytes) -> None:
    """What is read can be written again, and says the same."""
    state = decode_snapshot(stored.with_checksum(data, 2, 6), "0.snapshot", PARTITION)
    again = encode_snapshot(state)
    assert encode_snapshot(decode_snapshot(again, "0.snapshot", PARTITION)) == again


def checkpoint(data: bytes) -> None:
    offsets = decode_offsets(data, "a checkpoint")
    assert all(0 <= offset <= LONG_MAX for offset in offsets.values())
    assert decode_offsets(encode_offsets(offsets), "the same") == offsets


def topic_id(data: bytes) -> None:
    found = decode_topic_id(data)
    assert found is None or encode_partition_metadata(found) == data


def topics(data: bytes) -> None:
    table = TopicTable.decode(data, "topics.json")
    for topic in table:
        check_topic_name(topic.name)
        assert is_id(topic.topic_id)
        assert 1 <= topic.partitions <= PARTITIONS_PER_TOPIC_MAX
        topic.describe()
    assert TopicTable.decode(table.encode(), "topics.json").encode() == table.encode()


def offset_columns(data: bytes) -> None:
    """A partition of `__consumer_offsets`: keys and values in turn, each with a byte of length."""
    loader, rest, row = OffsetLoader(), data, 0
    while len(rest) >= 2:
        key, value = rest[1 : 1 + rest[0]], rest[1 + rest[0] :][1:]
        value = value[: rest[1 + rest[0]] if len(rest) > 1 + rest[0] else 0]
        rest = rest[2 + len(key) + len(value) :]
        loader._newest[key] = (value, row)
        row += 1
    loader.finish(OffsetTable())


CORRUPT = (CorruptRecordError,)
MIB = 1 << 20
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("batch", batch, CORRUPT, seeds.batches, 24 * MIB),
        Target("checked-batch", checked_batch, CORRUPT, seeds.batches),
        *(
            Target(name, decompress(number), CORRUPT, seeds.compressed(number), 4 * MIB)
            for name, number in compression.COMPRESSION_TYPES.items()
            if number
        ),
        Target("murmur2", murmur2, (), seeds.keys),
        Target("offset-index", stored.offset_index, CORRUPT, seeds.offset_indexes),
        Target("time-index", stored.time_index, CORRUPT, seeds.time_indexes),
        Target("txn-index", stored.txn_index, CORRUPT, seeds.txn_indexes),
        Target("segment", stored.segment, (LogError,), seeds.segments, 4 * MIB),
        Target("snapshot", snapshot, CORRUPT, seeds.snapshots),
        Target("checkpoint", checkpoint, (StorageError,), seeds.points),
        Target("topic-id", topic_id, (), seeds.topic_ids),
        Target("topics", topics, (StorageError,), seeds.topics, 4 * MIB),
        Target("producer-ids", stored.producer_ids, (StorageError,), seeds.producer_ids),
        Target("offset-key", offset_records.decode_key, CORRUPT, seeds.offset_keys),
        Target("offset-value", offset_records.decode_offset_value, CORRUPT, seeds.offset_values),
        Target("group-value", offset_records.decode_group_value, CORRUPT, seeds.group_values),
        Target("offset-columns", offset_columns, CORRUPT, seeds.offset_columns),
        Target("transaction-key", txn_records.decode_key, CORRUPT, seeds.transaction_keys),
        Target(
            "transaction-value",
            lambda data: txn_records.decode_value("id", data),
            CORRUPT,
            seeds.transaction_values,
        ),
        Target("subscription", decode_subscription, CORRUPT, seeds.subscriptions),
        Target("assignment", decode_assignment, CORRUPT, seeds.assignments),
        Target("verify", folders.verified, (), seeds.folder_damages, 24 * MIB),
        Target("dump", folders.dumped, (), seeds.folder_damages, 24 * MIB),
        Target("folder", folders.opened, (), seeds.folder_damages, 24 * MIB),
    )
}
