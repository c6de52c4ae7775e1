"""How a group's leader shares partitions out: range and roundrobin, exactly as Kafka does it.

Also the bytes in which members tell their subscription and are told their assignment (Kafka's
consumer protocol), so that members on the network and in this process can share a group.

    subscription  int16 version, topics [string], bytes userData     (later versions add fields)
    assignment    int16 version, [string topic, partitions [int32]], bytes userData
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from millstream.log.record import TopicPartition

from .primitives import Reader, Writer

__all__ = [
    "ASSIGNORS",
    "Assignor",
    "assign_range",
    "assign_roundrobin",
    "decode_assignment",
    "decode_subscription",
    "encode_assignment",
    "encode_subscription",
]

_VERSION = 0
_NULL = -1

Assignor = Callable[
    [Mapping[str, Collection[str]], Mapping[str, int]], dict[str, list[TopicPartition]]
]
"""(member -> topics it wants, topic -> partition count) -> member -> its partitions."""


def assign_range(
    subscriptions: Mapping[str, Collection[str]], partitions: Mapping[str, int]
) -> dict[str, list[TopicPartition]]:
    """Topic by topic, members in order of their ids get neighbouring partitions; the first ones get
    one more where it does not come out even. So topics with equally many partitions line up: a
    member has the same numbers of each."""
    assigned: dict[str, list[TopicPartition]] = {member: [] for member in subscriptions}
    for topic in sorted(partitions):
        members = sorted(each for each, topics in subscriptions.items() if topic in topics)
        if not members:
            continue
        share, extra = divmod(partitions[topic], len(members))
        start = 0
        for index, member in enumerate(members):
            stop = start + share + (index < extra)
            assigned[member] += [TopicPartition(topic, number) for number in range(start, stop)]
            start = stop
    return assigned


def assign_roundrobin(
    subscriptions: Mapping[str, Collection[str]], partitions: Mapping[str, int]
) -> dict[str, list[TopicPartition]]:
    """All partitions in order are dealt out in a circle over the members that want their topic."""
    assigned: dict[str, list[TopicPartition]] = {member: [] for member in subscriptions}
    members = sorted(subscriptions)
    turn = 0
    for topic in sorted(partitions):
        if not any(topic in topics for topics in subscriptions.values()):
            continue
        for number in range(partitions[topic]):
            while topic not in subscriptions[members[turn % len(members)]]:
                turn += 1
            assigned[members[turn % len(members)]].append(TopicPartition(topic, number))
            turn += 1
    return assigned


ASSIGNORS: dict[str, Assignor] = {"range": assign_range, "roundrobin": assign_roundrobin}
"""By the name members agree on."""


def encode_subscription(topics: Collection[str]) -> bytes:
    """What a member says when it joins."""
    writer = Writer().int16(_VERSION).int32(len(topics))
    for topic in sorted(topics):
        writer.string(topic)
    return bytes(writer.int32(_NULL).data)


def decode_subscription(data: bytes) -> list[str]:
    """The topics a member wants; fields of later versions are left alone."""
    reader = Reader(data, "group subscription")
    reader.int16()
    return [reader.string() for _ in range(reader.array_size())]


def encode_assignment(partitions: Collection[TopicPartition]) -> bytes:
    """What the leader gives a member."""
    by_topic: dict[str, list[int]] = {}
    for topic, number in sorted(partitions):
        by_topic.setdefault(topic, []).append(number)
    writer = Writer().int16(_VERSION).int32(len(by_topic))
    for topic, numbers in by_topic.items():
        writer.string(topic).int32(len(numbers))
        for number in numbers:
            writer.int32(number)
    return bytes(writer.int32(_NULL).data)


def decode_assignment(data: bytes) -> list[TopicPartition]:
    """A member's partitions; no bytes are no partitions."""
    if not data:
        return []
    reader = Reader(data, "group assignment")
    reader.int16()
    assigned = []
    for _ in range(reader.array_size()):
        topic = reader.string()
        assigned += [TopicPartition(topic, reader.int32()) for _ in range(reader.array_size())]
    return assigned
