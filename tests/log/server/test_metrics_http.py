"""The metrics endpoint: what it answers, and that nobody who misbehaves harms anybody else."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress

import pytest

from millstream.log import ConfigError, LogClosedError
from millstream.log.server.metrics_http import CONNECTIONS_MAX, REQUEST_BYTES_MAX, serve_metrics

TEXT = "# HELP a b\n# TYPE a gauge\na 1\n"


async def ask(address: str, request: bytes) -> tuple[str, dict[str, str], bytes]:
    """Send bytes; the status line, the headers and the body that come back."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status, *lines = head.decode().split("\r\n")
    return status, dict(line.split(": ", 1) for line in lines), body


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: here\r\nAccept: */*\r\n\r\n".encode()


def serve(body, *, sources=(lambda: TEXT,), timeout_s: float = 5.0) -> None:
    async def main() -> None:
        async with asyncio.timeout(20):
            async with serve_metrics(sources, "127.0.0.1:0", timeout_s=timeout_s) as address:
                await body(address)
            assert len(asyncio.all_tasks()) == 1, "a task was left behind"

    asyncio.run(main())


def test_metrics() -> None:
    async def body(address: str) -> None:
        status, headers, text = await ask(address, get("/metrics"))
        assert status == "HTTP/1.1 200 OK"
        assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert headers["Content-Length"] == str(len(text))
        assert text.decode() == TEXT + "more 2\n"
        assert (await ask(address, get("/metrics?name[]=a")))[2] == text
        status, headers, nothing = await ask(address, get("/metrics", "HEAD"))
        assert (status[9:12], headers["Content-Length"]) == ("200", str(len(text)))
        assert nothing == b""

    serve(body, sources=[lambda: TEXT, lambda: "more 2\n"])


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/healthz"), "200 OK"),
        (get("/"), "404 Not Found"),
        (get("/metrics/../etc/passwd"), "404 Not Found"),
        (get("/metrics", "POST"), "405 Method Not Allowed"),
        (b"hello\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", "400 Bad Request"),
        (b"GET /metrics\r\n\r\n", "400 Bad Request"),
        (
            b"GET /metrics HTTP/1.1\r\nX: " + b"." * REQUEST_BYTES_MAX + b"\r\n\r\n",
            "431 Request Header Fields Too Large",
        ),
    ],
    ids=["health", "root", "path", "post", "garbage", "tls", "http09", "large"],
)
def test_other_requests(request_bytes: bytes, status: str) -> None:
    async def body(address: str) -> None:
        answer, headers, _ = await ask(address, request_bytes)
        assert answer == f"HTTP/1.1 {status}"
        assert headers["Connection"] == "close"
        assert (await ask(address, get("/metrics")))[2] == TEXT.encode()

    serve(body)


def test_a_log_that_is_closed() -> None:
    def closed() -> str:
        raise LogClosedError("The log is closed.")

    async def body(address: str) -> None:
        status, _, text = await ask(address, get("/metrics"))
        assert (status[9:12], text) == ("503", b"The log is closed.\n")
        assert (await ask(address, get("/healthz")))[2] == b"ok\n"

    serve(body, sources=[closed])


def test_a_client_that_says_nothing_is_let_go() -> None:
    async def body(address: str) -> None:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /metrics HTT")
        assert (await ask(address, get("/metrics")))[2] == TEXT.encode()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()

    serve(body, timeout_s=0.2)


def test_a_client_that_does_not_read_is_let_go() -> None:
    """More than the buffers of the kernel take."""
    size = 64 << 20

    async def body(address: str) -> None:
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(get("/metrics"))
        await asyncio.sleep(0.5)  # the other side gives up in this time
        assert (await ask(address, get("/healthz")))[2] == b"ok\n"
        received = 0
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                received += len(data)
        assert received < size
        writer.close()

    serve(body, sources=[lambda: "x" * size], timeout_s=0.3)


def test_connections_are_bounded() -> None:
    async def body(address: str) -> None:
        host, _, port = address.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(CONNECTIONS_MAX)]
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(host, int(port))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(2):  # at once, and not when its time is over
                await reader.readexactly(1)
        writer.close()
        for _, each in silent:
            each.close()
        for _ in range(1000):
            try:
                status, _, _ = await ask(address, get("/healthz"))
            except (ConnectionError, ValueError):
                await asyncio.sleep(0)
                continue
            if status:
                break
        assert status == "HTTP/1.1 200 OK"

    serve(body)


def test_leaving_ends_connections_that_wait() -> None:
    async def main() -> None:
        async with serve_metrics([], "127.0.0.1:0") as address:
            host, _, port = address.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            assert (await ask(address, get("/healthz")))[2] == b"ok\n"
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(2):  # at once, and not when its time is over
                await reader.readexactly(1)
        writer.close()
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


def test_leaving_ends_connections_that_have_just_come() -> None:
    """Also those whose task has not begun when it is cancelled."""

    async def main() -> None:
        async with serve_metrics([], "127.0.0.1:0") as address:
            host, _, port = address.rpartition(":")
            client = socket.create_connection((host, int(port)))
            while not any("_serve" in repr(each.get_coro()) for each in asyncio.all_tasks()):
                await asyncio.sleep(0)
        with client, suppress(ConnectionError):
            client.settimeout(2)
            assert client.recv(1) == b""

    asyncio.run(main())


@pytest.mark.parametrize(
    "address", ["", "9464", "host:", ":80", "host:x", "host:70000", "no..host:1", "\0:1"]
)
def test_no_address(address: str) -> None:
    async def main() -> None:
        async with serve_metrics([], address):
            pass

    with pytest.raises(ConfigError, match="HOST:PORT"):
        asyncio.run(main())


def test_an_address_in_use() -> None:
    async def body(address: str) -> None:
        with pytest.raises(ConfigError, match=address):
            async with serve_metrics([], address):
                pass

    serve(body)


def has_ipv6() -> bool:
    """Asked of the system, not of what is tested."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


# Containers often have no loopback of IPv6, and nothing can listen there.
@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_the_address_of_ipv6_is_one_to_be_used() -> None:
    async def main() -> None:
        async with serve_metrics([lambda: TEXT], "[::1]:0") as address:
            assert address.startswith("[::1]:")
            with pytest.raises(ConfigError, match="in use"):
                async with serve_metrics([], address):
                    pass

    asyncio.run(main())


def test_it_says_where(caplog: pytest.LogCaptureFixture) -> None:
    async def body(address: str) -> None:
        assert f"metrics served address={address}" in caplog.text

    with caplog.at_level(logging.INFO):
        serve(body)
