"""The small files, in Kafka's layouts."""

from __future__ import annotations

import pytest

from millstream.log.errors import StorageError
from millstream.log.record import TopicPartition
from millstream.log.storage.checkpoints import (
    decode_offsets,
    decode_topic_id,
    encode_leader_epochs,
    encode_meta_properties,
    encode_offsets,
    encode_partition_metadata,
)
from millstream.log.storage.layout import offset_file, offset_of, partition_of

ORDERS = {TopicPartition("orders", 1): 57, TopicPartition("a.b_c-d", 0): 0}


def test_offset_checkpoint() -> None:
    data = encode_offsets(ORDERS)
    assert data == b"0\n2\na.b_c-d 0 0\norders 1 57\n"
    assert decode_offsets(data, "x") == ORDERS
    assert decode_offsets(encode_offsets({}), "x") == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"0\n",
        b"1\n0\n",
        b"0\n2\norders 1 57\n",
        b"0\n1\norders 57\n",
        b"0\n1\norders one 57\n",
        b"\0" * 20,
        b"\xff\xfe",
    ],
)
def test_a_damaged_checkpoint_is_named(data: bytes) -> None:
    with pytest.raises(StorageError, match=r"the-checkpoint is damaged.*remove it"):
        decode_offsets(data, "the-checkpoint")


def test_leader_epochs() -> None:
    assert encode_leader_epochs(0, 0) == b"0\n1\n0 0\n"


def test_partition_metadata() -> None:
    data = encode_partition_metadata("mD3CLkLrRUaWSiLQkBNZCg")
    assert data == b"version: 0\ntopic_id: mD3CLkLrRUaWSiLQkBNZCg\n"
    assert decode_topic_id(data) == "mD3CLkLrRUaWSiLQkBNZCg"
    for length in range(len(data)):
        assert decode_topic_id(data[:length]) is None
    assert decode_topic_id(bytes(len(data))) is None


def test_meta_properties() -> None:
    data = encode_meta_properties(cluster_id="c", node_id=0, directory_id="d")
    assert data == b"version=1\ncluster.id=c\nnode.id=0\ndirectory.id=d\n"


def test_file_names() -> None:
    assert offset_file("f", 57, ".log") == "f/00000000000000000057.log"
    assert offset_of("00000000000000000057.log", ".log") == 57
    for name in ("57.log", "00000000000000000057.index", "0000000000000000005x.log", ".log"):
        assert offset_of(name, ".log") is None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("orders-0", TopicPartition("orders", 0)),
        ("a-b-12", TopicPartition("a-b", 12)),
        ("__consumer_offsets-49", TopicPartition("__consumer_offsets", 49)),
        ("orders", None),
        ("-0", None),
        ("orders-", None),
        ("orders-01", None),
        ("orders--1", TopicPartition("orders-", 1)),
        ("orders-0.mD3C-delete", None),
        ("orders-0.3-stray", None),
        ("orders-²", None),
    ],
)
def test_folder_names(name: str, wanted: TopicPartition | None) -> None:
    assert partition_of(name) == wanted
