"""Stopping: what was begun is answered, whole and in order, whatever else the client has sent."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import Collection

import pytest

from millstream.log import TopicPartition, open_log
from millstream.log.broker.txn_markers import TransactionMarkers
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.server import server as server_module
from shared.asking import request_frame, response_of
from shared.certificates import Authority
from shared.logs import settled
from shared.wire_client import WireClient

FETCH, API_VERSIONS = 1, 18
MIB = 1 << 20
RECORDS, VALUE = 8, bytes(range(256)) * 3900


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def settings(authority: Authority) -> dict[str, str]:
    certificate, key = authority.sign("server", "/CN=localhost")
    return {
        "ssl.certificate.location": str(certificate),
        "ssl.key.location": str(key),
        "ssl.ca.location": str(authority.certificate),
    }


def fetch_frame() -> bytes:
    partition = {"partition": 0, "fetch_offset": 0, "partition_max_bytes": 50 * MIB}
    topics = [{"topic": "t", "partitions": [partition | {"current_leader_epoch": -1}]}]
    return request_frame(
        FETCH, 12, topics=topics, max_wait=dt.timedelta(), min_bytes=1, max_bytes=50 * MIB
    )


async def filled(log: EmbeddedLog) -> None:
    await log.create_topic("t")
    async with log.producer() as producer:
        for _ in range(RECORDS):
            await producer.send("t", VALUE)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_an_answer_on_its_way_arrives(
    protocol: str, authority: Authority, settings: dict[str, str]
) -> None:
    """Larger than any buffer; and the client has sent more than was read."""
    tls = None
    if protocol == "SSL":
        tls = ssl.create_default_context(cafile=str(authority.certificate))

    async def main() -> None:
        async with open_log("memory:", config=settings) as log:
            assert isinstance(log, EmbeddedLog)
            await filled(log)
            async with log.serve(f"{protocol}://127.0.0.1:0") as server:
                client = await WireClient(server.address, tls).__aenter__()
                client.writer.transport.pause_reading()
                client.send(fetch_frame())
                while not server.stats().requests.get(FETCH):
                    await asyncio.sleep(0.001)
                more = request_frame(API_VERSIONS, 0)
                for _ in range(40_000):
                    client.send(more)
                stopping = asyncio.ensure_future(server.close())
                await asyncio.sleep(0)  # it has begun
                client.writer.transport.resume_reading()
                frame = await client.frame()
                assert frame is not None
                read = response_of(FETCH, 12, frame).responses[0].partitions[0]
                assert len(read.records) > RECORDS * len(VALUE)
                assert await client.reader.read() == b""  # no reset
                await client.__aexit__()
                await stopping

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_one_who_takes_nothing_keeps_nobody(
    protocol: str,
    authority: Authority,
    settings: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_module, "GRACE_S", 0.3)
    tls = None
    if protocol == "SSL":
        tls = ssl.create_default_context(cafile=str(authority.certificate))

    async def main() -> None:
        async with open_log("memory:", config=settings) as log:
            assert isinstance(log, EmbeddedLog)
            await filled(log)
            async with log.serve(f"{protocol}://127.0.0.1:0") as server:
                client = await WireClient(server.address, tls).__aenter__()
                client.writer.transport.pause_reading()
                client.send(fetch_frame())
                while not server.stats().requests.get(FETCH):
                    await asyncio.sleep(0.001)
            assert server.stats().connections == 0
            await client.__aexit__()

    asyncio.run(asyncio.wait_for(main(), 20))


def test_an_end_that_was_begun_is_finished_though_the_server_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log stays open: what is decided and not done would be so until it is opened again."""
    monkeypatch.setattr(server_module, "GRACE_S", 0.0)
    may_go_on, begun = asyncio.Event(), asyncio.Event()
    flush = TransactionMarkers.flush

    async def slow(self: TransactionMarkers, partitions: Collection[TopicPartition]) -> None:
        begun.set()
        await may_go_on.wait()
        await flush(self, partitions)

    async def main() -> None:
        async with open_log("memory:") as log:
            assert isinstance(log, EmbeddedLog)
            await log.create_topic("t")
            async with log.serve("127.0.0.1:0") as server, WireClient(server.address) as client:
                timeout = dt.timedelta(seconds=60)
                named = {"transactional_id": "x", "transaction_timeout": timeout}
                made = await client.ask(22, 4, **named, producer_id=-1, producer_epoch=-1)
                await client.ask(
                    *(24, 3),
                    v3_and_below_transactional_id="x",
                    v3_and_below_producer_id=made.producer_id,
                    v3_and_below_producer_epoch=made.producer_epoch,
                    v3_and_below_topics=[{"name": "t", "partitions": [0]}],
                )
                monkeypatch.setattr(TransactionMarkers, "flush", slow)
                who = {"producer_id": made.producer_id, "producer_epoch": made.producer_epoch}
                client.send(request_frame(26, 3, transactional_id="x", committed=False, **who))
                await begun.wait()
            assert (await log.describe_transaction("x")).state == "PrepareAbort"
            may_go_on.set()
            await settled()
            assert (await log.describe_transaction("x")).state == "CompleteAbort"

    asyncio.run(asyncio.wait_for(main(), 20))
