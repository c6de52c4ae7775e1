"""Transaction markers."""

from __future__ import annotations

import struct

import pytest

from millstream.log.errors import CorruptRecordError

MARKER = {"producer_id": 9, "producer_epoch": 4, "coordinator_epoch": 12, "timestamp": 1_000}


def decoded(form, batch):
    header = form.codec.parse_header(batch)
    form.codec.check_batch(batch, 0, header)
    return header, form.codec.decode_batch(batch, 0, header)


@pytest.mark.parametrize(("commit", "kind"), [(True, "commit"), (False, "abort")])
def test_round_trip(form, commit, kind):
    header, columns = decoded(form, form.control.encode_control_batch(commit=commit, **MARKER))
    assert header.is_control
    assert header.is_transactional
    assert (header.producer_id, header.producer_epoch) == (9, 4)
    assert (header.base_sequence, header.last_sequence, header.records_count) == (-1, -1, 1)
    assert columns.keys == [struct.pack(">hh", 0, commit)]
    assert columns.values == [struct.pack(">hi", 0, 12)]
    assert columns.timestamps == [1_000]
    assert form.control.control_type(columns) == kind


def test_kafka_python_reads_a_marker(form, kafka_python):
    batch = kafka_python.DefaultRecordBatch(
        form.control.encode_control_batch(commit=False, **MARKER)
    )
    assert batch.is_control_batch
    assert batch.is_transactional
    (record,) = batch
    assert (record.version, record.abort, record.commit) == (0, True, False)


def test_other_control_records_end_no_transaction(form):
    batch = form.codec.encode_batch(
        [struct.pack(">hh", 0, 2)], [b""], [0], None, 0, 1, control=True
    )
    assert form.control.control_type(decoded(form, batch)[1]) is None


@pytest.mark.parametrize("keys", [[None], [b"\x00\x00\x00"], [b"\xff\xff\x00\x01"], [b"1234"] * 2])
def test_what_is_no_marker_is_corrupt(form, keys):
    batch = form.codec.encode_batch(
        keys, [b""] * len(keys), [0] * len(keys), None, 0, len(keys), control=True
    )
    with pytest.raises(CorruptRecordError, match="control"):
        form.control.control_type(decoded(form, batch)[1])
