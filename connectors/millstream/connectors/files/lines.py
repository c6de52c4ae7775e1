"""Lines of a file, looked at before they are taken, with their place in it.

Lines end with a line feed; a carriage return before it stays. Memory is bounded: of a line longer
than the limit only the beginning is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from .chunks import Chunks

__all__ = ["EVIDENCE_SIZE_BYTES_MAX", "LineReader"]

EVIDENCE_SIZE_BYTES_MAX = 16 * 1024
"""How much is kept of a line that is too long: enough to recognise it."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class LineReader:
    """Lines of one file from a line start onwards.

    `position` is the byte at which the next line to be taken begins, `line` how many lines come
    before it in the file. `lines` are those at hand; `take` moves past some of them.
    """

    def __init__(
        self, chunks: Chunks, *, position: int, line: int, size_bytes_max: int, tail: bool
    ) -> None:
        self.position = position
        self.line = line
        self.lines: list[bytes] = []
        self._chunks = chunks
        self._size_bytes_max = size_bytes_max
        self._tail = tail and chunks.growing
        self._rest = b""
        self._true_sizes: dict[int, int] = {}
        self._skipped_bytes = 0
        self._unended = False

    @property
    def may_grow(self) -> bool:
        """Whether there may be more behind the present end of the file later."""
        return self._tail

    def close(self) -> None:
        """Close the file."""
        self._chunks.close()

    def fill(self) -> bool:
        """Read until there is at least one more line in `lines`; False when there is none.

        Raises:
            FatalConnectError: the file is damaged behind `lines`.
        """
        while not self._unended:
            chunk = self._chunks.read()
            if not chunk:
                return self._fill_last()
            if self.position == 0 and not self.lines and not self._rest:
                chunk = self._without_mark(chunk)
            if self._split(chunk):
                return True
        return False

    def _without_mark(self, chunk: bytes) -> bytes:
        if chunk.startswith(_BYTE_ORDER_MARK):
            self.position = len(_BYTE_ORDER_MARK)
            return chunk[len(_BYTE_ORDER_MARK) :]
        return chunk

    def _split(self, chunk: bytes) -> bool:
        """Add the lines that end in `chunk`; whether there are any."""
        parts = (self._rest + chunk).split(b"\n")
        self._rest = parts.pop()
        if parts and self._skipped_bytes:
            self._true_sizes[len(self.lines)] = self._skipped_bytes + len(parts[0])
            parts[0] = parts[0][:EVIDENCE_SIZE_BYTES_MAX]
            self._skipped_bytes = 0
        if parts and max(map(len, parts)) > self._size_bytes_max:
            self._cut_long(parts)
        if len(self._rest) > max(self._size_bytes_max, EVIDENCE_SIZE_BYTES_MAX):
            self._skipped_bytes += len(self._rest) - EVIDENCE_SIZE_BYTES_MAX
            self._rest = self._rest[:EVIDENCE_SIZE_BYTES_MAX]
        self.lines += parts
        return bool(parts)

    def _cut_long(self, parts: list[bytes]) -> None:
        first = len(self.lines)
        for i, part in enumerate(parts):
            if len(part) > self._size_bytes_max:
                self._true_sizes.setdefault(first + i, len(part))
                parts[i] = part[:EVIDENCE_SIZE_BYTES_MAX]

    def _fill_last(self) -> bool:
        """At the end of the file: the rest is a line too, unless more may come."""
        if self._tail or not self._rest:
            return False
        self._split(b"\n")
        self._unended = True
        return True

    def too_long(self, i: int) -> int | None:
        """The true size in bytes of line `i` when it is longer than the limit."""
        return self._true_sizes.get(i)

    def regular_count(self) -> int:
        """How many lines at hand come before one that is longer than the limit."""
        return min(self._true_sizes, default=len(self.lines))

    def position_after(self, count: int) -> int:
        """The position behind the first `count` lines."""
        position = self.position + sum(map(len, self.lines[:count])) + count
        for i, size_bytes in self._true_sizes.items():
            if i < count:
                position += size_bytes - len(self.lines[i])
        if self._unended and count == len(self.lines):
            position -= 1
        return position

    def take(self, count: int) -> Sequence[bytes]:
        """Move past the first `count` lines and return them."""
        position = self.position_after(count)
        taken = self.lines[:count]
        self.lines = self.lines[count:]
        self._true_sizes = {
            i - count: size_bytes for i, size_bytes in self._true_sizes.items() if i >= count
        }
        self.position = position
        self.line += count
        return taken
