"""The bytes in which members tell their subscription and are told their assignment: Kafka's
consumer protocol, so that members on the network and in this process can share a group.

    subscription  int16 version, topics [string], bytes? userData,
                  version 1+: owned partitions [string topic, partitions [int32]]
                  version 2+: int32 generation           version 3+: string? rackId
    assignment    int16 version, [string topic, partitions [int32]], bytes? userData

A newer version than 3 is read as version 3: later ones only add fields at the end. What assignors
carry in userData:

    sticky               [string topic, partitions [int32]], version 1+: int32 generation
    cooperative-sticky   int32 generation

Sources: KIP-429 (owned partitions), KIP-792 (generation), KIP-881 (rack).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from millstream.log.errors import CorruptRecordError
from millstream.log.record import TopicPartition

from .primitives import Reader, Writer

__all__ = [
    "NO_GENERATION",
    "Subscription",
    "decode_assignment",
    "decode_generation",
    "decode_subscription",
    "decode_topic_partitions",
    "encode_assignment",
    "encode_generation",
    "encode_subscription",
    "encode_topic_partitions",
]

NO_GENERATION = -1

_NEWEST = 3
_OWNED_SINCE, _GENERATION_SINCE, _RACK_SINCE = 1, 2, 3
_NULL = -1


class Subscription(NamedTuple):
    """What a member says when it joins. `generation` is that in which it was given `owned`."""

    topics: tuple[str, ...]
    owned: tuple[TopicPartition, ...] = ()
    generation: int = NO_GENERATION
    rack_id: str | None = None
    user_data: bytes | None = None


def encode_subscription(subscription: Subscription, version: int = _NEWEST) -> bytes:
    """The bytes of `version`; what an older one has no field for is left out."""
    writer = Writer().int16(version).int32(len(subscription.topics))
    for topic in sorted(subscription.topics):
        writer.string(topic)
    _write_user_data(writer, subscription.user_data)
    if version >= _OWNED_SINCE:
        _write_partitions(writer, subscription.owned)
    if version >= _GENERATION_SINCE:
        writer.int32(subscription.generation)
    if version >= _RACK_SINCE:
        writer.string(subscription.rack_id)
    return bytes(writer.data)


def decode_subscription(data: bytes) -> Subscription:
    """What a member said.

    Raises:
        CorruptRecordError: not such bytes.
    """
    reader = Reader(data, "group subscription")
    version = reader.int16()
    if version < 0:
        raise CorruptRecordError(f"group subscription: version {version} is unknown.")
    topics = tuple(reader.string() for _ in range(reader.array_size()))
    user_data = reader.nullable_blob()
    owned = _read_partitions(reader) if version >= _OWNED_SINCE else ()
    generation = reader.int32() if version >= _GENERATION_SINCE else NO_GENERATION
    rack_id = reader.nullable_string() if version >= _RACK_SINCE else None
    return Subscription(topics, owned, generation, rack_id, user_data)


def encode_assignment(partitions: Collection[TopicPartition], version: int = _NEWEST) -> bytes:
    """What the leader gives a member."""
    writer = Writer().int16(version)
    _write_partitions(writer, partitions)
    _write_user_data(writer, None)
    return bytes(writer.data)


def decode_assignment(data: bytes) -> list[TopicPartition]:
    """A member's partitions; no bytes are no partitions.

    Raises:
        CorruptRecordError: not such bytes.
    """
    if not data:
        return []
    reader = Reader(data, "group assignment")
    reader.int16()
    return list(_read_partitions(reader))


def encode_topic_partitions(partitions: Collection[TopicPartition], generation: int) -> bytes:
    """The userData of the sticky assignor: what a member was last given, and when."""
    writer = Writer()
    _write_partitions(writer, partitions)
    return bytes(writer.int32(generation).data)


def decode_topic_partitions(data: bytes | None) -> tuple[tuple[TopicPartition, ...], int]:
    """What a member of the sticky assignor was last given. Bytes without a generation (version 0)
    are of an unknown one; bytes that make no sense claim nothing, as in Kafka."""
    if not data:
        return (), NO_GENERATION
    reader = Reader(data, "sticky userData")
    try:
        partitions = _read_partitions(reader)
    except CorruptRecordError:
        return (), NO_GENERATION
    return partitions, _generation_or_none(reader)


def encode_generation(generation: int) -> bytes:
    """The userData of the cooperative-sticky assignor."""
    return bytes(Writer().int32(generation).data)


def decode_generation(data: bytes | None) -> int:
    """The generation in the userData of the cooperative-sticky assignor, or NO_GENERATION."""
    return _generation_or_none(Reader(data or b"", "cooperative-sticky userData"))


def _generation_or_none(reader: Reader) -> int:
    try:
        return reader.int32()
    except CorruptRecordError:
        return NO_GENERATION


def _write_user_data(writer: Writer, user_data: bytes | None) -> None:
    if user_data is None:
        writer.int32(_NULL)
    else:
        writer.blob(user_data)


def _write_partitions(writer: Writer, partitions: Collection[TopicPartition]) -> None:
    by_topic: dict[str, list[int]] = {}
    for topic, number in sorted(partitions):
        by_topic.setdefault(topic, []).append(number)
    writer.int32(len(by_topic))
    for topic, numbers in by_topic.items():
        writer.string(topic).int32(len(numbers))
        for number in numbers:
            writer.int32(number)


def _read_partitions(reader: Reader) -> tuple[TopicPartition, ...]:
    found = []
    for _ in range(reader.array_size()):
        topic = reader.string()
        found += [TopicPartition(topic, reader.int32()) for _ in range(reader.array_size())]
    return tuple(found)
