"""A file as a run of bytes, from any position: plain, or unpacked from gzip (RFC 1952)."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Protocol

from millstream.connect import FatalConnectError

__all__ = ["CHUNK_SIZE_BYTES", "Chunks", "GzipChunks", "PlainChunks", "open_chunks"]

CHUNK_SIZE_BYTES = 256 * 1024
_GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS


class Chunks(Protocol):
    """Bytes of one file, in order. `growing` says that more may come behind the present end."""

    growing: bool

    def read(self) -> bytes:
        """The next bytes; none at the end.

        Raises:
            FatalConnectError: the file is damaged here. All bytes before the damage were read.
        """
        ...

    def close(self) -> None: ...


def open_chunks(path: str, position: int, *, packed: bool) -> Chunks:
    """Open a file at `position`, which counts unpacked bytes.

    Raises:
        OSError: it cannot be opened.
        FatalConnectError: it ends before `position`, so it is not the file it was.
    """
    return GzipChunks(path, position) if packed else PlainChunks(path, position)


def _too_short(path: str, position: int, size_bytes: int) -> FatalConnectError:
    return FatalConnectError(
        f"{path} ends at byte {size_bytes}, but {position} bytes of it were read before: it was "
        "cut or replaced. Put the old file back, or give the new one another name."
    )


class PlainChunks:
    """An unpacked file: goes to a position without reading what is before it."""

    growing = True

    def __init__(self, path: str, position: int) -> None:
        self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed by close()
        size_bytes = self._file.seek(0, 2)
        if size_bytes < position:
            self._file.close()
            raise _too_short(path, position, size_bytes)
        self._file.seek(position)

    def read(self) -> bytes:
        return self._file.read(CHUNK_SIZE_BYTES) or b""

    def close(self) -> None:
        self._file.close()


class GzipChunks:
    """A gzip file, of one or more members. To go to a position, all before it is unpacked again."""

    growing = False

    def __init__(self, path: str, position: int) -> None:
        self._path = path
        self._position = 0
        self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed by close()
        self._packed = b""
        self._member: zlib._Decompress | None = None
        self._begun = False
        self._held = b""
        try:
            self._skip_to(position)
        except FatalConnectError:
            self.close()
            raise

    def _skip_to(self, position: int) -> None:
        while self._position < position:
            chunk = self._unpack()
            if not chunk:
                raise _too_short(self._path, position, self._position)
            beyond = self._position - position
            if beyond > 0:
                self._held = chunk[-beyond:]

    def read(self) -> bytes:
        held, self._held = self._held, b""
        return held or self._unpack()

    def _unpack(self) -> bytes:
        while True:
            if not self._packed:
                self._packed = self._file.read(CHUNK_SIZE_BYTES // 4) or b""
            if not self._packed:
                self._check_complete()
                return b""
            if self._member is None:
                self._packed = self._packed.lstrip(b"\0")  # zeros may pad the end of a member
                if not self._packed:
                    continue
                self._member = zlib.decompressobj(_GZIP_WINDOW_BITS)
                self._begun = True
            chunk = self._unpack_from(self._member)
            if chunk:
                self._position += len(chunk)
                return chunk

    def _unpack_from(self, member: zlib._Decompress) -> bytes:
        try:
            chunk = member.decompress(self._packed, CHUNK_SIZE_BYTES)
        except zlib.error as error:
            raise self._damaged(f"the gzip data is corrupt ({error})") from error
        if member.eof:
            self._packed = member.unused_data
            self._member = None
        else:
            self._packed = member.unconsumed_tail
        return chunk

    def _check_complete(self) -> None:
        if self._member is not None or not self._begun:
            raise self._damaged("the gzip file is truncated: it ends before its data does")

    def _damaged(self, what: str) -> FatalConnectError:
        return FatalConnectError(
            f"{self._path}: {what}, behind byte {self._position} of the unpacked data. Every "
            "complete record before that is delivered; replace the file by an undamaged one and "
            "start again: reading goes on at the next record."
        )

    def close(self) -> None:
        self._file.close()
