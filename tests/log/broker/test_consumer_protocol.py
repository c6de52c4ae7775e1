"""The bytes of Kafka's consumer protocol: all versions, and another client's reading of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.broker.consumer_protocol import (
    NO_GENERATION,
    Subscription,
    decode_assignment,
    decode_generation,
    decode_subscription,
    decode_topic_partitions,
    encode_assignment,
    encode_generation,
    encode_subscription,
    encode_topic_partitions,
)
from millstream.log.errors import CorruptRecordError
from millstream.log.record import TopicPartition

# kafka-python loads its schemas by functions that Python 3.11 deprecates
pytestmark = pytest.mark.filterwarnings("ignore:.*_text is deprecated:DeprecationWarning")

names = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=9)
partitions = st.lists(
    st.builds(TopicPartition, names, st.integers(0, 2**31 - 1)), max_size=9, unique=True
).map(lambda each: tuple(sorted(each)))
subscriptions = st.builds(
    Subscription,
    st.lists(names, max_size=5, unique=True).map(lambda each: tuple(sorted(each))),
    partitions,
    st.integers(-1, 2**31 - 1),
    st.none() | st.text(max_size=5),
    st.none() | st.binary(max_size=9),
)


@given(subscriptions, st.integers(0, 3))
def test_subscriptions_round_trip(subscription: Subscription, version: int) -> None:
    expected = subscription
    if version < 3:
        expected = expected._replace(rack_id=None)
    if version < 2:
        expected = expected._replace(generation=NO_GENERATION)
    if version < 1:
        expected = expected._replace(owned=())
    assert decode_subscription(encode_subscription(subscription, version)) == expected


def test_the_bytes_of_a_subscription() -> None:
    """As the fields of ConsumerProtocolSubscription.json are laid out, one after the other."""
    subscription = Subscription(("b", "a"), (TopicPartition("a", 5),), 7, "r", b"xy")
    assert encode_subscription(subscription).hex(" ", 2) == (
        "0003 0000 0002 0001 6100 0162 0000 0002 7879 0000 0001 0001 6100 0000 0100 0000 0500 0000"
        " 0700 0172"
    )
    assert encode_subscription(Subscription(("a",)), 0).hex() == "000000000001000161ffffffff"


def test_a_later_version_is_read_as_the_newest_known() -> None:
    data = encode_subscription(Subscription(("t",), (), 5, "rack")) + b"later fields"
    assert decode_subscription(b"\0\x09" + data[2:]) == Subscription(("t",), (), 5, "rack")
    with pytest.raises(CorruptRecordError, match="version -1"):
        decode_subscription(b"\xff\xff" + data[2:])


@given(partitions, st.integers(0, 3))
def test_assignments_round_trip(assigned: tuple[TopicPartition, ...], version: int) -> None:
    assert tuple(decode_assignment(encode_assignment(assigned, version))) == assigned
    assert decode_assignment(b"") == []


@given(partitions, st.integers(-1, 2**31 - 1))
def test_what_the_sticky_assignors_carry(
    owned: tuple[TopicPartition, ...], generation: int
) -> None:
    data = encode_topic_partitions(owned, generation)
    assert decode_topic_partitions(data) == (owned, generation)
    assert decode_topic_partitions(data[:-4]) == (owned, NO_GENERATION)  # version 0
    assert decode_generation(encode_generation(generation)) == generation
    assert decode_topic_partitions(None) == ((), NO_GENERATION)
    assert decode_generation(None) == NO_GENERATION


@given(st.binary(max_size=60))
def test_any_user_data_is_survived(data: bytes) -> None:
    decode_topic_partitions(data)
    decode_generation(data)


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_kafka_python_reads_the_same(version: int) -> None:
    from kafka.protocol.consumer.metadata import (
        ConsumerProtocolAssignment,
        ConsumerProtocolSubscription,
    )

    owned = (TopicPartition("a", 0), TopicPartition("a", 3), TopicPartition("b", 1))
    ours = Subscription(("a", "b"), owned, 7, "rack", b"note")
    theirs = ConsumerProtocolSubscription.decode(encode_subscription(ours, version))
    assert (theirs.topics, theirs.user_data) == (["a", "b"], b"note")
    if version >= 1:
        pairs = [(each.topic, each.partitions) for each in theirs.owned_partitions]
        assert pairs == [("a", [0, 3]), ("b", [1])]
    assert version < 2 or theirs.generation_id == 7
    assert version < 3 or theirs.rack_id == "rack"
    assigned = ConsumerProtocolAssignment.decode(encode_assignment(owned, version))
    assert [tuple(each) for each in assigned.partitions()] == list(owned)
    assert decode_assignment(assigned.encode()) == list(owned)


def test_kafka_python_reads_the_same_sticky_data() -> None:
    from kafka.coordinator.assignors.sticky.user_data import StickyAssignorUserData

    data = encode_topic_partitions((TopicPartition("a", 0), TopicPartition("b", 1)), 4)
    theirs = StickyAssignorUserData.decode(data, version=1, header=False)
    assert theirs.generation == 4
    assert theirs.encode(version=1, header=False) == data
