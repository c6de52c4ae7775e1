"""Whether every record of a batch has a key, told without decoding; batches in another codec."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millstream.log.errors import CorruptRecordError, RecordTooLargeError
from millstream.log.format import codec, recompression
from millstream.log.format.codec import decode_batch, encode_batch, parse_header
from millstream.log.format.recompression import recompressed
from millstream.log.record import Headers

KEYS = st.none() | st.binary(max_size=200)
HEADERS: st.SearchStrategy[Headers] = st.lists(
    st.tuples(st.text(max_size=4), st.none() | st.binary(max_size=4)), max_size=2
).map(tuple)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    records=st.lists(st.tuples(KEYS, KEYS, st.integers(-1, 1 << 40), HEADERS), min_size=1),
    compression=st.sampled_from([0, 0, 2]),
)
def test_the_same_as_decoding(
    form: SimpleNamespace, records: list[tuple], compression: int
) -> None:
    keys, values, times, headers = map(list, zip(*records, strict=True))
    batch = encode_batch(keys, values, times, headers, 0, len(keys), compression=compression)
    expected = keys.index(None) if None in keys else -1
    assert form.codec.first_without_key(batch, parse_header(batch)) == expected


@given(data=st.data())
def test_damage_is_found_or_does_no_harm(form: SimpleNamespace, data: st.DataObject) -> None:
    """Whatever the bytes are: an index, -1, or CorruptRecordError; and nothing outside is read."""
    batch = bytearray(encode_batch([b"key"] * 5, [b"value"] * 5, [1] * 5, None, 0, 5))
    header = parse_header(batch)
    for _ in range(data.draw(st.integers(1, 4))):
        batch[data.draw(st.integers(61, len(batch) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = form.codec.first_without_key(bytes(batch), header)
    except CorruptRecordError:
        found = 0
    assert -1 <= found < 5


def test_fewer_records_than_promised(form: SimpleNamespace) -> None:
    batch = encode_batch([b"k"] * 3, [b"v"] * 3, [1] * 3, None, 0, 3)
    header = parse_header(batch)
    more = header._replace(records_count=4, last_offset_delta=3)
    with pytest.raises(CorruptRecordError, match="bad record"):
        form.codec.first_without_key(batch, more)
    fewer = header._replace(records_count=2)
    with pytest.raises(CorruptRecordError, match="do not end at byte"):
        form.codec.first_without_key(batch, fewer)


def test_nothing_is_recompressed_that_no_reader_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = encode_batch(None, [b"x"] * 100, [1] * 100, None, 0, 100)
    packed = recompressed(batch, parse_header(batch), "gzip", 1)
    assert decode_batch(packed, 0, parse_header(packed)).values == [b"x"] * 100
    assert recompressed(packed, parse_header(packed), "gzip", 9) is packed

    for module in (recompression, codec):
        monkeypatch.setattr(module, "DECOMPRESSED_ITEMS_MAX", 99)
    with pytest.raises(RecordTooLargeError, match="send fewer records at once"):
        recompressed(batch, parse_header(batch), "gzip", 1)
    assert recompressed(packed, parse_header(packed), "uncompressed", None)
