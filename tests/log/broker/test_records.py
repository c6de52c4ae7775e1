"""The records of the internal topics, byte by byte as Kafka's message definitions have them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.log.broker import offset_records, txn_records
from millstream.log.broker.consumer_protocol import decode_assignment, decode_subscription
from millstream.log.broker.internal_topic import _java_hash
from millstream.log.broker.offset_records import GroupRecord, MemberRecord, OffsetKey
from millstream.log.broker.txn_records import TransactionMetadata, TransactionState
from millstream.log.errors import CorruptRecordError
from millstream.log.record import OffsetAndMetadata, TopicPartition

T0 = TopicPartition("t", 0)

names = st.text(min_size=1, max_size=30).filter(lambda text: len(text.encode()) < 200)
int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
partitions = st.builds(TopicPartition, names, st.integers(0, 2**31 - 1))


def test_transaction_log_bytes() -> None:
    assert txn_records.encode_key("ab") == bytes.fromhex("0000 0002 6162")
    metadata = TransactionMetadata(
        "ab",
        producer_id=5,
        epoch=3,
        timeout_ms=60_000,
        state=TransactionState.PREPARE_COMMIT,
        partitions=frozenset({T0, TopicPartition("t", 2), TopicPartition("a", 1)}),
        last_update_ms=1000,
        start_ms=900,
        next_producer_id=6,
    )
    assert txn_records.encode_value(metadata) == bytes.fromhex(
        "0001"  # version 1, the first with compact fields and tags
        "0000000000000005 0003 0000ea60 02"  # producer id, epoch, time-out, PREPARE_COMMIT
        "03"  # two topics
        "02 61 02 00000001 00"  # a: partition 1, no tags
        "02 74 03 00000000 00000002 00"  # t: partitions 0 and 2, no tags
        "00000000000003e8 0000000000000384"  # last update, start
        "02"  # two tagged fields
        "01 08 0000000000000006"  # nextProducerId
        "02 02 0002"  # clientTransactionVersion
    )


def test_version_0_of_the_transaction_log_is_read() -> None:
    data = bytes.fromhex(
        "0000 0000000000000005 0003 0000ea60 01"
        "00000001 0001 74 00000002 00000000 00000007"
        "00000000000003e8 0000000000000384"
    )
    found = txn_records.decode_value("ab", data)
    assert found.state is TransactionState.ONGOING
    assert found.partitions == {T0, TopicPartition("t", 7)}
    assert (found.last_update_ms, found.start_ms) == (1000, 900)
    empty = bytes.fromhex("0000 0000000000000005 0003 0000ea60 00 ffffffff") + bytes(16)
    assert txn_records.decode_value("ab", empty).partitions == frozenset()


def test_offset_bytes() -> None:
    assert offset_records.encode_offset_key("g", T0) == bytes.fromhex(
        "0001 0001 67 0001 74 00000000"
    )
    value = offset_records.encode_offset_value(OffsetAndMetadata(7, "é"), 1000)
    assert value == bytes.fromhex("0003 0000000000000007 ffffffff 0002 c3a9 00000000000003e8")
    older = bytes.fromhex("0001 0000000000000007 0000 00000000000003e8 00000000000003e9")
    assert offset_records.decode_offset_value(older) == (OffsetAndMetadata(7), 1000)


def test_group_bytes() -> None:
    assert offset_records.encode_group_key("g") == bytes.fromhex("0002 0001 67")
    member = MemberRecord("m", None, "c", "", 300_000, 45_000, b"\x01", b"\x02\x03")
    record = GroupRecord("consumer", 4, "range", "m", 1000, (member,))
    assert offset_records.encode_group_value(record) == bytes.fromhex(
        "0003 0008 636f6e73756d6572 00000004 0005 72616e6765 0001 6d 00000000000003e8"
        "00000001 0001 6d ffff 0001 63 0000 000493e0 0000afc8 00000001 01 00000002 0203"
    )


def test_unknown_kinds_of_records_are_skipped() -> None:
    assert offset_records.decode_key(bytes.fromhex("0003 0001 67")) is None
    assert txn_records.decode_key(bytes.fromhex("0007 0001 67")) is None


def test_tags_of_later_releases_are_skipped() -> None:
    metadata = TransactionMetadata("x", 1, 0, 1, TransactionState.EMPTY, frozenset(), 0)
    data = txn_records.encode_value(metadata)
    assert data.endswith(bytes.fromhex("01 02 02 0002"))
    later = data[:-5] + bytes.fromhex("02 02 02 0002 63 03 616263")
    assert txn_records.decode_value("x", later) == metadata


@given(
    names,
    st.builds(
        TransactionMetadata,
        st.just("id"),
        int64,
        st.integers(-1, 32767),
        int32,
        st.sampled_from(TransactionState),
        st.frozensets(partitions, max_size=20),
        int64,
        int64,
        st.integers(-1, 2**63 - 1),
        st.integers(-1, 2**63 - 1),
        st.sampled_from([0, 1, 2]),
        st.just(-1),
    ),
)
def test_transactions_round_trip(name: str, metadata: TransactionMetadata) -> None:
    metadata = metadata._replace(transactional_id=name)
    assert txn_records.decode_key(txn_records.encode_key(name)) == name
    assert txn_records.decode_value(name, txn_records.encode_value(metadata)) == metadata


@given(names, partitions, st.builds(OffsetAndMetadata, st.integers(0, 2**63 - 1), st.text()), int64)
def test_offsets_round_trip(
    group: str, partition: TopicPartition, offset: OffsetAndMetadata, now_ms: int
) -> None:
    key = offset_records.encode_offset_key(group, partition)
    assert offset_records.decode_key(key) == OffsetKey(group, partition)
    value = offset_records.encode_offset_value(offset, now_ms)
    assert offset_records.decode_offset_value(value) == (offset, now_ms)


members = st.builds(
    MemberRecord, names, st.none() | names, names, names, int32, int32, st.binary(), st.binary()
)


@given(
    st.builds(
        GroupRecord,
        names,
        int32,
        st.none() | names,
        st.none() | names,
        int64,
        st.lists(members, max_size=5),
    )
)
def test_groups_round_trip(record: GroupRecord) -> None:
    assert offset_records.decode_group_value(offset_records.encode_group_value(record)) == record


@given(st.binary(max_size=80))
def test_any_bytes_are_a_value_or_a_corrupt_record(data: bytes) -> None:
    for decode in (
        offset_records.decode_key,
        offset_records.decode_offset_value,
        offset_records.decode_group_value,
        txn_records.decode_key,
        lambda raw: txn_records.decode_value("x", raw),
        lambda raw: txn_records.decode_value("x", b"\x00\x01" + raw),
        decode_subscription,
        decode_assignment,
    ):
        with suppress(CorruptRecordError):
            decode(data)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("a", 97), ("group", 98629247), ("millstream-billing-0", None), ("ü😀", 456309)],
)
def test_java_hash(text: str, expected: int | None) -> None:
    """String.hashCode: s[0]*31^(n-1) + ... over UTF-16 units, modulo 2^32."""
    units = text.encode("utf-16-be")
    numbers = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
    computed = sum(n * 31 ** (len(numbers) - 1 - i) for i, n in enumerate(numbers)) % 2**32
    assert _java_hash(text) == computed
    if expected is not None and text != "ü😀":
        assert computed == expected
