"""Produce, Fetch, Metadata and what else every client needs, without a network."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from millstream.log.broker.broker import Broker
from millstream.log.clock import SystemClock
from millstream.log.config import BrokerConfig
from millstream.log.format.codec import encode_batch
from millstream.log.server.handler import HangUpError
from millstream.log.storage.memory_files import MemoryFiles
from shared.asking import ask

NOBODY = uuid.UUID(int=77)
SECOND = dt.timedelta(seconds=1)
MAX_BYTES = 1 << 20


def broker_test(
    test: Callable[[Broker], Awaitable[None]], config: dict[str, str | int] | None = None
) -> None:
    async def run() -> None:
        broker = await Broker.open(
            MemoryFiles(),
            "/log",
            durability="fsync",
            config=BrokerConfig.parse({"flush.threads": 0, **(config or {})}),
            clock=SystemClock(),
        )
        try:
            await test(broker)
        finally:
            await broker.close()

    asyncio.run(asyncio.wait_for(run(), 30))


def id_of(broker: Broker, topic: str) -> uuid.UUID:
    return uuid.UUID(bytes=urlsafe_b64decode(broker.partitions.topic(topic).topic_id + "=="))


def batch(*values: bytes, times: list[int] | None = None) -> bytes:
    return encode_batch(None, list(values), times or [0] * len(values), None, 0, len(values))


async def produce(broker: Broker, topic: Any, records: bytes | None, version: int = 9) -> Any:
    name = {"topic_id": topic} if isinstance(topic, uuid.UUID) else {"name": topic}
    data = [{**name, "partition_data": [{"index": 0, "records": records}]}]
    answer = await ask(broker, 0, version, acks=-1, timeout=SECOND, topic_data=data)
    return answer.responses[0].partition_responses[0]


async def fetch(
    broker: Broker, topics: list[Any], version: int = 12, offset: int = 0, **values: Any
) -> list[Any]:
    partition = {"partition": 0, "fetch_offset": offset, "partition_max_bytes": MAX_BYTES}
    partition |= {"current_leader_epoch": -1} | values.pop("partition", {})
    given = [
        {"topic_id" if isinstance(each, uuid.UUID) else "topic": each, "partitions": [partition]}
        for each in topics
    ]
    values = {"max_wait": dt.timedelta(), "min_bytes": 1, "max_bytes": MAX_BYTES} | values
    answer = await ask(broker, 1, version, topics=given, session_id=0, **values)
    assert answer.session_id == 0 if version >= 7 else True
    return [each.partitions[0] for each in answer.responses]


@pytest.mark.parametrize("version", range(3, 14))
def test_every_version_of_produce(version: int) -> None:
    async def test(broker: Broker) -> None:
        await broker.create_topic("t", 1)
        topic = id_of(broker, "t") if version == 13 else "t"
        answer = await produce(broker, topic, batch(b"a", b"b"), version)
        assert (answer.error_code, answer.base_offset) == (0, 0)
        answer = await produce(broker, topic, batch(b"c"), version)
        assert (answer.error_code, answer.base_offset) == (0, 2)

    broker_test(test)


@pytest.mark.parametrize("version", range(4, 19))
def test_every_version_of_fetch(version: int) -> None:
    async def test(broker: Broker) -> None:
        await broker.create_topic("t", 1)
        await produce(broker, "t", batch(b"a", b"b"))
        topic = id_of(broker, "t") if version >= 13 else "t"
        (found,) = await fetch(broker, [topic], version)
        assert (found.error_code, found.high_watermark) == (0, 2)
        assert found.records[17:] == batch(b"a", b"b")[17:]
        (found,) = await fetch(broker, [topic], version, 3)
        assert (found.error_code, found.high_watermark, found.records) == (1, -1, b"")

    broker_test(test)


def test_produce_refuses_what_it_must() -> None:
    async def test(broker: Broker) -> None:
        await broker.create_topic("t", 1)
        old = bytearray(batch(b"x"))
        old[16] = 1
        zstd = bytearray(batch(b"x"))
        zstd[22] |= 4
        damaged = bytearray(batch(b"x"))
        damaged[-1] ^= 1
        for topic, records, version, code in (
            ("t", None, 9, 87),
            ("t", b"", 9, 87),
            ("t", batch(b"x") * 2, 9, 87),
            ("t", bytes(old), 9, 43),
            ("t", bytes(zstd), 6, 76),
            ("t", bytes(damaged), 9, 2),
            ("t", batch(bytes(2 << 20)), 9, 10),
            ("nowhere", batch(b"x"), 9, 3),
            ("__consumer_offsets", batch(b"x"), 9, 17),
            (NOBODY, batch(b"x"), 13, 100),
        ):
            answer = await produce(broker, topic, records, version)
            assert (answer.error_code, answer.base_offset) == (code, -1), (topic, version)
        assert broker.partitions.topics() == ["t"]
        (found,) = await fetch(broker, ["t"])
        assert found.high_watermark == 0

    broker_test(test)


def test_produce_with_acks_that_do_not_exist() -> None:
    async def test(broker: Broker) -> None:
        await broker.create_topic("t", 1)
        data = [{"name": "t", "partition_data": [{"index": 0, "records": batch(b"x")}]}]
        answer = await ask(broker, 0, 9, acks=2, timeout=SECOND, topic_data=data)
        assert answer.responses[0].partition_responses[0].error_code == 21

    broker_test(test)


def test_an_error_without_acknowledgement_closes_the_connection() -> None:
    async def test(broker: Broker) -> None:
        data = [{"name": "nowhere", "partition_data": [{"index": 0, "records": batch(b"x")}]}]
        with pytest.raises(HangUpError, match="error 3"):
            await ask(broker, 0, 9, acks=0, timeout=SECOND, topic_data=data)

    broker_test(test)


def test_fetch_is_bounded_over_all_partitions_but_for_the_first_batch() -> None:
    async def test(broker: Broker) -> None:
        for name in "ab":
            await broker.create_topic(name, 1)
            for _ in range(3):
                await produce(broker, name, batch(bytes(1000)))
        size = len(batch(bytes(1000)))
        for limit, expected in (
            (0, [1, 0]),
            (1, [1, 0]),
            (2 * size, [2, 0]),
            (3 * size + 5, [3, 0]),
            (4 * size, [3, 1]),
            (MAX_BYTES, [3, 3]),
        ):
            found = await fetch(broker, ["a", "b"], max_bytes=limit)
            assert [len(each.records) // size for each in found] == expected, limit
            assert [each.high_watermark for each in found] == [3, 3]

    broker_test(test)


def test_fetch_waits_for_enough_and_no_longer() -> None:
    async def test(broker: Broker) -> None:
        await broker.create_topic("t", 1)
        size = len(batch(b"x"))
        waiting = asyncio.create_task(
            fetch(broker, ["t"], max_wait=dt.timedelta(seconds=25), min_bytes=2 * size)
        )
        await produce(broker, "t", batch(b"x"))
        await asyncio.sleep(0)
        assert not waiting.done()
        await produce(broker, "t", batch(b"y"))
        (found,) = await waiting
        assert len(found.records) == 2 * size

    broker_test(test)


def test_fetch_does_not_wait_for_bytes_of_a_partition_that_has_more_than_was_asked_for() -> None:
    async def test(broker: Broker) -> None:
        await broker.create_topic("t", 1, {"segment.bytes": 1 << 20})
        await broker.create_topic("u", 1)
        for _ in range(3):
            await produce(broker, "t", batch(bytes(1000)))
        size = len(batch(bytes(1000)))
        wait = {"max_wait": dt.timedelta(seconds=50)}
        limit = 2 * size + 10  # two batches fit, and leave room that nothing can fill
        (found,) = await fetch(
            broker, ["t"], **wait, min_bytes=limit, partition={"partition_max_bytes": limit}
        )
        assert len(found.records) == 2 * size
        found = await fetch(broker, ["t", "u"], **wait, min_bytes=limit, max_bytes=limit)
        assert [len(each.records) for each in found] == [2 * size, 0]

        for _ in range(1100):
            await produce(broker, "t", batch(bytes(1000)))
        assert next(iter(broker.partitions)).segment_count > 1
        offset = (1 << 20) // size - 2  # near the end of the first segment
        (found,) = await fetch(broker, ["t"], offset=offset, **wait, min_bytes=100_000)
        assert 0 < len(found.records) < 100_000

    broker_test(test)


def test_partitions_for_which_there_is_no_room_are_not_read() -> None:
    async def test(broker: Broker) -> None:
        names = [f"t{i}" for i in range(50)]
        for name in names:
            await broker.create_topic(name, 1)
            await produce(broker, name, batch(bytes(1000)))
        size = len(batch(bytes(1000)))
        found = await fetch(broker, names, max_bytes=size + 10)
        assert [len(each.records) for each in found] == [size] + [0] * 49
        assert [each.high_watermark for each in found] == [1] * 50
        assert broker.partitions.stats().fetched_bytes <= 2 * size
        found = await fetch(broker, names, offset=7, max_bytes=size + 10)
        assert {each.error_code for each in found} == {1}

    broker_test(test)


def test_fetch_refuses_what_it_must() -> None:
    async def test(broker: Broker) -> None:
        await broker.create_topic("t", 1)
        wait = {"max_wait": dt.timedelta(seconds=25)}
        for topic, version, partition, code in (
            ("nowhere", 12, {}, 3),
            (NOBODY, 13, {}, 100),
            ("t", 12, {"current_leader_epoch": 1}, 75),
            ("t", 12, {"current_leader_epoch": -2}, 74),
            ("t", 12, {"partition": 1}, 3),
        ):
            (found,) = await fetch(broker, [topic], version, partition=partition, **wait)
            assert found.error_code == code
        answer = await ask(broker, 1, 12, session_id=5, topics=[], **wait)
        assert (answer.error_code, answer.session_id) == (70, 0)
        assert (await ask(broker, 1, 12, topics=[], **wait)).responses == ()

    broker_test(test)


def test_zstd_for_clients_that_do_not_know_it() -> None:
    async def test(broker: Broker) -> None:
        await broker.create_topic("t", 1, {"compression.type": "zstd"})
        await produce(broker, "t", batch(b"x" * 1000))
        assert [each.error_code for each in await fetch(broker, ["t"], 9)] == [76]
        assert [each.error_code for each in await fetch(broker, ["t"], 10)] == [0]

    broker_test(test)


@pytest.mark.parametrize("version", range(14))
def test_every_version_of_metadata(version: int) -> None:
    async def test(broker: Broker) -> None:
        await broker.create_topic("t", 2)
        names = [{"name": "t"}, {"name": "made"}, {"name": "no/name"}, {"name": "__made_not"}]
        answer = await ask(broker, 3, version, topics=names)
        told = {each.name: each for each in answer.topics}
        assert [each.error_code for each in answer.topics] == [0, 0, 17, 0]
        assert [len(each.partitions) for each in answer.topics] == [2, 3, 0, 3]
        assert told["t"].partitions[1].leader_id == 0
        if version >= 10:
            assert told["t"].topic_id == id_of(broker, "t")
        everything = await ask(broker, 3, version, topics=None if version else [])
        assert [each.name for each in everything.topics] == ["__made_not", "made", "t"]
        if version >= 1:
            assert (await ask(broker, 3, version, topics=[])).topics == ()

    broker_test(test, {"num.partitions": 3})


def test_metadata_makes_no_topic_where_it_must_not() -> None:
    async def test(broker: Broker) -> None:
        names = [{"name": "t"}]
        answer = await ask(broker, 3, 12, topics=names, allow_auto_topic_creation=False)
        assert (answer.topics[0].error_code, answer.topics[0].name) == (3, "t")
        assert broker.partitions.topics() == []

    async def forbidden(broker: Broker) -> None:
        answer = await ask(broker, 3, 12, topics=[{"name": "t"}, {"name": "/"}])
        assert [each.error_code for each in answer.topics] == [3, 17]
        assert broker.partitions.topics() == []

    broker_test(test)
    broker_test(forbidden, {"auto.create.topics.enable": "false"})


def test_metadata_by_id() -> None:
    async def test(broker: Broker) -> None:
        await broker.create_topic("t", 1)
        topics = [{"topic_id": id_of(broker, "t"), "name": None}, {"topic_id": NOBODY}]
        answer = await ask(broker, 3, 12, topics=topics)
        assert [(each.error_code, each.name) for each in answer.topics] == [(0, "t"), (100, None)]

    broker_test(test)


@pytest.mark.parametrize("version", range(1, 11))
def test_every_version_of_list_offsets(version: int) -> None:
    async def test(broker: Broker) -> None:
        await broker.create_topic("t", 1)
        await produce(broker, "t", batch(b"a", b"b", b"c", times=[10, 30, 20]))
        broker.partitions.delete_records(next(iter(broker.partitions)).topic_partition, 1)
        for wanted, offset, time in (
            (-1, 3, -1),
            (-2, 1, -1),
            (-3, 1, 30),
            (-4, 1, -1),
            (-5, -1, -1),
            (0, 1, 30),
            (30, 1, 30),
            (31, -1, -1),
        ):
            partitions = [{"partition_index": 0, "timestamp": wanted, "current_leader_epoch": -1}]
            topics = [{"name": "t", "partitions": partitions}]
            answer = await ask(broker, 2, version, replica_id=-1, topics=topics)
            found = answer.topics[0].partitions[0]
            expected = (0, offset, time)
            if version < {-3: 7, -4: 8, -5: 9}.get(wanted, 1):
                expected = (35, -1, -1)
            assert (found.error_code, found.offset, found.timestamp) == expected, wanted

    broker_test(test)


def test_list_offsets_refuses_what_it_must() -> None:
    async def test(broker: Broker) -> None:
        await broker.create_topic("t", 1)
        twice = [{"partition_index": 0, "timestamp": -1, "current_leader_epoch": -1}] * 2
        other = [{"partition_index": 5, "timestamp": -1, "current_leader_epoch": -1}]
        newer = [{"partition_index": 0, "timestamp": -1, "current_leader_epoch": 3}]
        unknown = [{"partition_index": 0, "timestamp": -6, "current_leader_epoch": -1}]
        for partitions, codes in (
            (twice, [42, 42]),
            (other, [3]),
            (newer, [75]),
            (unknown, [35]),
        ):
            topics = [{"name": "t", "partitions": partitions}]
            answer = await ask(broker, 2, 10, topics=topics)
            assert [each.error_code for each in answer.topics[0].partitions] == codes

    broker_test(test)


@pytest.mark.parametrize("version", range(7))
def test_every_version_of_find_coordinator(version: int) -> None:
    async def test(broker: Broker) -> None:
        keys = {"coordinator_keys": ["g", "h"]} if version >= 4 else {"key": "g"}
        answer = await ask(broker, 10, version, **keys)
        found = answer.coordinators if version >= 4 else (answer,)
        assert [(each.error_code, each.node_id, each.port) for each in found] == [
            (0, 0, 9092)
        ] * len(found)
        if version:
            answer = await ask(broker, 10, version, key_type=2, **keys)
            found = answer.coordinators if version >= 4 else (answer,)
            assert {each.error_code for each in found} == {42}

    broker_test(test)


@pytest.mark.parametrize("version", range(2, 5))
def test_leader_epochs(version: int) -> None:
    async def test(broker: Broker) -> None:
        await broker.create_topic("t", 1)
        await produce(broker, "t", batch(b"a", b"b"))
        for epoch, current, expected in (
            (0, -1, (0, 0, 2)),
            (0, 0, (0, 0, 2)),
            (1, -1, (0, -1, -1)),
            (0, 1, (75, -1, -1)),
        ):
            wanted = {"partition": 0, "current_leader_epoch": current, "leader_epoch": epoch}
            topics = [{"topic": "t", "partitions": [wanted]}]
            answer = await ask(broker, 23, version, topics=topics)
            (found,) = answer.topics[0].partitions
            assert (found.error_code, found.leader_epoch, found.end_offset) == expected

    broker_test(test)


def test_the_cluster() -> None:
    async def test(broker: Broker) -> None:
        answer = await ask(broker, 60, 2, include_cluster_authorized_operations=True)
        assert (answer.cluster_id, answer.controller_id) == ("cluster", 0)
        assert [(each.broker_id, each.port) for each in answer.brokers] == [(0, 9092)]
        assert answer.cluster_authorized_operations == 0b1111110100000
        assert (await ask(broker, 60, 1, endpoint_type=2)).error_code == 115

    broker_test(test)
