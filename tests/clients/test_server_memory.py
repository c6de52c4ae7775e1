"""What requests and answers of all clients may take together: bounded, and everybody is served."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Self

import pytest

from millstream.log import open_log
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.format.codec import encode_batch
from millstream.log.server import memory
from millstream.log.server import server as server_module
from millstream.log.server.server import Server
from shared.asking import request_frame, response_of
from shared.hostile import memory_bytes
from shared.serve_command import serving
from shared.wire_client import WireClient

PRODUCE, FETCH, METADATA, JOIN, CREATE_TOPICS = 0, 1, 3, 11, 19
MIB = 1 << 20
LIMIT_BYTES = 32 * MIB
SECOND = dt.timedelta(seconds=1)
VALUE = bytes(range(256)) * 3900  # a batch just under 1 MB, what a topic takes


def batch_of(value: bytes) -> bytes:
    return encode_batch(None, [value], [0], None, 0, 1)


def produce_frame(batch: bytes, topic: str = "t") -> bytes:
    data = [{"name": topic, "partition_data": [{"index": 0, "records": batch}]}]
    return request_frame(PRODUCE, 9, acks=-1, timeout=SECOND, topic_data=data)


def fetch_frame(offset: int, *, min_bytes: int = 1, wait: dt.timedelta = SECOND) -> bytes:
    partition = {"partition": 0, "fetch_offset": offset, "partition_max_bytes": 50 * MIB}
    topics = [{"topic": "t", "partitions": [partition | {"current_leader_epoch": -1}]}]
    return request_frame(
        FETCH, 12, topics=topics, max_wait=wait, min_bytes=min_bytes, max_bytes=50 * MIB
    )


async def fetched(client: WireClient) -> int:
    """Records in the next answer; each is a batch."""
    frame = await client.frame()
    assert frame is not None, "cut off"
    read = response_of(FETCH, 12, frame).responses[0].partitions[0]
    assert read.error_code == 0
    data, position, count = read.records or b"", 0, 0
    while position < len(data):
        position += 12 + struct.unpack_from(">i", data, position + 8)[0]
        count += 1
    return count


class Narrow(WireClient):
    """The system takes little for it that it has not read."""

    async def __aenter__(self) -> Self:
        end = socket.socket()
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        end.setblocking(False)
        await asyncio.get_running_loop().sock_connect(end, (self._host, self._port))
        self.reader, self.writer = await asyncio.open_connection(sock=end, limit=1024)
        return self


async def produced(client: WireClient) -> int:
    frame = await client.frame()
    assert frame is not None, "cut off"
    answer = response_of(PRODUCE, 9, frame).responses[0].partition_responses[0]
    assert answer.error_code == 0
    return int(answer.base_offset)


async def made(address: str, message_bytes_max: int = MIB) -> None:
    async with WireClient(address) as client:
        config = [{"name": "max.message.bytes", "value": str(message_bytes_max)}]
        topic = {"name": "t", "num_partitions": 1, "replication_factor": 1, "assignments": []}
        answer = await client.ask(
            CREATE_TOPICS, 5, topics=[topic | {"configs": config}], timeout=SECOND
        )
        assert answer.topics[0].error_code == 0


async def slow_reader(address: str, records: int, asked: asyncio.Barrier) -> None:
    """Asks for everything at once, and takes nothing until all have asked."""
    async with WireClient(address) as client:
        transport = client.writer.transport
        transport.pause_reading()
        client.send(fetch_frame(0))
        await asked.wait()
        transport.resume_reading()
        offset = await fetched(client)
        while offset < records:
            client.send(fetch_frame(offset))
            offset += await fetched(client)


def test_slow_readers(tmp_path: Path) -> None:
    """They ask for 20 times what may be held: each gets it all, in time."""
    readers, records = 40, 16

    async def main(address: str, process: int) -> None:
        await made(address)
        async with WireClient(address) as beside:
            for number in range(records):
                beside.send(produce_frame(batch_of(VALUE)))
                assert await produced(beside) == number
            before = memory_bytes("VmRSS", process)
            asked = asyncio.Barrier(readers + 1)
            reading = asyncio.gather(
                *(slow_reader(address, records, asked) for _ in range(readers))
            )
            while asked.n_waiting < readers:
                await asyncio.sleep(0.001)
            for _ in range(20):  # nobody else notices
                await beside.ask(18, 0)
            await asked.wait()
            await reading
        grown = memory_bytes("VmHWM", process) - before
        print(grown >> 20)
        assert grown < LIMIT_BYTES + readers * 512 * 1024 + 32 * MIB, grown >> 20

    settings = ["--config", f"queued.max.response.bytes={LIMIT_BYTES}"]
    with serving(tmp_path / "log", "--durability", "os", *settings) as server:
        asyncio.run(asyncio.wait_for(main(server.address, server.process.pid), 120))


def test_fetches_that_wait_hold_nothing(tmp_path: Path) -> None:
    """They were read for, and it was less than they want."""
    readers, records = 40, 12

    async def main(address: str, process: int) -> None:
        await made(address)
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(WireClient(address)) for _ in range(readers)]
            for _ in range(records):
                clients[0].send(produce_frame(batch_of(VALUE)))
                await produced(clients[0])
            before = memory_bytes("VmRSS", process)
            for each in clients:
                each.send(fetch_frame(0, min_bytes=40 * MIB, wait=60 * SECOND))
            await asyncio.wait_for(clients[0].writer.drain(), 10)
            async with WireClient(address) as other:  # all were read for when this is answered
                for _ in range(3):
                    await other.ask(18, 0)
            grown = memory_bytes("VmRSS", process) - before
            print(grown >> 20)
            assert grown < 6 * records * MIB, grown >> 20

    with serving(tmp_path / "log", "--durability", "os") as server:
        asyncio.run(asyncio.wait_for(main(server.address, server.process.pid), 120))


def test_big_senders(tmp_path: Path) -> None:
    """Requests of 5 times what may be held, a part of each at a time: all are answered, and small
    ones beside them."""
    senders, batch = 40, batch_of(VALUE * 4)

    async def sender(address: str, barrier: asyncio.Barrier) -> None:
        frame = produce_frame(batch)
        data = struct.pack(">i", len(frame)) + frame
        async with WireClient(address) as client:
            await barrier.wait()
            for position in range(0, len(data), 64 << 10):
                client.writer.write(data[position : position + (64 << 10)])
                await client.writer.drain()
                await asyncio.sleep(0)
            await produced(client)

    async def main(address: str, process: int) -> None:
        await made(address, 5 * MIB)
        before = memory_bytes("VmRSS", process)
        barrier = asyncio.Barrier(senders)
        async with WireClient(address) as beside:
            sending = asyncio.gather(*(sender(address, barrier) for _ in range(senders)))
            while not sending.done():
                await asyncio.wait_for(beside.ask(18, 0), 20)
                await asyncio.wait({asyncio.ensure_future(sending)}, timeout=0.05)
            await sending
        grown = memory_bytes("VmHWM", process) - before
        # a request is there three times while it is taken apart
        print(grown >> 20)
        assert grown < LIMIT_BYTES + senders * 256 * 1024 + 4 * len(batch) + 32 * MIB, grown >> 20

    settings = ["--config", f"queued.max.request.bytes={LIMIT_BYTES}"]
    with serving(tmp_path / "log", "--durability", "os", *settings) as server:
        asyncio.run(asyncio.wait_for(main(server.address, server.process.pid), 120))


def served(test: Callable[[EmbeddedLog, Server], Awaitable[None]], **config: Any) -> None:
    """Run a test on a served log in memory; nothing is held when all clients have gone."""
    settings = {name.replace("_", "."): value for name, value in config.items()}

    async def main() -> None:
        async with open_log("memory:", config=settings) as log:
            assert isinstance(log, EmbeddedLog)
            await log.create_topic("t", config={"max.message.bytes": 9 * MIB})
            async with log.serve("127.0.0.1:0") as server:
                await test(log, server)
                while server.stats().connections:
                    await asyncio.sleep(0.001)
                stats = server.stats()
                assert (stats.request_bytes, stats.response_bytes) == (0, 0)
                assert (stats.waiting_requests, stats.waiting_responses) == (0, 0)

    asyncio.run(asyncio.wait_for(main(), 120))


def test_what_is_larger_than_all_room_has_its_turn() -> None:
    """Requests and answers, from many, with room for one byte."""

    async def client(server: Server, number: int) -> None:
        batch = batch_of(VALUE[: 300_000 + number])
        async with WireClient(server.address) as client:
            for _ in range(5):
                client.send(produce_frame(batch))
                client.send(fetch_frame(0))
            for _ in range(5):
                await produced(client)
                assert await fetched(client) >= 0
            offset = 0
            while offset < 50:
                client.send(fetch_frame(offset))
                offset += await fetched(client)

    async def test(_log: EmbeddedLog, server: Server) -> None:
        await asyncio.gather(*(client(server, number) for number in range(10)))

    served(test, queued_max_request_bytes="1", queued_max_response_bytes="1")


def test_a_client_that_goes_gives_back_what_it_held() -> None:
    """Amid a request, with its turn and without, with answers and waiting for them."""

    async def test(log: EmbeddedLog, server: Server) -> None:
        async with log.producer() as producer:
            for _ in range(8):
                await producer.send("t", VALUE)
        frame = produce_frame(batch_of(VALUE))
        for number in range(8):
            async with AsyncExitStack() as stack:
                clients = [
                    await stack.enter_async_context(WireClient(server.address)) for _ in range(12)
                ]
                for each in clients:
                    each.writer.transport.pause_reading()
                    each.writer.write(struct.pack(">i", len(frame)) + frame[: 500_000 + number])
                for each in clients[:6]:
                    each.writer.write(frame[500_000 + number :])
                    for _ in range(5):
                        each.send(fetch_frame(0))
                while not (server.stats().waiting_requests or server.stats().response_bytes):
                    await asyncio.sleep(0.001)
        async with WireClient(server.address) as client:
            client.send(frame)
            await produced(client)

    served(test, queued_max_request_bytes=str(MIB), queued_max_response_bytes=str(MIB))


def test_answers_that_never_could_be_sent_are_given_back() -> None:
    """Requests that ended together, of a client that takes nothing and goes."""
    empty = [{"index": number, "records": None} for number in range(4000)]
    data = [{"name": "t" * 240, "partition_data": empty}]
    frame = request_frame(PRODUCE, 9, acks=-1, timeout=SECOND, topic_data=data)

    async def test(_log: EmbeddedLog, server: Server) -> None:
        async with Narrow(server.address) as client:
            client.writer.transport.pause_reading()
            client.writer.write((struct.pack(">i", len(frame)) + frame) * 12)  # a few in one read
            while not server.stats().response_bytes or server.stats().running:
                await asyncio.sleep(0.001)

    served(test)


def join_frame(member_id: str, metadata: bytes) -> bytes:
    return request_frame(
        JOIN, 3, group_id="g", member_id=member_id, session_timeout=300 * SECOND,
        rebalance_timeout=300 * SECOND, protocol_type="consumer",
        protocols=[{"name": "range", "metadata": metadata}],
    )  # fmt: skip


def test_who_waits_for_other_members_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a request larger than all room, for as long as it likes; its client may go, too."""
    monkeypatch.setattr(server_module, "GRACE_S", 0.2)

    async def honest(server: Server) -> None:
        async with WireClient(server.address) as client:
            client.send(produce_frame(batch_of(VALUE)))
            await asyncio.wait_for(produced(client), 10)

    async def test(_log: EmbeddedLog, server: Server) -> None:
        async with WireClient(server.address) as first:
            first.send(join_frame("", b""))
            assert await first.frame() is not None
            async with WireClient(server.address) as waits:
                waits.send(join_frame("", bytes(3 * MIB)))
                while not server.stats().running:
                    await asyncio.sleep(0.001)
                await honest(server)
                assert server.stats().running == 1
                end = waits.writer.get_extra_info("socket")
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            while server.stats().connections > 1:  # reset, not half-closed
                await asyncio.sleep(0.001)
            await honest(server)

    served(test, queued_max_request_bytes=str(2 * MIB), group_initial_rebalance_delay_ms="0")


