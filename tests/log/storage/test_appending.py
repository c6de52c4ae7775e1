"""What a partition takes of a topic's settings: times, keys, codecs, copies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from millstream.log.config import TopicConfig
from millstream.log.errors import (
    CorruptRecordError,
    InvalidRecordError,
    InvalidTimestampError,
    LogError,
    NotEnoughReplicasError,
    RecordTooLargeError,
)
from millstream.log.format.codec import check_batch, decode_batch, encode_batch, parse_header
from millstream.log.format.compression import COMPRESSION_TYPES
from millstream.log.format.header import (
    ATTRIBUTE_LOG_APPEND_TIME,
    HEADER_SIZE_BYTES,
    LENGTH_END,
    seal_batch,
)
from millstream.log.storage.partition import Partition
from shared.partitions import NOW_MS, SMALL, batch, flush, fresh, headers, values

HOUR_MS = 3_600_000
LARGE = replace(SMALL, segment_bytes=1 << 20)


def timed(*times: int, compression: int = 0) -> bytes:
    return encode_batch(
        [b"k"] * len(times),
        [b"v"] * len(times),
        times,
        None,
        0,
        len(times),
        compression=compression,
    )


def keyed(*keys: bytes | None, compression: int = 0) -> bytes:
    count = len(keys)
    return encode_batch(
        keys, [b"v"] * count, [NOW_MS] * count, None, 0, count, compression=compression
    )


def refused(partition: Partition, data: bytes, kind: type[LogError]) -> str:
    """Try it; nothing may have been written. The message."""
    before = partition.log_end_offset
    with pytest.raises(kind) as caught:
        partition.append(data, NOW_MS)
    assert type(caught.value) is kind
    assert partition.log_end_offset == before
    assert not partition.failed
    return str(caught.value)


# Times


@pytest.mark.parametrize("compression", [0, 4])
def test_a_time_ahead_of_the_clock(compression: int) -> None:
    partition = fresh()
    partition.append(timed(NOW_MS, NOW_MS + HOUR_MS, compression=compression), NOW_MS)
    late = timed(NOW_MS, NOW_MS + HOUR_MS + 1, NOW_MS, compression=compression)
    message = refused(partition, late, InvalidTimestampError)
    assert "record 1 of 3" in message
    assert f"timestamp {NOW_MS + HOUR_MS + 1}, {HOUR_MS + 1} ms after" in message
    assert f"message.timestamp.after.max.ms of the topic is {HOUR_MS}" in message
    assert InvalidTimestampError.kafka_code == 32


def test_a_time_behind_the_clock() -> None:
    partition = fresh(replace(SMALL, message_timestamp_before_max_ms=1000))
    partition.append(timed(NOW_MS, NOW_MS - 1000), NOW_MS)
    # The header says NOW_MS for the first and the latest record; the last one is too early.
    message = refused(partition, timed(NOW_MS, NOW_MS, NOW_MS - 1001), InvalidTimestampError)
    assert "record 2 of 3" in message
    assert "message.timestamp.before.max.ms of the topic is 1000" in message
    partition.append(timed(NOW_MS - 1000, NOW_MS), NOW_MS)


def test_no_limit_behind_by_default_and_none_for_records_without_a_time() -> None:
    partition = fresh()
    partition.append(timed(0, 1), NOW_MS)
    strict = fresh(
        replace(SMALL, message_timestamp_before_max_ms=0, message_timestamp_after_max_ms=0)
    )
    strict.append(timed(-1, -1), NOW_MS)
    strict.append(timed(NOW_MS, -1), NOW_MS)
    refused(strict, timed(NOW_MS + 1), InvalidTimestampError)
    refused(strict, timed(NOW_MS - 1), InvalidTimestampError)


def test_under_log_append_time_the_producers_time_does_not_matter() -> None:
    config = replace(
        SMALL,
        message_timestamp_type="LogAppendTime",
        message_timestamp_before_max_ms=0,
        message_timestamp_after_max_ms=0,
    )
    partition = fresh(config)
    assert partition.append(timed(5, NOW_MS * 2), NOW_MS).timestamp == NOW_MS
    _, header, data = headers(partition._segments.active)[0]
    assert header.is_log_append_time
    assert decode_batch(data, 0, header).timestamps == [NOW_MS, NOW_MS]


def test_the_kind_of_time_can_change_while_running() -> None:
    partition = fresh(LARGE)
    assert partition.append(timed(5, 6), NOW_MS).timestamp == -1
    partition.config = replace(LARGE, message_timestamp_type="LogAppendTime")
    assert partition.append(timed(7), NOW_MS).timestamp == NOW_MS
    partition.config = LARGE
    assert partition.append(timed(8), NOW_MS).timestamp == -1
    found = [
        time
        for segment in partition._segments
        for _, header, data in headers(segment)
        for time in decode_batch(data, 0, header).timestamps
    ]
    assert found == [5, 6, NOW_MS, 8]


def test_only_the_log_says_that_a_time_is_its_own() -> None:
    data = timed(NOW_MS)
    header = parse_header(data)
    header = header._replace(attributes=header.attributes | ATTRIBUTE_LOG_APPEND_TIME)
    claimed = seal_batch(header, data[HEADER_SIZE_BYTES:])
    for kind in ("CreateTime", "LogAppendTime"):
        partition = fresh(replace(SMALL, message_timestamp_type=kind))
        assert "mend the producer" in refused(partition, claimed, InvalidTimestampError)


def test_a_retry_is_answered_with_the_first_time() -> None:
    partition = fresh(replace(SMALL, message_timestamp_type="LogAppendTime"))
    sent = batch([b"a"], producer_id=1, epoch=0, sequence=0)
    first = partition.append(sent, NOW_MS)
    again = partition.append(sent, NOW_MS + 500)
    assert again == first._replace(duplicate=True)
    assert again.timestamp == NOW_MS


# Keys


@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("policy", [("compact",), ("compact", "delete")])
def test_a_compacted_topic_takes_no_record_without_a_key(
    policy: tuple[str, ...], compression: int
) -> None:
    partition = fresh(replace(SMALL, cleanup_policy=policy))
    partition.append(keyed(b"a", b"", compression=compression), NOW_MS)
    message = refused(partition, keyed(b"a", None, b"b", None), InvalidRecordError)
    assert "record 1 of 4" in message
    assert "cleanup.policy" in message
    assert InvalidRecordError.kafka_code == 87


@pytest.mark.parametrize("policy", [("delete",), ()])
def test_other_topics_do(policy: tuple[str, ...]) -> None:
    fresh(replace(SMALL, cleanup_policy=policy)).append(keyed(None), NOW_MS)


def test_a_compacted_topic_looks_at_the_records() -> None:
    partition = fresh(replace(SMALL, cleanup_policy=("compact",)))
    data = keyed(b"a")
    header = parse_header(data)
    garbage = seal_batch(header, bytes(len(data) - HEADER_SIZE_BYTES))
    refused(partition, garbage, CorruptRecordError)


def test_markers_are_no_records() -> None:
    partition = fresh(replace(SMALL, cleanup_policy=("compact",)))
    partition.append_marker(1, 0, commit=True, coordinator_epoch=0, now_ms=NOW_MS + 2 * HOUR_MS)


# Copies


def test_more_copies_than_there_are() -> None:
    partition = fresh(replace(SMALL, min_insync_replicas=2))
    message = refused(partition, batch([b"a"]), NotEnoughReplicasError)
    assert "Set min.insync.replicas of topic orders to 1" in message
    assert NotEnoughReplicasError.kafka_code == 19


# Codecs

NAMES = {"uncompressed": 0, **{name: code for name, code in COMPRESSION_TYPES.items() if code}}


@pytest.mark.parametrize("wanted", [*NAMES, "producer"])
@pytest.mark.parametrize("sent", COMPRESSION_TYPES)
def test_batches_are_kept_in_the_topics_codec(sent: str, wanted: str) -> None:
    partition = fresh(replace(LARGE, compression_type=wanted))
    names = [b"value %d" % i for i in range(50)]
    data = batch(
        names,
        producer_id=5,
        epoch=3,
        sequence=7,
        transactional=True,
        compression=COMPRESSION_TYPES[sent],
    )
    partition.append(batch([b"before"]), NOW_MS)
    info = partition.append(data, NOW_MS)
    assert (info.base_offset, info.last_offset) == (1, 50)
    _, header, stored = headers(partition._segments.active)[1]
    expected = COMPRESSION_TYPES[sent] if wanted == "producer" else NAMES[wanted]
    assert header.compression == expected
    check_batch(stored, 0, header)
    old, new = (decode_batch(data, 0, parse_header(data)), decode_batch(stored, 0, header))
    assert new[1:] == old[1:]
    assert list(new.offsets) == list(range(1, 51))
    unchanged = ("producer_id", "producer_epoch", "base_sequence", "records_count")
    for name in (*unchanged, "base_timestamp", "max_timestamp", "last_offset_delta"):
        assert getattr(header, name) == getattr(parse_header(data), name)
    assert header.is_transactional
    if COMPRESSION_TYPES[sent] == expected:
        assert stored[21:] == data[21:]  # the very bytes
    # A retry comes as it was sent, and is told by its sequence.
    assert partition.append(data, NOW_MS) == info._replace(duplicate=True)


def test_levels() -> None:
    names = [b"the quick brown fox %d jumps over %d" % (i * 7919 % 1000, i) for i in range(3000)]

    def size(**levels: int) -> int:
        config = TopicConfig(**levels)
        partition = fresh(config)
        partition.append(batch(names), NOW_MS)
        return partition._segments.active.size_bytes

    for name, low, high in (("gzip", 1, 9), ("lz4", 9, 12), ("zstd", -5, 19)):
        sizes = [
            size(compression_type=name, **{f"compression_{name}_level": level})
            for level in (low, high)
        ]
        assert sizes[1] < sizes[0], name
    # The level of another codec means nothing.
    assert size(compression_type="gzip", compression_zstd_level=1) == size(compression_type="gzip")


def test_recompressed_under_log_append_time() -> None:
    config = replace(LARGE, compression_type="lz4", message_timestamp_type="LogAppendTime")
    partition = fresh(config)
    partition.append(batch([b"a", b"b"]), NOW_MS + 3)
    flush(partition)
    _, header, stored = headers(partition._segments.active)[0]
    assert (header.compression, header.max_timestamp) == (3, NOW_MS + 3)
    assert decode_batch(stored, 0, header).timestamps == [NOW_MS + 3] * 2
    assert values(partition) == [b"a", b"b"]


def test_the_size_limit_counts_before_and_after() -> None:
    names = [b"x" * 100] * 100
    plain, packed = batch(names), batch(names, compression=4)
    assert len(packed) < 500 < len(plain)
    kept = fresh(replace(LARGE, max_message_bytes=500))
    kept.append(packed, NOW_MS)
    unpacking = fresh(replace(LARGE, max_message_bytes=500, compression_type="uncompressed"))
    assert "max.message.bytes is 500" in refused(unpacking, packed, RecordTooLargeError)
    packing = fresh(replace(LARGE, max_message_bytes=500, compression_type="zstd"))
    refused(packing, plain, RecordTooLargeError)


def test_what_is_not_compressed_as_it_says() -> None:
    data = batch([b"a"], compression=4)
    header = parse_header(data)
    wrong = seal_batch(header, bytes(len(data) - HEADER_SIZE_BYTES))
    partition = fresh(replace(SMALL, compression_type="uncompressed"))
    refused(partition, wrong, CorruptRecordError)


def test_a_batch_without_the_bytes_of_its_records() -> None:
    """Too short to be admitted to a transaction, it opened one that nobody could end."""
    partition = fresh()
    identity = {"producer_id": 7, "producer_epoch": 0, "base_sequence": 0}
    whole = encode_batch([None], [b"v"], [NOW_MS], None, 0, 1, transactional=True, **identity)
    header = parse_header(whole)._replace(batch_length=HEADER_SIZE_BYTES - LENGTH_END)
    message = refused(partition, seal_batch(header, b""), CorruptRecordError)
    assert "no bytes were sent for 1 records" in message
    assert partition.open_transactions() == {}
