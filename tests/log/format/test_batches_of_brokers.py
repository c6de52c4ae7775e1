"""Batches no producer writes but a broker does: compacted, emptied, stamped on append."""

from __future__ import annotations

from millstream.log.format.header import parse_header, seal_batch


def rewritten(batch, records=None, **fields):
    records = batch[61:] if records is None else records
    header = parse_header(batch)._replace(batch_length=49 + len(records), **fields)
    return seal_batch(header, records)


def decode(form, batch):
    header = form.codec.parse_header(batch)
    form.codec.check_batch(batch, 0, header)
    return form.codec.decode_batch(batch, 0, header)


def compacted(form, keep, count=6):
    """A batch at offset 100 after compaction left the records at these offset deltas."""
    records = b""
    for delta in keep:
        one = form.codec.encode_batch(None, [b"%d" % delta], [0], None, 0, 1)[61:]
        assert one[3] == 0
        records += one[:3] + bytes([delta * 2]) + one[4:]
    whole = form.codec.encode_batch(None, [b"x"] * count, [0] * count, None, 0, count)
    return rewritten(whole, records, base_offset=100, records_count=len(keep))


def test_gaps_make_a_list_of_offsets(form):
    columns = decode(form, compacted(form, [1, 3, 4]))
    assert columns.offsets == [101, 103, 104]
    assert columns.values == [b"1", b"3", b"4"]


def test_a_missing_start_or_end_leaves_a_range(form):
    assert decode(form, compacted(form, [2, 3, 4])).offsets == range(102, 105)
    assert decode(form, compacted(form, [0, 1])).offsets == range(100, 102)
    assert decode(form, compacted(form, [5])).offsets == range(105, 106)


def test_an_emptied_batch_has_no_records_and_keeps_its_offsets(form):
    batch = compacted(form, [])
    assert decode(form, batch) == (range(100, 100), [], [], [], None)
    assert form.codec.parse_header(batch).last_offset == 105


def test_log_append_time_replaces_every_timestamp(form):
    batch = form.codec.encode_batch(None, [b"a", b"b"], [5, 9], None, 0, 2)
    stamped = rewritten(batch, attributes=0x08, max_timestamp=77)
    assert decode(form, stamped).timestamps == [77, 77]


def test_a_delete_horizon_is_the_base_of_the_deltas(form):
    """KIP-534: compaction replaces baseTimestamp, and writes the deltas anew."""
    batch = form.codec.encode_batch(None, [b"a", None], [1_000, 1_007], None, 0, 2)
    horizon = rewritten(batch, attributes=0x40, base_timestamp=86_400_000)
    assert decode(form, horizon).timestamps == [86_400_000, 86_400_007]
    assert form.codec.parse_header(horizon).delete_horizon_ms == 86_400_000
