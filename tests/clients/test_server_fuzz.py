"""The request path under attack: the server answers or closes, never dies, never leaks, and
a client beside it notices nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import random
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from millstream.log.broker.broker import Broker
from millstream.log.clock import SystemClock
from millstream.log.config import BrokerConfig
from millstream.log.format.codec import encode_batch
from millstream.log.server import server as server_module
from millstream.log.server.dispatch import apis, call_of
from millstream.log.server.server import Server, serve
from millstream.log.storage.memory_files import MemoryFiles
from shared.asking import request_frame
from shared.certificates import Authority
from shared.hostile import (
    changed,
    lying_frames,
    memory_bytes,
    noise,
    random_request,
    recorded_requests,
    throw,
)
from shared.scram_client import ScramClient
from shared.wire_client import WireClient

PRODUCE, FETCH, METADATA, API_VERSIONS, DESCRIBE = 0, 1, 3, 18, 32
BEGIN = dt.timedelta()


@asynccontextmanager
async def served(listen: str = "127.0.0.1:0", **config: Any) -> AsyncIterator[Server]:
    """A server on a log in memory."""
    settings = {name.replace("_", "."): value for name, value in config.items()}
    broker = await Broker.open(
        MemoryFiles(), "/log", durability="os", config=BrokerConfig.parse(settings),
        clock=SystemClock(),
    )  # fmt: skip
    try:
        async with serve(broker, listen) as server:
            yield server
    finally:
        await broker.close()


class Neighbour:
    """A client that behaves well: what it writes it reads, in order, while others attack."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.rounds = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`."""
        await self._server.broker.create_topic("neighbour", 1)
        async with WireClient(self._server.address) as client:
            while not self._stop.is_set() or self.rounds < 3:
                await self._round(client)

    async def _round(self, client: WireClient) -> None:
        value = str(self.rounds).encode()
        batch = encode_batch(None, [value], [0], None, 0, 1)
        records = [{"index": 0, "records": batch}]
        answer = await client.ask(
            PRODUCE, 9, acks=-1, timeout=dt.timedelta(seconds=1),
            topic_data=[{"name": "neighbour", "partition_data": records}],
        )  # fmt: skip
        written = answer.responses[0].partition_responses[0]
        assert (written.error_code, written.base_offset) == (0, self.rounds)
        wanted = [{"partition": 0, "fetch_offset": self.rounds, "partition_max_bytes": 1 << 20}]
        answer = await client.ask(
            FETCH, 12, max_wait=dt.timedelta(seconds=1), min_bytes=1, max_bytes=1 << 20,
            topics=[{"topic": "neighbour", "partitions": wanted}],
        )  # fmt: skip
        read = answer.responses[0].partitions[0]
        assert (read.error_code, read.high_watermark) == (0, self.rounds + 1)
        assert read.records[17:] == batch[17:]  # before that: offset, leader epoch
        self.rounds += 1

    def stop(self) -> None:
        self._stop.set()


def attacked(
    attack: Callable[[Server], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
    **config: Any,
) -> None:
    """Run an attack beside a neighbour, and look at what it left behind."""

    async def run() -> None:
        async with served(**config) as server:
            neighbour = Neighbour(server)
            running = asyncio.get_running_loop().create_task(neighbour.run())
            try:
                await until(lambda: neighbour.rounds > 2 or running.done())
                tasks, files = len(asyncio.all_tasks()), open_files()
                await attack(server)
                await until(lambda: server.stats().connections <= 1 or running.done())
                rounds = neighbour.rounds
                await until(lambda: neighbour.rounds > rounds + 2 or running.done())
                assert open_files() <= files
                assert len(asyncio.all_tasks()) <= tasks + 1  # the neighbour's own request
            finally:
                neighbour.stop()
                await running
            assert server.stats().running <= 1

    with caplog.at_level(logging.ERROR, "millstream.log"):
        asyncio.run(asyncio.wait_for(run(), 300))
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.ERROR] == []


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def every_version() -> list[tuple[int, int]]:
    return [(key, version) for key, handler in apis().items() for version in handler.versions]


