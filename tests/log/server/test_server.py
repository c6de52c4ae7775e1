"""Listening, pipelining, limits and stopping; attacks are in tests/clients/test_server_fuzz.py."""

from __future__ import annotations

import asyncio
import datetime as dt
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from millstream.log import ConfigError, open_log
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.format.codec import encode_batch
from millstream.log.server.server import Server
from shared.asking import request_frame, response_of
from shared.commands import run
from shared.serve_command import serving
from shared.wire_client import WireClient

PRODUCE, FETCH, METADATA = 0, 1, 3
SECOND = dt.timedelta(seconds=1)


def served(test: Callable[[EmbeddedLog, Server], Awaitable[None]], **config: Any) -> None:
    """Run a test on a served log in memory."""
    settings = {name.replace("_", "."): value for name, value in config.items()}

    async def main() -> None:
        async with open_log("memory:", config=settings) as log:
            assert isinstance(log, EmbeddedLog)
            await log.create_topic("t")
            async with log.serve("127.0.0.1:0") as server:
                await test(log, server)

    asyncio.run(asyncio.wait_for(main(), 60))


def produce_frame(value: bytes, number: int, acks: int = -1) -> bytes:
    records = [{"index": 0, "records": encode_batch(None, [value], [0], None, 0, 1)}]
    data = [{"name": "t", "partition_data": records}]
    return request_frame(
        PRODUCE, 9, correlation_id=number, acks=acks, timeout=SECOND, topic_data=data
    )


def fetch_frame(number: int, offset: int, wait: dt.timedelta, topic: str = "t") -> bytes:
    partition = {"partition": 0, "fetch_offset": offset, "partition_max_bytes": 1 << 20}
    topics = [{"topic": topic, "partitions": [partition | {"current_leader_epoch": -1}]}]
    return request_frame(
        FETCH, 12, correlation_id=number, topics=topics, max_wait=wait, min_bytes=1,
        max_bytes=1 << 20,
    )  # fmt: skip


async def numbers(client: WireClient, count: int) -> list[int]:
    """The correlation ids of the next answers."""
    found = []
    for _ in range(count):
        frame = await client.frame()
        assert frame is not None
        found.append(struct.unpack_from(">i", frame)[0])
    return found


def test_answers_come_in_the_order_of_requests() -> None:
    """Also those begun together, and behind a fetch that waits. acks=0 has none."""

    async def test(_log: EmbeddedLog, server: Server) -> None:
        async with WireClient(server.address) as client, WireClient(server.address) as other:
            for number in range(50):
                client.send(produce_frame(b"%d" % number, number, acks=0 if number == 7 else -1))
            client.send(fetch_frame(50, 50, dt.timedelta(seconds=20)))
            client.send(request_frame(METADATA, 9, correlation_id=51, topics=[]))
            client.send(produce_frame(b"late", 52))
            expected = [number for number in range(50) if number != 7]
            assert await numbers(client, 49) == expected
            other.send(produce_frame(b"wakes", 0))
            assert await numbers(other, 1) == [0]
            assert await numbers(client, 3) == [50, 51, 52]

    served(test)


def test_a_request_sees_what_those_before_it_did() -> None:
    async def test(_log: EmbeddedLog, server: Server) -> None:
        async with WireClient(server.address) as client:
            client.send(produce_frame(b"seen", 1))
            client.send(fetch_frame(2, 0, dt.timedelta()))
            assert await numbers(client, 1) == [1]
            frame = await client.frame()
            assert frame is not None
            answer = response_of(FETCH, 12, frame, correlation_id=2)
            assert b"seen" in answer.responses[0].partitions[0].records

    served(test)


def test_pipelined_batches_are_stored_in_order() -> None:
    async def test(log: EmbeddedLog, server: Server) -> None:
        async with WireClient(server.address) as client:
            for number in range(200):
                client.send(produce_frame(b"%d" % number, number))
            assert await numbers(client, 200) == list(range(200))
        async with log.consumer("t") as consumer:
            values: list[bytes | None] = []
            while len(values) < 200:
                values += [each.value for each in await consumer.poll()]
            assert values == [b"%d" % number for number in range(200)]

    served(test)


def test_a_log_is_used_and_served_at_the_same_time() -> None:
    async def test(log: EmbeddedLog, server: Server) -> None:
        async with log.producer() as producer, WireClient(server.address) as client:
            client.send(fetch_frame(1, 0, dt.timedelta(seconds=20)))
            await producer.send("t", b"from inside")
            frame = await client.frame()
            assert frame is not None
            answer = response_of(FETCH, 12, frame, correlation_id=1)
            assert b"from inside" in answer.responses[0].partitions[0].records

    served(test)


