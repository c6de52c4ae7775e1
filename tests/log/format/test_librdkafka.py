"""librdkafka reads what this codec writes, and the other way round, byte for byte."""

from __future__ import annotations

import struct
import uuid

import confluent_kafka
import pytest

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
TIME = 1_700_000_000_000
KEYS = [b"a", None, b"", b"k" * 100, None]
VALUES = [b'{"n": 1}' * 40, b"", None, b"v" * 70_000, None]
TIMES = [TIME, TIME + 1, TIME - 5, TIME + 86_400_000 * 400, TIME]
HEADERS = [(), (("trace", b"1"), ("trace", b"")), (("null", None), ("ä", b"\xff")), (), ()]
LEADER_EPOCH = struct.Struct(">i")


def consume(bootstrap_servers, topic, count, **config):
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "readers",
            "check.crcs": True,
            "enable.auto.commit": False,
            "log_level": 0,
            **config,
        }
    )
    try:
        consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
        messages = []
        while len(messages) < count:
            found = consumer.consume(count - len(messages), timeout=20)
            assert found, f"{len(messages)} of {count} records came"
            messages += found
        assert [message.error() for message in messages if message.error()] == []
        return messages
    finally:
        consumer.close()


def batches_of(form, mock_cluster, topic, end_offset):
    """(header, bytes) of every batch of the partition; the producer may have made several."""
    offset = 0
    while offset < end_offset:
        data = mock_cluster.fetch(topic, offset)
        position = 0
        while position < len(data):
            header = form.codec.parse_header(data, position)
            yield header, data[position : position + header.size_bytes]
            position += header.size_bytes
            offset = header.last_offset + 1


@pytest.mark.parametrize("name", CODECS)
def test_librdkafka_reads_ours(form, mock_cluster, name):
    batch = form.codec.encode_batch(
        KEYS, VALUES, TIMES, HEADERS, 0, len(VALUES), compression=CODECS.index(name)
    )
    topic = f"ours-{uuid.uuid4().hex}"
    assert mock_cluster.produce(topic, batch) == 0
    assert mock_cluster.produce(topic, batch) == len(VALUES)
    messages = consume(mock_cluster.bootstrap_servers, topic, 2 * len(VALUES))
    assert [m.offset() for m in messages] == list(range(2 * len(VALUES)))
    assert [m.key() for m in messages] == KEYS * 2
    assert [m.value() for m in messages] == VALUES * 2
    assert [m.timestamp() for m in messages] == [
        (confluent_kafka.TIMESTAMP_CREATE_TIME, time) for time in TIMES * 2
    ]
    assert [tuple(m.headers() or ()) for m in messages] == HEADERS * 2


@pytest.mark.parametrize("name", CODECS)
def test_we_read_librdkafka(form, mock_cluster, name):
    topic = f"theirs-{uuid.uuid4().hex}"
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": mock_cluster.bootstrap_servers,
            "compression.type": name,
            # Until flush(): a record that goes alone may be too small to be worth compressing.
            "linger.ms": 60_000,
            "log_level": 0,
        }
    )
    producer.list_topics(topic, 20)  # else records go as the topic is found, one by one
    for key, value, time, headers in zip(KEYS, VALUES, TIMES, HEADERS, strict=True):
        producer.produce(topic, value, key, 0, timestamp=time, headers=list(headers))
    assert producer.flush(20) == 0
    read = []
    for header, batch in batches_of(form, mock_cluster, topic, len(VALUES)):
        form.codec.check_batch(batch, 0, header)
        columns = form.codec.decode_batch(batch, 0, header)
        assert header.compression == CODECS.index(name)
        assert columns.offsets == range(header.base_offset, header.last_offset + 1)
        read += zip(*columns[1:4], columns.headers or [()] * len(columns.values), strict=True)
        if name == "none":
            ours = form.codec.encode_batch(
                *(columns.keys, columns.values, columns.timestamps, columns.headers),
                *(0, len(columns.values)),
                producer_id=header.producer_id,
                producer_epoch=header.producer_epoch,
                base_sequence=header.base_sequence,
            )
            # Base offset and leader epoch are the broker's.
            assert ours[8:12] + ours[16:] == batch[8:12] + batch[16:]
    assert read == list(zip(KEYS, VALUES, TIMES, HEADERS, strict=True))


def test_log_append_time_is_one_time_for_all(form, mock_cluster):
    batch = bytearray(form.codec.encode_batch(None, [b"1", b"2"], [5, 6], None, 0, 2))
    appended = form.codec.parse_header(batch)._replace(
        attributes=0x08, max_timestamp=TIME, base_timestamp=5
    )
    topic = f"append-time-{uuid.uuid4().hex}"
    mock_cluster.produce(topic, form.header.seal_batch(appended, bytes(batch[61:])))
    messages = consume(mock_cluster.bootstrap_servers, topic, 2)
    theirs = [m.timestamp() for m in messages]
    data = mock_cluster.fetch(topic)
    columns = form.codec.decode_batch(data, 0, form.codec.parse_header(data))
    assert theirs == [(confluent_kafka.TIMESTAMP_LOG_APPEND_TIME, TIME)] * 2
    assert columns.timestamps == [TIME, TIME]


def test_librdkafka_steps_over_our_control_batch(form, mock_cluster):
    topic = f"control-{uuid.uuid4().hex}"
    producer = {"producer_id": 7, "producer_epoch": 2, "transactional": True}
    for value in (b"before", b"after"):
        batch = form.codec.encode_batch(
            None, [value], [TIME], None, 0, 1, base_sequence=0, **producer
        )
        mock_cluster.produce(topic, batch)
        marker = form.control.encode_control_batch(
            producer_id=7, producer_epoch=2, commit=True, coordinator_epoch=3, timestamp=TIME
        )
        mock_cluster.produce(topic, marker)
    messages = consume(mock_cluster.bootstrap_servers, topic, 2)
    assert [(m.offset(), m.value()) for m in messages] == [(0, b"before"), (2, b"after")]


def test_both_partition_keys_alike(form, mock_cluster):
    topic = f"keys-{uuid.uuid4().hex}"
    keys = [b"", b"a", b"ab", b"abc", b"abcd", b"abcde", b"\xff\xfe\xfd", *map(str.encode, "äöü")]
    producer = confluent_kafka.Producer(
        {
            "bootstrap.servers": mock_cluster.bootstrap_servers,
            "partitioner": "murmur2",
            "log_level": 0,
        }
    )
    partitions = len(producer.list_topics(topic, timeout=10).topics[topic].partitions)
    found = {}
    for key in keys:
        producer.produce(
            topic, b"", key, on_delivery=lambda _, message: found.update({message.key(): message})
        )
    assert producer.flush(20) == 0
    assert partitions > 1
    assert [found[key].partition() for key in keys] == form.codec.partitions_for_keys(
        keys, partitions
    )