def test_whole_requests_that_mean_anything(caplog: pytest.LogCaptureFixture) -> None:
    """Each is understood, so each is answered: what no client would ask for is an error code."""
    source = random.Random(1)
    no_answer = {PRODUCE}  # acks=0

    async def attack(server: Server) -> None:
        for key, version in every_version():
            frames = [random_request(source, key, version) for _ in range(3)]
            answered = await throw(server.address, frames)

            assert answered == len(frames) or key in no_answer, (key, version)

    attacked(attack, caplog)


def test_changed_requests(caplog: pytest.LogCaptureFixture) -> None:
    source = random.Random(2)

    async def attack(server: Server) -> None:
        seeds = [random_request(source, *each) for each in every_version() for _ in range(2)]
        frames = [changed(source, each) for each in seeds for _ in range(4)]
        source.shuffle(frames)
        assert 0 < await throw(server.address, frames) < len(frames)

    attacked(attack, caplog)


def test_changed_requests_of_real_clients(caplog: pytest.LogCaptureFixture) -> None:
    source = random.Random(6)

    async def attack(server: Server) -> None:
        seeds = recorded_requests()
        assert {0, 1, 3, 9, 11, 18, 22, 28} < {call_of(each).header.api_key for each in seeds}
        frames = [changed(source, each) for each in seeds for _ in range(20)]
        source.shuffle(frames)
        assert 0 < await throw(server.address, frames) < len(frames)

    attacked(attack, caplog)


def test_noise(caplog: pytest.LogCaptureFixture) -> None:
    source = random.Random(3)

    async def attack(server: Server) -> None:
        await throw(server.address, [noise(source) for _ in range(1000)])

    attacked(attack, caplog)


def test_lengths_that_lie_take_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    """A claim of two billion items is refused before memory is asked for."""

    async def attack(server: Server) -> None:
        before = {what: memory_bytes(what) for what in ("VmHWM", "VmPeak")}
        frames = list(lying_frames())
        random.Random(4).shuffle(frames)
        await throw(server.address, frames[:4000])
        assert memory_bytes("VmHWM") - before["VmHWM"] < 48 << 20
        assert memory_bytes("VmPeak") - before["VmPeak"] < 256 << 20

    attacked(attack, caplog)


def test_requests_of_too_many_items_take_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    """All there, and each a byte or two that would become an object."""
    count = 2_000_000
    head = struct.pack(">hhih", METADATA, 4, 7, -1)

    async def attack(server: Server) -> None:
        before = memory_bytes("VmHWM")
        frame = head + struct.pack(">i", count) + bytes(2 * count) + b"\0"
        assert await throw(server.address, [frame] * 5) == 0
        assert memory_bytes("VmHWM") - before < 100 << 20

    attacked(attack, caplog)


def test_a_resource_is_described_once(caplog: pytest.LogCaptureFixture) -> None:
    """80 KB that would be answered with 24 MB."""
    resources = [{"resource_type": 4, "resource_name": "0", "configuration_keys": None}] * 10_000
    frame = request_frame(DESCRIBE, 4, resources=resources, include_documentation=True)

    async def attack(server: Server) -> None:
        async with WireClient(server.address) as client:
            client.send(frame)
            answer = await client.frame()
            assert answer is not None
            assert len(answer) < 1 << 16

    attacked(attack, caplog)


@pytest.mark.parametrize("size", [-1, 0, 3, 2**31 - 1, 100 << 20, -(2**31)])
def test_frames_of_impossible_lengths(size: int, caplog: pytest.LogCaptureFixture) -> None:
    async def attack(server: Server) -> None:
        before = memory_bytes("VmHWM")
        for _ in range(20):
            async with WireClient(server.address) as client:
                client.writer.write(struct.pack(">i", size) + b"\0\x12\0\0" * 10)
                if size != 100 << 20:  # that one is allowed, and may come
                    assert await client.frame() is None
        assert memory_bytes("VmHWM") - before < 16 << 20

    attacked(attack, caplog)


