"""Frames of Kafka's protocol: an int32 length and that many bytes, both ways.

A request begins with a header: API key and version, int16 each, a correlation id, int32, and a
client id, a nullable string in the form of int16 length in every version; version 2, of flexible
requests, has tagged fields after it. A response begins with the correlation id; version 1 has
tagged fields after it. Source: Kafka protocol guide.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from .decoding import MalformedRequestError
from .encoding import Buffers

__all__ = [
    "HEADER_SIZE_BYTES",
    "LENGTH_SIZE_BYTES",
    "FrameReader",
    "RequestHeader",
    "parse_header",
    "response_frame",
]

_LENGTH = struct.Struct(">i")
_HEADER = struct.Struct(">hhih")
HEADER_SIZE_BYTES = _HEADER.size
LENGTH_SIZE_BYTES = _LENGTH.size


class RequestHeader(NamedTuple):
    """What every request begins with; `body` is where the rest begins in the frame."""

    api_key: int
    version: int
    correlation_id: int
    client_id: str | None
    body: int


def parse_header(frame: bytes) -> RequestHeader:
    """The header of a request, up to where tagged fields may follow.

    Raises:
        MalformedRequestError: it is none.
    """
    if len(frame) < _HEADER.size:
        raise MalformedRequestError(f"a request of {len(frame)} bytes.")
    api_key, version, correlation_id, size_bytes = _HEADER.unpack_from(frame)
    body = _HEADER.size + max(size_bytes, 0)
    if size_bytes < -1 or body > len(frame):
        raise MalformedRequestError(f"a client id of {size_bytes} bytes.")
    try:
        client_id = None if size_bytes == -1 else frame[_HEADER.size : body].decode()
    except UnicodeDecodeError as error:
        raise MalformedRequestError("the client id is not UTF-8.") from error
    return RequestHeader(api_key, version, correlation_id, client_id, body)


def response_frame(correlation_id: int, header_version: int, body: Buffers) -> Buffers:
    """A whole response: length, header, body."""
    size_bytes = 4 + header_version + sum(map(len, body))
    head = _LENGTH.pack(size_bytes) + correlation_id.to_bytes(4, "big", signed=True)
    return [head + b"\0" if header_version else head, *body]


class FrameReader:
    """Collects the bytes of one connection into frames.

    A frame's buffer grows with what has come, not with what its length claims.

    Attributes:
        size_bytes_min, size_bytes_max: of one frame; may be changed between two.
    """

    def __init__(self, size_bytes_max: int) -> None:
        self.size_bytes_min = HEADER_SIZE_BYTES
        self.size_bytes_max = size_bytes_max
        self._head = bytearray()
        self._frame = bytearray()
        self._wanted = -1  # bytes of the frame; -1 while its length is not there

    @property
    def in_frame(self) -> bool:
        """Whether a frame has begun that is not whole."""
        return self._wanted >= 0 or bool(self._head)

    @property
    def missing_bytes(self) -> int:
        """Of the frame that is not whole; 0 while its length is not there."""
        return max(self._wanted - len(self._frame), 0)

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that are whole with these bytes.

        Raises:
            MalformedRequestError: a length is negative or too large.
        """
        frames: list[bytes] = []
        position = 0
        while position < len(data):
            if self._wanted < 0:
                taken = data[position : position + 4 - len(self._head)]
                self._head += taken
                position += len(taken)
                if len(self._head) < 4:
                    break
                self._wanted = self._checked(_LENGTH.unpack(self._head)[0])
                self._head.clear()
            missing = self._wanted - len(self._frame)
            if not self._frame and len(data) - position >= missing:
                frames.append(data[position : position + missing])
                position += missing
                self._wanted = -1
                continue
            taken = data[position : position + missing]
            self._frame += taken
            position += len(taken)
            if len(self._frame) == self._wanted:
                frames.append(bytes(self._frame))
                self._frame = bytearray()
                self._wanted = -1
        return frames

    def _checked(self, size_bytes: int) -> int:
        if not self.size_bytes_min <= size_bytes <= self.size_bytes_max:
            raise MalformedRequestError(
                f"a request of {size_bytes} bytes; {self.size_bytes_min} to {self.size_bytes_max} "
                "are taken (socket.request.max.bytes; before a login "
                "sasl.server.max.receive.size)."
            )
        return size_bytes