@pytest.mark.parametrize("what", ["requests", "responses"])
def test_who_keeps_what_others_wait_for_is_cut_off(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it does send a byte now and then, or takes a little."""
    monkeypatch.setattr(memory, "GRACE_S", 0.2)
    monkeypatch.setattr(memory, "RATE_BYTES_MIN", 1 << 30)
    monkeypatch.setattr(server_module, "STUCK_S", 2.0)  # and looked at every tenth of it
    frame = produce_frame(batch_of(VALUE))

    async def drips(client: WireClient) -> None:
        if what == "requests":
            client.writer.write(struct.pack(">i", len(frame)) + frame[:700_000])
            position = 700_000
            while not client.writer.transport.is_closing():
                client.writer.write(frame[position : position + 1])
                position += 1
                await asyncio.sleep(0.05)
        else:
            client.send(fetch_frame(0))
            with suppress(ConnectionError):
                while await client.reader.read(1):
                    await asyncio.sleep(0.05)

    async def honest(server: Server) -> None:
        async with WireClient(server.address) as client:
            client.send(frame)
            await produced(client)
            client.send(fetch_frame(0))
            assert await fetched(client) > 0

    async def test(_log: EmbeddedLog, server: Server) -> None:
        async with WireClient(server.address) as client:  # more than the system takes for anybody
            client.send(produce_frame(batch_of(VALUE * 8)))
            await produced(client)
        async with AsyncExitStack() as stack:
            slow = [await stack.enter_async_context(Narrow(server.address)) for _ in range(4)]
            dripping = [asyncio.ensure_future(drips(each)) for each in slow]
            stats = server.stats
            while stats().request_bytes < MIB and stats().response_bytes < MIB:
                await asyncio.sleep(0.001)
            await asyncio.gather(*(honest(server) for _ in range(5)))
            for each in dripping:
                each.cancel()
            await asyncio.wait(dripping)
            assert server.refused > 0

    served(test, queued_max_request_bytes=str(MIB), queued_max_response_bytes=str(MIB))
