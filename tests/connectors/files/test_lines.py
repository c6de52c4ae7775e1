"""Chunks and lines: any cut of the bytes gives the same lines, damage loses nothing before it."""

from __future__ import annotations

import gzip
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millstream.connect import FatalConnectError
from millstream.connectors.files.chunks import CHUNK_SIZE_BYTES, Chunks, open_chunks
from millstream.connectors.files.lines import EVIDENCE_SIZE_BYTES_MAX, LineReader


class Pieces:
    """Bytes in pieces of given sizes, over and over; may grow."""

    growing = True

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.data = data
        self._sizes = sizes
        self._reads = 0

    def read(self) -> bytes:
        size = self._sizes[self._reads % len(self._sizes)]
        self._reads += 1
        piece, self.data = self.data[:size], self.data[size:]
        return piece

    def close(self) -> None: ...


def lines_of(
    data: bytes, sizes: list[int], takes: list[int], limit: int, *, tail: bool = False
) -> list[tuple[bytes, int | None, int, int]]:
    """(line, true size if too long, line number, position) of each line, taken a few at a time."""
    reader = LineReader(Pieces(data, sizes), position=0, line=0, size_bytes_max=limit, tail=tail)
    found = []
    count = 0
    while reader.lines or reader.fill():
        wanted = min(takes[count % len(takes)], len(reader.lines))
        count += 1
        for i in range(wanted):
            place = reader.line + i, reader.position_after(i)
            found.append((reader.lines[i], reader.too_long(i), *place))
        reader.take(wanted)
    assert reader.position <= len(data)
    if not tail:
        assert reader.position == len(data)
    return found


DATA = st.lists(
    st.binary(max_size=12) | st.sampled_from([b"", b"\r", b"x" * 30, b"\xef\xbb\xbf"])
).map(b"\n".join)
SIZES = st.lists(st.integers(1, 20), min_size=1, max_size=5)


@given(DATA, SIZES, SIZES)
def test_any_cut_gives_the_same_lines_at_the_same_places(
    data: bytes, sizes: list[int], takes: list[int]
) -> None:
    if data.startswith(b"\xef\xbb\xbf") and len(data) > sizes[0]:
        sizes = [max(3, sizes[0]), *sizes[1:]]  # real files are read in larger chunks than a mark
    found = lines_of(data, sizes, takes, limit=100)
    position = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    expected = data[position:].split(b"\n")
    if expected[-1] == b"":
        expected.pop()
    for number, line in enumerate(expected):
        assert found[number] == (line, None, number, position)
        position += len(line) + 1
    assert len(found) == len(expected)


@given(st.lists(st.sampled_from([1, 5, 6, 200, 40_000]), max_size=6), SIZES)
def test_long_lines_are_cut_and_everything_else_keeps_its_place(
    lengths: list[int], takes: list[int]
) -> None:
    lines = [bytes([97 + i]) * length for i, length in enumerate(lengths)]
    data = b"".join(line + b"\n" for line in lines)
    for limit in (5, 30_000):
        found = lines_of(data, [1000, 7], takes, limit=limit)
        position = 0
        for number, line in enumerate(lines):
            text, true_size, line_number, at = found[number]
            assert (line_number, at) == (number, position)
            assert true_size == (len(line) if len(line) > limit else None)
            assert text == (line if len(line) <= limit else line[:EVIDENCE_SIZE_BYTES_MAX])
            position += len(line) + 1


def test_a_tail_leaves_a_line_until_it_is_complete() -> None:
    pieces = Pieces(b"one\ntw", [100])
    reader = LineReader(pieces, position=0, line=0, size_bytes_max=100, tail=True)
    assert reader.fill()
    assert reader.take(1) == [b"one"]
    assert not reader.fill()
    pieces.data = b"o\nthree"
    assert reader.fill()
    assert reader.take(1) == [b"two"]
    assert (reader.position, reader.line) == (8, 2)
    assert not reader.fill()


def content(chunks: Chunks) -> bytes:
    data = b""
    with closing(chunks):
        while chunk := chunks.read():
            assert len(chunk) <= CHUNK_SIZE_BYTES
            data += chunk
    return data


MANY = b"".join(b"%08d\n" % number for number in range(100_000))


@pytest.mark.parametrize("position", [0, 1, 9, CHUNK_SIZE_BYTES, CHUNK_SIZE_BYTES + 1, len(MANY)])
@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_read_from_any_position(tmp_path: Path, position: int, packed: bool) -> None:
    path = tmp_path / "many"
    path.write_bytes(gzip.compress(MANY) if packed else MANY)
    assert content(open_chunks(str(path), position, packed=packed)) == MANY[position:]


def test_a_gzip_file_may_have_members_and_padding(tmp_path: Path) -> None:
    path = tmp_path / "members.gz"
    path.write_bytes(
        gzip.compress(b"one\n") + gzip.compress(b"") + gzip.compress(MANY) + bytes(700)
    )
    assert content(open_chunks(str(path), 0, packed=True)) == b"one\n" + MANY


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_shorter_than_what_was_read_of_it_is_refused(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "short"
    path.write_bytes(gzip.compress(b"abc") if packed else b"abc")
    with pytest.raises(FatalConnectError, match="ends at byte 3, but 4 bytes of it were read"):
        open_chunks(str(path), 4, packed=packed)


WHOLE_GZIP = gzip.compress(MANY, mtime=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, len(WHOLE_GZIP) - 1))
def test_a_truncated_gzip_gives_all_there_is_and_then_the_error(cut: int) -> None:
    data = bytearray()
    with closing(open_truncated(WHOLE_GZIP[:cut])) as chunks:
        with pytest.raises(FatalConnectError, match="truncated") as raised:
            read_into(data, chunks)
    assert MANY.startswith(data)
    assert f"behind byte {len(data)} of the unpacked data" in str(raised.value)
    assert "reading goes on at the next record" in str(raised.value)
    if cut > len(WHOLE_GZIP) // 2:
        assert len(data) > len(MANY) // 3


def read_into(data: bytearray, chunks: Chunks) -> None:
    while chunk := chunks.read():
        data += chunk


def open_truncated(data: bytes) -> Chunks:
    with tempfile.NamedTemporaryFile(suffix=".gz") as file:
        file.write(data)
        file.flush()
        return open_chunks(file.name, 0, packed=True)


@pytest.mark.parametrize(
    "damage", [lambda data: b"not gzip at all", lambda data: data[:-6] + b"\0\0" + data[-4:]]
)
def test_a_corrupt_gzip_is_an_error(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "corrupt.gz"
    path.write_bytes(damage(gzip.compress(MANY)))
    chunks = open_chunks(str(path), 0, packed=True)
    with pytest.raises(FatalConnectError, match="the gzip data is corrupt"):
        content(chunks)
