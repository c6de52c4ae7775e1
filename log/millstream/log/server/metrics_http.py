"""An HTTP endpoint for whoever watches a process: GET /metrics and GET /healthz, nothing else.

    async with serve_metrics([log.metrics], "127.0.0.1:9464"):

It has no password and no TLS: let it listen where only those who may can reach it. A request is
small and answered within a second or not at all; every connection is closed after its answer. So a
client that is slow, silent or hostile costs one of `CONNECTIONS_MAX` connections for at most
`TIMEOUT_S`, and nobody else anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from millstream.log.errors import ConfigError, MillstreamError
from millstream.log.events import event
from millstream.log.metrics_text import CONTENT_TYPE

from .addresses import parse_address

__all__ = ["CONNECTIONS_MAX", "REQUEST_BYTES_MAX", "TIMEOUT_S", "serve_metrics"]

REQUEST_BYTES_MAX = 8 << 10
"""Request line and headers; what a browser sends fits."""
CONNECTIONS_MAX = 16
"""At once. One collector has one; more than this is no collector."""
TIMEOUT_S = 5.0
"""For the whole of a connection, from its first byte to the last of the answer."""

Source = Callable[[], str]
"""Answers text in the exposition format; called on the event loop, at every request."""

_PLAIN = "text/plain; charset=utf-8"


@asynccontextmanager
async def serve_metrics(
    sources: Sequence[Source], address: str, *, timeout_s: float = TIMEOUT_S
) -> AsyncIterator[str]:
    """Answer requests while the body runs; yields the address, with the port that was taken.

    Args:
        sources: their texts, one after the other, are the answer.
        address: HOST:PORT; port 0 takes any that is free.

    Raises:
        ConfigError: no such address, or it is in use.
    """
    endpoint = _Endpoint(sources, timeout_s)
    host, port = parse_address(address, "127.0.0.1:9464")
    try:
        server = await asyncio.start_server(endpoint.accept, host, port, limit=REQUEST_BYTES_MAX)
    except (OSError, ValueError) as error:  # ValueError: no name of a host
        raise ConfigError(
            f"Metrics cannot be served on {address}: {error}. Choose another HOST:PORT."
        ) from error
    host, port = server.sockets[0].getsockname()[:2]
    bound = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    event("metrics served", address=bound)
    try:
        yield bound
    finally:
        server.close()
        await endpoint.close()
        await server.wait_closed()


class _Endpoint:
    """The connections of one server."""

    def __init__(self, sources: Sequence[Source], timeout_s: float) -> None:
        self._sources = sources
        self._timeout_s = timeout_s
        self._connections: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A client has connected."""
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        # Not in the task: one that is cancelled before it has begun never does.
        task.add_done_callback(lambda _task: writer.transport.abort())

    async def close(self) -> None:
        """End every connection."""
        connections = list(self._connections)
        for each in connections:
            each.cancel()
        if connections:
            await asyncio.wait(connections)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                writer.write(self._answer(await _request_line(reader)))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # the client's affair

    def _answer(self, line: str | None) -> bytes:
        if line is None:
            return _response(431, _PLAIN, f"at most {REQUEST_BYTES_MAX} bytes of headers\n")
        parts = line.split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            return _response(400, _PLAIN, "not an HTTP/1 request\n")
        method, target, _ = parts
        path = target.partition("?")[0]
        if path not in ("/metrics", "/healthz"):
            return _response(404, _PLAIN, "there is /metrics and /healthz\n")
        if method not in ("GET", "HEAD"):
            return _response(405, _PLAIN, "GET only\n")
        with_body = method == "GET"
        if path == "/healthz":
            return _response(200, _PLAIN, "ok\n", with_body=with_body)
        try:
            text = "".join(source() for source in self._sources)
        except MillstreamError as error:
            event("metrics failed", logging.WARNING, error=error)
            return _response(503, _PLAIN, f"{error}\n", with_body=with_body)
        return _response(200, CONTENT_TYPE, text, with_body=with_body)


async def _request_line(reader: asyncio.StreamReader) -> str | None:
    """The first line of a request, read to the end of its headers; None when they are too large."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return None
    return head.split(b"\r\n", 1)[0].decode("latin-1")


_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}


def _response(status: int, kind: str, text: str, *, with_body: bool = True) -> bytes:
    body = text.encode()
    allow = "Allow: GET, HEAD\r\n" if status == 405 else ""
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n{allow}Connection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")
