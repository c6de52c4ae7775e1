"""The records of `__consumer_offsets`, in Kafka's layout.

    committed offset   key    int16 1, string group, string topic, int32 partition
                       value  int16 3, int64 offset, int32 leaderEpoch, string metadata,
                              int64 commitTimestampMs        (version 1 ended with an expiry time)
    group              key    int16 2, string group
                       value  int16 3, string protocolType, int32 generation, string? protocol,
                              string? leader, int64 stateTimestampMs, members [string memberId,
                              string? groupInstanceId, string clientId, string clientHost,
                              int32 rebalanceTimeoutMs, int32 sessionTimeoutMs, bytes subscription,
                              bytes assignment]

A null value is a tombstone. Keys of other versions belong to newer kinds of groups and are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from millstream.log.errors import CorruptRecordError
from millstream.log.record import OffsetAndMetadata, TopicPartition

from .primitives import Reader, Writer

__all__ = [
    "GroupRecord",
    "MemberRecord",
    "OffsetKey",
    "OffsetRecord",
    "decode_group_value",
    "decode_key",
    "decode_offset_value",
    "encode_group_key",
    "encode_group_value",
    "encode_offset_key",
    "encode_offset_value",
]

_OFFSET_KEY_VERSIONS = (0, 1)
_GROUP_KEY_VERSION = 2
_VALUE_VERSION = 3
_OFFSET_VALUE_VERSIONS = (0, 1, 2, 3)
_NO_LEADER_EPOCH = -1


class OffsetKey(NamedTuple):
    """Whose offset, of which partition."""

    group: str
    topic_partition: TopicPartition


class OffsetRecord(NamedTuple):
    """A committed offset, and when it was committed (Unix milliseconds)."""

    value: OffsetAndMetadata
    committed_ms: int


class MemberRecord(NamedTuple):
    """A member as the group record holds it."""

    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout_ms: int
    session_timeout_ms: int
    subscription: bytes
    assignment: bytes


class GroupRecord(NamedTuple):
    """A group after a rebalance."""

    protocol_type: str
    generation: int
    protocol: str | None
    leader: str | None
    state_timestamp_ms: int
    members: Sequence[MemberRecord]


def encode_offset_key(group: str, topic_partition: TopicPartition) -> bytes:
    """The key of a committed offset."""
    topic, partition = topic_partition
    return bytes(Writer().int16(1).string(group).string(topic).int32(partition).data)


def encode_group_key(group: str) -> bytes:
    """The key of a group's own record."""
    return bytes(Writer().int16(_GROUP_KEY_VERSION).string(group).data)


def decode_key(data: bytes) -> OffsetKey | str | None:
    """An offset's key, a group's name, or None for a kind of record this release does not know.

    Raises:
        CorruptRecordError: the bytes end too early.
    """
    reader = Reader(data, "__consumer_offsets key")
    version = reader.int16()
    if version in _OFFSET_KEY_VERSIONS:
        return OffsetKey(reader.string(), TopicPartition(reader.string(), reader.int32()))
    return reader.string() if version == _GROUP_KEY_VERSION else None


def encode_offset_value(offset: OffsetAndMetadata, committed_ms: int) -> bytes:
    """A committed offset."""
    writer = Writer().int16(_VALUE_VERSION).int64(offset.offset).int32(_NO_LEADER_EPOCH)
    return bytes(writer.string(offset.metadata).int64(committed_ms).data)


def decode_offset_value(data: bytes) -> OffsetRecord:
    """A committed offset, its note and its time.

    Raises:
        CorruptRecordError: not such a value.
    """
    reader = Reader(data, "__consumer_offsets offset value")
    version = reader.int16()
    if version not in _OFFSET_VALUE_VERSIONS:
        raise CorruptRecordError(f"__consumer_offsets offset value: version {version} is unknown.")
    offset = reader.int64()
    if version == _VALUE_VERSION:
        reader.int32()
    return OffsetRecord(OffsetAndMetadata(offset, reader.string()), reader.int64())


def encode_group_value(group: GroupRecord) -> bytes:
    """A group's own record."""
    writer = Writer().int16(_VALUE_VERSION).string(group.protocol_type).int32(group.generation)
    writer.string(group.protocol).string(group.leader).int64(group.state_timestamp_ms)
    writer.int32(len(group.members))
    for member in group.members:
        writer.string(member.member_id).string(member.group_instance_id)
        writer.string(member.client_id).string(member.client_host)
        writer.int32(member.rebalance_timeout_ms).int32(member.session_timeout_ms)
        writer.blob(member.subscription).blob(member.assignment)
    return bytes(writer.data)


def decode_group_value(data: bytes) -> GroupRecord:
    """A group's own record.

    Raises:
        CorruptRecordError: not such a value.
    """
    reader = Reader(data, "__consumer_offsets group value")
    version = reader.int16()
    if version != _VALUE_VERSION:
        raise CorruptRecordError(f"__consumer_offsets group value: version {version} is unknown.")
    protocol_type, generation = reader.string(), reader.int32()
    protocol, leader = reader.nullable_string(), reader.nullable_string()
    timestamp_ms = reader.int64()
    members = [
        MemberRecord(
            reader.string(),
            reader.nullable_string(),
            reader.string(),
            reader.string(),
            reader.int32(),
            reader.int32(),
            reader.blob(),
            reader.blob(),
        )
        for _ in range(reader.array_size())
    ]
    return GroupRecord(protocol_type, generation, protocol, leader, timestamp_ms, members)