def test_an_honest_slow_sender_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    async def attack(server: Server) -> None:
        frame = request_frame(API_VERSIONS, 3, **software())
        async with WireClient(server.address) as client:
            for byte in struct.pack(">i", len(frame)) + frame:
                client.writer.write(bytes([byte]))
                await client.writer.drain()
                await asyncio.sleep(0)
            assert await client.frame() is not None

    attacked(attack, caplog)


def software() -> dict[str, str]:
    return {"client_software_name": "tests", "client_software_version": "1"}


@pytest.mark.parametrize("sent_bytes", [1, 3, 4, 11, 20])
def test_one_who_stops_amid_a_frame_is_cut_off(
    sent_bytes: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "STUCK_S", 0.3)
    frame = request_frame(API_VERSIONS, 3, **software())
    data = struct.pack(">i", len(frame)) + frame

    async def attack(server: Server) -> None:
        clients = [WireClient(server.address) for _ in range(20)]
        for each in clients:
            await each.__aenter__()
            each.writer.write(data[:sent_bytes])
        assert [await each.frame() for each in clients] == [None] * len(clients)
        for each in clients:
            await each.__aexit__()

    attacked(attack, caplog)


def test_one_who_takes_no_answers_is_cut_off(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And holds no more than is allowed until then, however much it asks for."""
    monkeypatch.setattr(server_module, "STUCK_S", 0.3)
    resources = [{"resource_type": 4, "resource_name": "0", "configuration_keys": None}]
    frame = request_frame(DESCRIBE, 4, resources=resources, include_documentation=True)

    async def attack(server: Server) -> None:
        before = memory_bytes("VmHWM")
        refused = server.stats().refused
        clients = [WireClient(server.address) for _ in range(5)]
        for each in clients:
            await each.__aenter__()
            each.writer.transport.pause_reading()
            for _ in range(5000):  # 25 MB of answers each
                each.send(frame)
        await until(lambda: server.stats().refused == refused + len(clients))
        assert memory_bytes("VmHWM") - before < 4 << 20
        for each in clients:
            await each.__aexit__()

    attacked(attack, caplog)


def test_half_closed_connections(caplog: pytest.LogCaptureFixture) -> None:
    """Who sends no more is answered what was asked, and then closed."""
    frame = request_frame(API_VERSIONS, 3, **software())

    async def attack(server: Server) -> None:
        for requests in (0, 1, 5, 40):
            async with WireClient(server.address) as client:
                for _ in range(requests):
                    client.send(frame)
                client.writer.write_eof()
                for _ in range(requests):
                    assert await client.frame() is not None
                assert await client.frame() is None
        async with WireClient(server.address) as client:
            client.writer.write(struct.pack(">i", len(frame)) + frame[:5])
            client.writer.write_eof()
            assert await client.frame() is None

    attacked(attack, caplog)


def test_thousands_of_connections(caplog: pytest.LogCaptureFixture) -> None:
    frame = request_frame(API_VERSIONS, 3, **software())

    async def attack(server: Server) -> None:
        for number in range(2000):
            async with WireClient(server.address) as client:
                if number % 4 == 1:
                    client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
                elif number % 4 == 2:
                    client.send(frame)
                elif number % 4 == 3:
                    client.send(frame)
                    assert await client.frame() is not None

    attacked(attack, caplog)


def test_handshakes_and_logins_broken_off(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """TLS that is changed, cut short or none at all; SASL that is left at every step."""
    source = random.Random(8)
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server", "/CN=localhost")
    tls = ssl.create_default_context(cafile=str(authority.certificate))

    async def attack(server: Server) -> None:
        _, by_tls, by_login, by_both = [each.rpartition("/")[2] for each in server.addresses]
        for _ in range(30):
            await no_handshake(source, source.choice((by_tls, by_both)), tls)
            await behind_tls(source, source.choice((by_tls, by_both)), tls)
            await half_a_login(source, by_login, None)
            await half_a_login(source, by_both, tls)

    attacked(
        attack,
        caplog,
        listen=",".join(
            f"{each}://127.0.0.1:0" for each in ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
        ),
        ssl_certificate_location=str(certificate),
        ssl_key_location=str(key),
        sasl_enabled_mechanisms="PLAIN,SCRAM-SHA-256",
        connection_failed_authentication_delay_ms="1",
        allow_everyone_if_no_acl_found="true",
    )


async def no_handshake(source: random.Random, address: str, tls: ssl.SSLContext) -> None:
    hello = client_hello(tls)
    kinds = (hello[: source.randrange(len(hello))], changed(source, hello), noise(source))
    async with WireClient(address) as client:
        client.writer.write(source.choice((*kinds, hello + noise(source))))
        if source.random() < 0.5:
            client.writer.write_eof()
            with suppress(ConnectionError):
                while await client.reader.read(1 << 16):
                    pass


async def behind_tls(source: random.Random, address: str, tls: ssl.SSLContext) -> None:
    async with WireClient(address, tls) as client:
        for frame in source.sample(recorded_requests(), 3):
            client.send(changed(source, frame))
        if source.random() < 0.5:
            client.writer.transport.abort()
        else:
            await client.frame()


async def half_a_login(source: random.Random, address: str, tls: ssl.SSLContext | None) -> None:
    """Left after any number of steps, some of which may be changed."""
    version = source.choice((0, 1))  # after the first, messages come without a request around them
    tokens = [ScramClient("SCRAM-SHA-256", "nobody", "x").first(), b"\0nobody\0x", b"", b"x"]
    steps = [request_frame(17, version, mechanism=source.choice(("PLAIN", "SCRAM-SHA-256")))]
    steps += [
        token if not version else request_frame(36, 2, auth_bytes=token)
        for token in source.choices(tokens, k=source.randrange(4))
    ]
    with suppress(ConnectionError, ssl.SSLError):
        async with WireClient(address, tls) as client:
            for step in steps[: source.randrange(1, len(steps) + 1)]:
                client.send(changed(source, step) if source.random() < 0.3 else step)
                with suppress(TimeoutError):
                    await asyncio.wait_for(client.frame(), source.choice((0.001, 0.02)))


def client_hello(tls: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        tls.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def test_more_connections_than_are_allowed(caplog: pytest.LogCaptureFixture) -> None:
    frame = request_frame(API_VERSIONS, 3, **software())

    async def attack(server: Server) -> None:
        clients = [WireClient(server.address) for _ in range(100)]
        for each in clients:
            await each.__aenter__()
        await until(lambda: server.stats().refused >= 71)
        served_now = 0
        for each in clients:
            with suppress(ConnectionError):
                each.send(frame)
            served_now += await each.frame() is not None
        assert served_now == 29  # the neighbour has one of 30
        for each in clients:
            await each.__aexit__()

    attacked(attack, caplog, max_connections=30)


@pytest.mark.slow
def test_a_long_attack_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What is resident after half of it is what is resident after all of it."""
    source = random.Random(int(os.environ.get("FUZZ_SEED", "5")))
    seconds = float(os.environ.get("FUZZ_SECONDS", "30"))

    async def attack(server: Server) -> None:
        loop = asyncio.get_running_loop()
        resident = []
        for _ in range(2):
            end = loop.time() + seconds / 2
            while loop.time() < end:
                key, version = source.choice(every_version())
                seeds = [random_request(source, key, version) for _ in range(20)]
                seeds += source.sample(recorded_requests(), 5)
                await throw(
                    server.address, [changed(source, each) for each in seeds for _ in range(3)]
                )
                await throw(server.address, [noise(source) for _ in range(20)])
            resident.append(memory_bytes("VmRSS"))
        assert resident[1] - resident[0] < 64 << 20, resident

    attacked(attack, caplog)