def test_a_stop_answers_what_was_begun_and_cuts_fetches_short() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            assert isinstance(log, EmbeddedLog)
            await log.create_topic("t")
            await log.create_topic("quiet")
            async with log.serve("127.0.0.1:0") as server:
                writer, reader = WireClient(server.address), WireClient(server.address)
                await writer.__aenter__()
                await reader.__aenter__()
                reader.send(fetch_frame(1, 0, dt.timedelta(seconds=50), "quiet"))
                writer.send(produce_frame(b"last", 5))
                while server.stats().running < 1 or not server.stats().requests.get(PRODUCE):
                    await asyncio.sleep(0)
            assert await numbers(writer, 1) == [5]
            assert [await writer.frame(), await reader.frame()] == [None, None]
            await writer.__aexit__()
            await reader.__aexit__()
            assert server.stats()[0] == 0
            with pytest.raises(ConnectionRefusedError):
                await WireClient(server.address).__aenter__()

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_connection_without_requests_is_closed_in_time() -> None:
    async def test(_log: EmbeddedLog, server: Server) -> None:
        async with WireClient(server.address) as client:
            assert await client.frame() is None

    served(test, connections_max_idle_ms=100)


def test_connections_from_one_address_are_limited() -> None:
    async def test(_log: EmbeddedLog, server: Server) -> None:
        async with WireClient(server.address) as first:
            await first.ask(METADATA, 9, topics=[])
            async with WireClient(server.address) as second:
                assert await second.frame() is None
            await first.ask(METADATA, 9, topics=[])
        while server.stats().connections:
            await asyncio.sleep(0.001)
        async with WireClient(server.address) as third:
            await third.ask(METADATA, 9, topics=[])

    served(test, max_connections_per_ip=1)


def test_who_may_listen_where() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            assert isinstance(log, EmbeddedLog)
            for address, settings, words in (
                ("0.0.0.0:0", {}, "insecure-no-auth"),
                ("0.0.0.0:0", {"insecure": True}, "advertised"),
                ("nonsense", {}, "HOST:PORT"),
                ("127.0.0.1:99999", {}, "HOST:PORT"),
                ("no-such-host.invalid:0", {}, "cannot be listened on"),
                ("127.0.0.1:0", {"advertised": "a:1,b:2"}, "one address for each listener"),
                ("127.0.0.1:0", {"advertised": "0.0.0.0:1"}, "name the one"),
                ("127.0.0.1:0", {"advertised": "[::]:1"}, "name the one"),
                ("127.0.0.1:0,[::1]:0", {"advertised": "a:1"}, "one address for each listener"),
            ):
                with pytest.raises(ConfigError, match=words):
                    await log.serve(address, **settings).__aenter__()
            async with log.serve("127.0.0.1:0") as server:
                with pytest.raises(ConfigError, match="cannot be served"):
                    await log.serve(server.address).__aenter__()

    asyncio.run(main())


def test_clients_are_told_the_advertised_address() -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            assert isinstance(log, EmbeddedLog)
            options: dict[str, Any] = {"advertised": "log.example:0", "insecure": True}
            async with log.serve("0.0.0.0:0", **options) as server:
                port = server.identity.port
                async with WireClient(f"127.0.0.1:{port}") as client:
                    answer = await client.ask(METADATA, 9, topics=[])
                assert [(each.host, each.port) for each in answer.brokers] == [
                    ("log.example", port)
                ]

    asyncio.run(main())


@pytest.mark.parametrize("advertised", ["one:1", "one:1,SSL://two:2", "one:1,two:2,three:3"])
def test_each_listener_has_one_address_that_is_told(advertised: str) -> None:
    async def main() -> None:
        async with open_log("memory:") as log:
            assert isinstance(log, EmbeddedLog)
            with pytest.raises(ConfigError, match="one address for each listener"):
                await log.serve("127.0.0.1:0,127.0.0.1:0", advertised=advertised).__aenter__()

    asyncio.run(main())


def test_the_command(tmp_path: Path) -> None:
    with serving(tmp_path / "log", "--config", "num.partitions=3", "--durability", "os") as server:
        assert server.ready == f"serving {tmp_path / 'log'} on {server.address}\n"

        async def use() -> None:
            async with WireClient(server.address) as client:
                await client.ask(
                    METADATA, 9, topics=[{"name": "t"}], allow_auto_topic_creation=True
                )
                client.send(produce_frame(b"x", 1))
                assert await numbers(client, 1) == [1]

        asyncio.run(use())
    assert run(str(tmp_path / "log"), "topics", "list").lines == ["t"]
    assert b"x" in run(str(tmp_path / "log"), "consume", "t", "--until-end").out
