"""Quotas at work: who goes too fast is told, and not read from meanwhile; others notice nothing."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.format.codec import encode_batch
from millstream.log.open import open_log_on
from millstream.log.security.quotas import DEFAULT, Entity
from millstream.log.server import throttling
from millstream.log.server.server import Server
from millstream.log.storage.memory_files import MemoryFiles
from millstream.log.testing.fake_clock import FakeClock
from shared.asking import request_frame, response_of
from shared.wire_client import WireClient

PRODUCE, FETCH, METADATA, DESCRIBE, ALTER = 0, 1, 3, 48, 49
SECOND = dt.timedelta(seconds=1)
EVERYBODY = Entity(DEFAULT, None)


class StillLoop(asyncio.SelectorEventLoop):
    """The server's sockets are real, its time stands still until a test moves the clock."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock

    def time(self) -> float:
        return self._clock.monotonic_ms() / 1000


def served(
    test: Callable[[Server, FakeClock], Awaitable[None]], after: AsyncExitStack | None = None
) -> None:
    """Run a test on a served log; `after` is left when the server has stopped."""
    clock = FakeClock()

    async def main() -> None:
        async with (
            after or AsyncExitStack(),
            open_log_on(MemoryFiles(), "memory", clock=clock) as log,
        ):
            assert isinstance(log, EmbeddedLog)
            await log.create_topic("t")
            async with log.serve("127.0.0.1:0") as server:
                await test(server, clock)

    with asyncio.Runner(loop_factory=lambda: StillLoop(clock)) as runner:
        runner.run(main())


async def limit(server: Server, **rates: float) -> None:
    await server.broker.security().set_quotas({EVERYBODY: rates})


def produced(size_bytes: int, number: int = 1, acks: int = -1) -> bytes:
    records = encode_batch(None, [bytes(size_bytes)], [0], None, 0, 1)
    data = [{"name": "t", "partition_data": [{"index": 0, "records": records}]}]
    return request_frame(
        PRODUCE, 9, correlation_id=number, acks=acks, timeout=SECOND, topic_data=data
    )


async def throttled_s(client: WireClient, key: int, version: int, number: int = 1) -> float:
    """What the next answer says."""
    frame = await client.frame()
    assert frame is not None
    answer = response_of(key, version, frame, correlation_id=number)
    return float(answer.throttle_time.total_seconds())


async def waits(client: WireClient, other: WireClient, clock: FakeClock, s: float) -> None:
    """Its next request is answered after so many seconds, and not before; `other` does not wait."""
    asked = asyncio.create_task(client.ask(METADATA, 9, topics=[]))
    for passes_ms in (0, math.floor(s * 1000)):
        clock.advance(passes_ms)
        for _ in range(3):
            await other.ask(METADATA, 9, topics=[])
        assert not asked.done()
    clock.advance(1)
    await asked


def test_who_writes_too_fast_waits() -> None:
    async def test(server: Server, clock: FakeClock) -> None:
        await limit(server, producer_byte_rate=100_000.0)
        async with WireClient(server.address) as fast, WireClient(server.address) as other:
            fast.send(produced(20_000))
            assert await throttled_s(fast, PRODUCE, 9) == 0
            fast.send(produced(120_000, acks=0))
            fast.send(produced(10, 2))
            told_s = await throttled_s(fast, PRODUCE, 9, 2)
            sent_bytes = sum(len(produced(each)) for each in (20_000, 120_000, 10))
            assert told_s == pytest.approx(sent_bytes / 100_000 - 1, abs=0.001)
            await waits(fast, other, clock, told_s)

    served(test)


def test_who_reads_too_fast_waits() -> None:
    async def test(server: Server, clock: FakeClock) -> None:
        async with WireClient(server.address) as client, WireClient(server.address) as other:
            client.send(produced(150_000))
            assert await throttled_s(client, PRODUCE, 9) == 0
            await limit(server, consumer_byte_rate=100_000.0)
            partition = {"partition": 0, "partition_max_bytes": 1 << 20, "current_leader_epoch": -1}
            answer = await client.ask(
                FETCH, 12, topics=[{"topic": "t", "partitions": [partition]}],
                max_wait=SECOND, max_bytes=1 << 20,
            )  # fmt: skip
            assert len(answer.responses[0].partitions[0].records) > 150_000
            told_s = answer.throttle_time.total_seconds()
            assert told_s == pytest.approx(0.5, abs=0.01)
            await waits(client, other, clock, told_s)

    served(test)


def test_who_keeps_the_server_busy_waits() -> None:
    async def test(server: Server, clock: FakeClock) -> None:
        await limit(server, request_percentage=0.001)
        async with WireClient(server.address) as client:
            resource = {"resource_type": 4, "resource_name": "0", "configuration_keys": None}
            answer = await client.ask(32, 4, resources=[resource])
            assert answer.throttle_time.total_seconds() > 0
            assert answer.results[0].configs

    served(test)


