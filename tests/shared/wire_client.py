"""A client of Kafka's protocol for tests: one connection, requests by fields, or any bytes."""

from __future__ import annotations

import asyncio
import ssl
import struct
from typing import Any, Self

from shared.asking import request_frame, response_of

__all__ = ["WireClient"]


class WireClient:
    """One connection to a server; enter it to connect.

    Args:
        address: HOST:PORT.
        tls: how to speak TLS.
    """

    def __init__(self, address: str, tls: ssl.SSLContext | None = None) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self._tls = tls
        self._asked = 0

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(
            self._host, self._port, ssl=self._tls
        )
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.writer.transport.abort()
        await asyncio.sleep(0)

    async def ask(self, key: int, version: int, /, **values: Any) -> Any:
        """Send a request and return the fields of its response, as kio has them."""
        self._asked += 1
        self.send(request_frame(key, version, correlation_id=self._asked, **values))
        frame = await self.frame()
        assert frame is not None, "the server has closed the connection"
        return response_of(key, version, frame, correlation_id=self._asked)

    def send(self, frame: bytes) -> None:
        """Send a frame."""
        self.writer.write(struct.pack(">i", len(frame)) + frame)

    async def frame(self) -> bytes | None:
        """The next frame of the server; None when it has closed the connection."""
        try:
            (size,) = struct.unpack(">i", await self.reader.readexactly(4))
            return await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
