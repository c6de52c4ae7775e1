"""murmur2 as Kafka's Java client computes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

# From Kafka's own tests (UtilsTest.testMurmur2).
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
    b"": 275646681,
}


@pytest.mark.parametrize("key", VECTORS)
def test_kafkas_vectors(form, key):
    assert form.codec.murmur2(key) == VECTORS[key]


@given(st.binary(max_size=40))
def test_as_kafka_python(form, kafka_python, key):
    from kafka.partitioner.default import murmur2

    unsigned = murmur2(key)
    assert form.codec.murmur2(key) & 0xFFFFFFFF == unsigned & 0xFFFFFFFF


@given(st.lists(st.none() | st.binary(max_size=40)), st.integers(1, 100_000))
def test_partitions(form, keys, count):
    found = form.codec.partitions_for_keys(keys, count)
    assert found == form.partitioner.partitions_for_keys(tuple(keys), count)
    assert found == [
        -1 if key is None else (form.codec.murmur2(key) & 0x7FFFFFFF) % count for key in keys
    ]
    assert found == [
        -1 if key is None else form.partitioner.partition_for_key(key, count) for key in keys
    ]


@pytest.mark.parametrize("count", [0, -1])
def test_a_topic_has_partitions(form, count):
    with pytest.raises(ValueError, match="at least one"):
        form.codec.partitions_for_keys([b"a"], count)
