"""What is still to be sent, and what a transport is given of it."""

from __future__ import annotations

import asyncio

from millstream.log.server.memory import ResponseMemory
from millstream.log.server.outbox import SENT_AT_ONCE_BYTES, Outbox


class Keeping(asyncio.WriteTransport):
    """Keeps what it is given until the client takes it, as asyncio's does from Python 3.12 on."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.kept.append(data)

    def writelines(self, list_of_data: object) -> None:
        assert isinstance(list_of_data, list)
        self.kept += list_of_data


def test_what_is_counted_no_more_is_kept_by_nobody() -> None:
    memory, transport = ResponseMemory(1 << 20), Keeping()
    outbox = Outbox(memory)
    pieces = [b"head", bytes(range(256)) * 4000, b"", b"tail" * 50, b""]
    sent = b"".join(pieces)
    memory.took(len(sent))
    outbox.put(pieces, 0.0)
    while outbox.size_bytes:
        outbox.send(transport)
    assert b"".join(transport.kept) == sent
    assert memory.used_bytes == 0
    assert all(isinstance(each, bytes) for each in transport.kept), "not a view of a piece"
    sizes = [len(each) for each in transport.kept]
    assert min(sizes) > 0, "asyncio's is never done with what is empty"
    assert max(sizes) <= SENT_AT_ONCE_BYTES