def test_a_handler_that_waits_is_not_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(server: Server, clock: FakeClock) -> None:
        monkeypatch.setattr(throttling, "perf_counter", lambda: clock.monotonic_ms() / 1000)
        await limit(server, request_percentage=20.0)
        async with WireClient(server.address) as client, WireClient(server.address) as other:
            partition = {"partition": 0, "partition_max_bytes": 1 << 20, "current_leader_epoch": -1}
            asked = asyncio.create_task(
                client.ask(
                    FETCH, 12, topics=[{"topic": "t", "partitions": [partition]}],
                    max_wait=SECOND / 2, min_bytes=1, max_bytes=1 << 20,
                )
            )  # fmt: skip
            begun_ms = clock.monotonic_ms()
            while not asked.done():
                await other.ask(METADATA, 9, topics=[])
                clock.advance(100)
            assert clock.monotonic_ms() - begun_ms >= 500
            assert (await asked).throttle_time.total_seconds() == 0

    served(test)


@pytest.mark.timeout(60)
def test_the_server_stops_while_clients_wait() -> None:
    """It waits for none of them: its time stands still."""
    after = AsyncExitStack()

    async def test(server: Server, clock: FakeClock) -> None:
        await limit(server, producer_byte_rate=1.0)
        client = await after.enter_async_context(WireClient(server.address))
        client.send(produced(100))
        client.send(produced(100, 2))
        assert await throttled_s(client, PRODUCE, 9) == 10

    served(test, after)


# Describing and altering


def entity(**names: str | None) -> list[dict[str, Any]]:
    return [
        {"entity_type": kind.replace("_", "-"), "entity_name": name} for kind, name in names.items()
    ]


def asked(key: str, value: float = 1.0, *, remove: bool = False, **names: Any) -> dict[str, Any]:
    return {"entity": entity(**names), "ops": [{"key": key, "value": value, "remove": remove}]}


def test_quotas_are_set_found_and_taken_away() -> None:
    async def test(server: Server, clock: FakeClock) -> None:
        async with WireClient(server.address) as client:

            async def found(strict: bool = False, **wanted: tuple[int, str | None]) -> list[Any]:
                components = [
                    {"entity_type": kind.replace("_", "-"), "match_type": match, "match": name}
                    for kind, (match, name) in wanted.items()
                ]
                answer = await client.ask(DESCRIBE, 1, components=components, strict=strict)
                assert answer.error_code == 0
                return [
                    (
                        {each.entity_type: each.entity_name for each in entry.entity},
                        {each.key: each.value for each in entry.values},
                    )
                    for entry in answer.entries
                ]

            rate = "producer_byte_rate"
            entries = [
                asked(rate, 5.0, user="anna"), asked(rate, 6.0, user="anna", client_id="app"),
                asked(rate, 7.0, user=None), asked(rate, 8.0, client_id="app"),
            ]  # fmt: skip
            for validate_only in (True, False):
                answer = await client.ask(ALTER, 1, entries=entries, validate_only=validate_only)
                assert {int(each.error_code) for each in answer.entries} == {0}
                assert len(await found()) == (0 if validate_only else 4)
            anna, pair = ({"user": "anna"}, {rate: 5.0}), (
                {"user": "anna", "client-id": "app"}, {rate: 6.0},
            )  # fmt: skip
            everybody, app = ({"user": None}, {rate: 7.0}), ({"client-id": "app"}, {rate: 8.0})
            assert await found(user=(0, "anna")) == [anna, pair]
            assert await found(strict=True, user=(0, "anna")) == [anna]
            assert await found(user=(1, None)) == [everybody]
            assert await found(strict=True, user=(2, None)) == [anna, everybody]
            assert await found(client_id=(0, "app")) == [pair, app]
            await client.ask(ALTER, 1, entries=[asked(rate, remove=True, user="anna")])
            assert await found(strict=True, user=(2, None)) == [everybody]

    served(test)


@pytest.mark.parametrize(
    "wrong",
    [
        asked("controller_mutation_rate", user="a"), asked("producer_byte_rate", 0.0, user="a"),
        asked("producer_byte_rate", float("nan"), user="a"), asked("producer_byte_rate", ip="a"),
        asked("producer_byte_rate", user=""), asked("producer_byte_rate"),
    ],
)  # fmt: skip
def test_quotas_that_are_refused(wrong: dict[str, Any]) -> None:
    async def test(server: Server, clock: FakeClock) -> None:
        async with WireClient(server.address) as client:
            answer = await client.ask(ALTER, 1, entries=[wrong])
            assert [int(each.error_code) for each in answer.entries] == [42]
            assert server.broker.security().quotas == {}

    served(test)
