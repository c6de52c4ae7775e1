"""What was written is read again, and the bytes are those of Kafka's other clients."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

GZIP = 1
TIME_MAX = 1 << 61

EDGES = [(1, -1), (1, 0), (1, 1), (-1, -1), (-1, 0), (-1, 1)]

data = st.none() | st.binary(max_size=300)
times = st.one_of(
    st.integers(-1, 20_000),
    st.integers(1_700_000_000_000, 1_700_000_000_200),
    st.integers(-1, TIME_MAX),
)
headers = st.lists(st.tuples(st.text(max_size=5), data), max_size=3).map(tuple)
rows = st.lists(st.tuples(data, data, times, headers), min_size=1, max_size=80)
producers = st.fixed_dictionaries(
    {
        "producer_id": st.integers(-1, (1 << 63) - 1),
        "producer_epoch": st.integers(-1, (1 << 15) - 1),
        "base_sequence": st.integers(-1, (1 << 31) - 1),
        "transactional": st.booleans(),
    }
)


def columns_of(records):
    """The columns of the records, headers None where none has any, as the decoder gives them."""
    keys, values, timestamps, found = (list(column) for column in zip(*records, strict=True))
    return keys, values, timestamps, found if any(found) else None


@given(rows, st.integers(0, 4), producers, st.data())
def test_round_trip(form, records, compression, producer, draw):
    keys, values, timestamps, found = columns_of(records)
    start = draw.draw(st.integers(0, len(records) - 1))
    stop = draw.draw(st.integers(start + 1, len(records)))
    batch = form.codec.encode_batch(
        *(keys, values, timestamps, found, start, stop), compression=compression, **producer
    )
    buffer = b"\xff" * 7 + batch + b"\xff" * 7
    header = form.codec.parse_header(buffer, 7)
    form.codec.check_batch(buffer, 7, header)
    assert header.size_bytes == len(batch)
    assert header.compression == compression
    assert header.leader_epoch == -1
    assert header.records_count == stop - start
    assert (header.base_offset, header.last_offset) == (0, stop - start - 1)
    assert header.max_timestamp == max(timestamps[start:stop])
    assert header.is_transactional == producer["transactional"]
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (
        *(producer["producer_id"], producer["producer_epoch"], producer["base_sequence"]),
    )
    expected = (range(stop - start), *columns_of(records[start:stop]))
    for view in (buffer, bytearray(buffer), memoryview(buffer)):
        columns = form.codec.decode_batch(view, 7, header)
        assert columns == expected
        assert {type(each) for each in (*columns.keys, *columns.values)} <= {bytes, type(None)}


@given(rows, producers, st.sampled_from([0, GZIP]))
def test_kafka_python_reads_ours(form, kafka_python, records, producer, compression):
    keys, values, timestamps, found = columns_of(records)
    batch = form.codec.encode_batch(
        *(keys, values, timestamps, found, 0, len(records)), compression=compression, **producer
    )
    theirs = kafka_python.DefaultRecordBatch(batch)
    assert theirs.validate_crc()
    assert theirs.is_transactional == producer["transactional"]
    read = [(r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in theirs]
    assert read == [(i, t, k, v, h) for i, (k, v, t, h) in enumerate(records)]


@given(rows, producers)
def test_bytes_are_those_of_kafka_python(form, kafka_python, records, producer):
    keys, values, timestamps, found = columns_of(records)
    builder = kafka_python.DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=producer["transactional"],
        producer_id=producer["producer_id"],
        producer_epoch=producer["producer_epoch"],
        base_sequence=producer["base_sequence"],
        batch_size=1 << 30,
    )
    for i, (key, value, time, each) in enumerate(records):
        builder.append(i, time, key, value, list(each))
    theirs = bytes(builder.build())
    ours = form.codec.encode_batch(keys, values, timestamps, found, 0, len(records), **producer)
    # They say leader epoch 0 and we, like the Java client, -1; the broker sets it.
    assert ours[:12] + ours[16:] == theirs[:12] + theirs[16:]
    header = form.codec.parse_header(theirs)
    assert form.codec.decode_batch(theirs, 0, header)[1:] == (keys, values, timestamps, found)


@given(rows, st.integers(0, 3000))
def test_a_filled_batch_fits_and_one_record_more_does_not(form, records, size_bytes_max):
    keys, values, timestamps, found = columns_of(records)
    start = 0
    while start < len(records):
        stop = form.codec.fill_batches(keys, values, timestamps, found, start, size_bytes_max)
        size_bytes = len(form.codec.encode_batch(keys, values, timestamps, found, start, stop))
        assert size_bytes <= size_bytes_max or stop == start + 1
        if stop < len(records):
            larger = form.codec.encode_batch(keys, values, timestamps, found, start, stop + 1)
            assert len(larger) > size_bytes_max
        start = stop


@given(rows, st.data())
def test_a_batch_is_filled_to_the_last_byte(form, records, draw):
    keys, values, timestamps, found = columns_of(records)
    stop = draw.draw(st.integers(1, len(records)))
    size_bytes = len(form.codec.encode_batch(keys, values, timestamps, found, 0, stop))
    columns = (keys, values, timestamps, found)
    assert form.codec.fill_batches(*columns, 0, size_bytes) == stop
    if stop > 1:
        assert form.codec.fill_batches(*columns, 0, size_bytes - 1) == stop - 1


@pytest.mark.parametrize("bits", [6, 7, 13, 14, 20, 21, 27, 34, 41, 48, 55])
def test_numbers_at_the_edges_of_a_byte_more(form, kafka_python, bits):
    timestamps = [1 << 60, *((1 << 60) + sign * ((1 << bits) + d) for sign, d in EDGES)]
    sizes = [(1 << bits) + d if bits <= 20 else 1 for _, d in EDGES]
    values = [b"v", *map(bytes, sizes)]
    builder = kafka_python.DefaultRecordBatchBuilder(*(2, 0, False, -1, -1, -1), batch_size=1 << 30)
    for i, (value, time) in enumerate(zip(values, timestamps, strict=True)):
        builder.append(i, time, value, value, [("h", value)])
    headers = [(("h", value),) for value in values]
    ours = form.codec.encode_batch(values, values, timestamps, headers, 0, len(values))
    assert ours[61:] == bytes(builder.build())[61:]
    columns = form.codec.decode_batch(ours, 0, form.codec.parse_header(ours))
    assert columns[1:] == (values, values, timestamps, headers)


@given(rows)
def test_no_record_takes_more_than_estimated(form, records):
    keys, values, timestamps, found = columns_of(records)
    estimated = sum(form.codec.estimate_size(k, v, h) for k, v, _, h in records)
    batch = form.codec.encode_batch(keys, values, timestamps, found, 0, len(records))
    assert len(batch) - form.codec.HEADER_SIZE_BYTES <= estimated


def test_no_keys_column_means_no_keys(form):
    timestamps = [1, 2]
    with_none = form.codec.encode_batch([None, None], [b"a", b"b"], timestamps, None, 0, 2)
    assert form.codec.encode_batch(None, (b"a", b"b"), range(1, 3), None, 0, 2) == with_none
    assert form.codec.fill_batches(None, [b"a", b"b"], timestamps, None, 0, 1) == 1


@pytest.mark.parametrize(
    ("columns", "error", "match"),
    [
        ((["k"], [b"v"], [0], None), TypeError, "record 0 is str"),
        ((None, [bytearray(b"v")], [0], None), TypeError, "record 0 is bytearray"),
        ((None, [b"v"], [0], [((b"key", b""),)]), TypeError, "give a str"),
        ((None, [b"v"], [0], [(("key", "text"),)]), TypeError, "give a str"),
        ((None, [b"v"], [-2], None), OverflowError, "timestamp -2 of record 0"),
        ((None, [b"v"], [TIME_MAX + 1], None), OverflowError, "record 0"),
        ((None, [], [], None), ValueError, "at least one"),
    ],
)
def test_what_cannot_be_written_is_refused(form, columns, error, match):
    with pytest.raises(error, match=match):
        form.codec.encode_batch(*columns, 0, 1)
