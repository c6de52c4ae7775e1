"""Kafka's primitive types, as the records of the internal topics and the group protocol use them.

All integers big-endian. A string is an int16 length and UTF-8, -1 for null; bytes have an int32
length. "Compact" forms have an unsigned varint of length + 1, 0 for null. Source: Kafka protocol
guide, "Protocol Primitive Types".
"""

from __future__ import annotations

import struct

from millstream.log.errors import CorruptRecordError, InvalidRequestError

__all__ = ["Reader", "Writer", "check_string"]

_INT8 = struct.Struct(">b")
_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_INT64 = struct.Struct(">q")
_INT16_MAX = (1 << 15) - 1


def check_string(what: str, value: str) -> None:
    """Raise InvalidRequestError for a name that no record can hold."""
    try:
        size_bytes = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequestError(f"{what} {value!r} is no text: {error}. Use another.") from None
    if size_bytes > _INT16_MAX:
        raise InvalidRequestError(
            f"{what} {value[:40]}... has {size_bytes} bytes; Kafka's strings have at most "
            f"{_INT16_MAX}. Use a shorter one."
        )


class Writer:
    """Builds one value; `data` is what was written so far."""

    def __init__(self) -> None:
        self.data = bytearray()

    def int8(self, value: int) -> Writer:
        self.data += _INT8.pack(value)
        return self

    def int16(self, value: int) -> Writer:
        self.data += _INT16.pack(value)
        return self

    def int32(self, value: int) -> Writer:
        self.data += _INT32.pack(value)
        return self

    def int64(self, value: int) -> Writer:
        self.data += _INT64.pack(value)
        return self

    def string(self, value: str | None) -> Writer:
        if value is None:
            return self.int16(-1)
        encoded = value.encode()
        self.int16(len(encoded))
        self.data += encoded
        return self

    def blob(self, value: bytes) -> Writer:
        self.int32(len(value))
        self.data += value
        return self

    def uvarint(self, value: int) -> Writer:
        while value > 0x7F:
            self.data.append(value & 0x7F | 0x80)
            value >>= 7
        self.data.append(value)
        return self

    def raw(self, value: bytes) -> Writer:
        self.data += value
        return self

    def compact_string(self, value: str | None) -> Writer:
        if value is None:
            return self.uvarint(0)
        encoded = value.encode()
        self.uvarint(len(encoded) + 1)
        self.data += encoded
        return self


class Reader:
    """Takes one value apart.

    Every method raises CorruptRecordError when the bytes end too early; nothing else escapes.
    """

    def __init__(self, data: bytes, what: str) -> None:
        self._data = data
        self._position = 0
        self._what = what

    def _unpack(self, kind: struct.Struct) -> int:
        return int(kind.unpack(self._take(kind.size))[0])

    def _take(self, size_bytes: int) -> bytes:
        end = self._position + size_bytes
        if size_bytes < 0 or end > len(self._data):
            raise CorruptRecordError(
                f"{self._what}: {size_bytes} bytes wanted at position {self._position} of "
                f"{len(self._data)}."
            )
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def int8(self) -> int:
        return self._unpack(_INT8)

    def int16(self) -> int:
        return self._unpack(_INT16)

    def int32(self) -> int:
        return self._unpack(_INT32)

    def int64(self) -> int:
        return self._unpack(_INT64)

    def string(self) -> str:
        found = self.nullable_string()
        if found is None:
            raise CorruptRecordError(f"{self._what}: null where a string must be.")
        return found

    def nullable_string(self) -> str | None:
        size_bytes = self.int16()
        return None if size_bytes == -1 else self._text(size_bytes)

    def blob(self) -> bytes:
        return self._take(self.int32())

    def nullable_blob(self) -> bytes | None:
        size_bytes = self.int32()
        return None if size_bytes == -1 else self._take(size_bytes)

    def uvarint(self) -> int:
        value = shift = 0
        while True:
            byte = self._take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 28:
                raise CorruptRecordError(f"{self._what}: a varint longer than 32 bits.")

    def compact_string(self) -> str:
        return self._text(self.uvarint() - 1)

    def nullable_compact_string(self) -> str | None:
        size = self.uvarint()
        return None if size == 0 else self._text(size - 1)

    def raw(self, size_bytes: int) -> bytes:
        return self._take(size_bytes)

    def tagged_fields(self) -> dict[int, bytes]:
        """Tag -> bytes; those a release does not know are kept by none and harm none."""
        return {self.uvarint(): self._take(self.uvarint()) for _ in range(self.uvarint())}

    def array_size(self) -> int:
        """Items of an array; at least one byte each, so a lying count is found at once."""
        return self._plausible(self.int32())

    def compact_array_size(self) -> int:
        """As `array_size`, of the compact form."""
        return self._plausible(max(self.uvarint() - 1, 0))

    def _plausible(self, count: int) -> int:
        if not 0 <= count <= len(self._data) - self._position:
            raise CorruptRecordError(f"{self._what}: an array of {count} items cannot be.")
        return count

    def _text(self, size_bytes: int) -> str:
        try:
            return self._take(size_bytes).decode()
        except UnicodeDecodeError as error:
            raise CorruptRecordError(f"{self._what}: a string is not UTF-8.") from error
