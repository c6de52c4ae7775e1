"""Groups, offsets and transactions: every version of every request gets its answer."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable

import pytest

from millstream.log.broker.broker import Broker
from millstream.log.broker.group_values import JoinRequest
from millstream.log.clock import SystemClock
from millstream.log.config import BrokerConfig
from millstream.log.server.dispatch import apis
from millstream.log.storage.memory_files import MemoryFiles
from shared.asking import ask

FENCED, OLD_EPOCH, UNKNOWN_MEMBER, UNSTABLE, UNKNOWN_TOPIC = 90, 47, 25, 88, 3
FENCED_INSTANCE = 82


def with_broker(body: Callable[[Broker], Awaitable[None]]) -> None:
    async def run() -> None:
        broker = await Broker.open(
            MemoryFiles(),
            "/log",
            durability="os",
            config=BrokerConfig(),
            clock=SystemClock(),
        )
        try:
            await broker.create_topic("t", 2)
            await body(broker)
        finally:
            await broker.close()

    asyncio.run(run())


def versions(key: int) -> list[int]:
    return list(apis()[key].versions)


@pytest.mark.parametrize("version", versions(12))
def test_an_unknown_member_has_no_heartbeat(version: int) -> None:
    async def body(broker: Broker) -> None:
        answer = await ask(broker, 12, version, group_id="g", generation_id=1, member_id="m")
        assert answer.error_code == UNKNOWN_MEMBER

    with_broker(body)


@pytest.mark.parametrize("version", versions(8))
def test_offsets_are_committed_one_by_one(version: int) -> None:
    async def body(broker: Broker) -> None:
        entries = [
            {"partition_index": each, "committed_offset": 5, "committed_metadata": "n"}
            for each in (0, 9)
        ]
        answer = await ask(
            broker,
            8,
            version,
            group_id="g",
            generation_id_or_member_epoch=-1,
            topics=[{"name": "t", "partitions": entries}],
        )
        codes = [int(each.error_code) for each in answer.topics[0].partitions]
        assert codes == [0, UNKNOWN_TOPIC]
        assert [each.offset for each in broker.offsets.of_group("g").values()] == [5]

    with_broker(body)


def test_who_assigns_itself_partitions_commits_though_it_has_an_instance_id() -> None:
    """Java's consumers send their group.instance.id also when they are in no group."""

    async def body(broker: Broker) -> None:
        who = {"group_id": "g", "generation_id_or_member_epoch": -1, "group_instance_id": "i"}

        async def code() -> int:
            entry = {"partition_index": 0, "committed_offset": 5}
            topics = [{"name": "t", "partitions": [entry]}]
            answer = await ask(broker, 8, 8, **who, topics=topics)
            return int(answer.topics[0].partitions[0].error_code)

        assert await code() == 0
        member = JoinRequest("", "c", 10_000, 10_000, "consumer", (("range", b""),), "i", "/net")
        joined = await broker.groups.join_group("g", member)
        assert await code() == FENCED_INSTANCE
        broker.groups.leave_group("g", joined.member_id)
        assert await code() == 0

    with_broker(body)


@pytest.mark.parametrize("version", versions(26))
def test_a_fenced_producer_is_told_so_in_words_it_knows(version: int) -> None:
    async def body(broker: Broker) -> None:
        first = await ask(broker, 22, 4, transactional_id="x", transaction_timeout=_ms(1000),
                          producer_id=-1, producer_epoch=-1)  # fmt: skip
        await ask(broker, 22, 4, transactional_id="x", transaction_timeout=_ms(1000),
                  producer_id=-1, producer_epoch=-1)  # fmt: skip
        answer = await ask(
            broker,
            26,
            version,
            transactional_id="x",
            producer_id=first.producer_id,
            producer_epoch=first.producer_epoch,
            committed=True,
        )
        assert answer.error_code == (FENCED if version >= 2 else OLD_EPOCH)

    with_broker(body)


def test_offsets_in_an_open_transaction_are_unstable() -> None:
    async def body(broker: Broker) -> None:
        made = await ask(broker, 22, 4, transactional_id="x", transaction_timeout=_ms(1000),
                         producer_id=-1, producer_epoch=-1)  # fmt: skip
        who = {"producer_id": made.producer_id, "producer_epoch": made.producer_epoch}
        entry = {"partition_index": 0, "committed_offset": 5}
        request = {
            "transactional_id": "x",
            "group_id": "g",
            **who,
            "generation_id": -1,
            "topics": [{"name": "t", "partitions": [entry]}],
        }
        refused = await ask(broker, 28, 3, **request)
        assert refused.topics[0].partitions[0].error_code == 48  # not announced
        assert (await ask(broker, 25, 3, transactional_id="x", group_id="g", **who)).error_code == 0
        taken = await ask(broker, 28, 3, **request)
        assert taken.topics[0].partitions[0].error_code == 0
        wanted = {"group_id": "g", "topics": [{"name": "t", "partition_indexes": [0]}]}
        for stable, expected in ((True, UNSTABLE), (False, 0)):
            answer = await ask(broker, 9, 7, **wanted, require_stable=stable)
            assert answer.topics[0].partitions[0].error_code == expected
            assert answer.topics[0].partitions[0].committed_offset == -1
        await ask(broker, 26, 3, transactional_id="x", **who, committed=True)
        answer = await ask(broker, 9, 8, groups=[wanted], require_stable=True)
        assert answer.groups[0].topics[0].partitions[0].committed_offset == 5

    with_broker(body)


def _ms(count: int) -> object:

    return dt.timedelta(milliseconds=count)


def test_what_is_named_twice_is_described_once() -> None:
    """Or a small request could ask for an answer larger than any memory."""

    async def body(broker: Broker) -> None:
        partition = {"partition_index": 0, "committed_offset": 4}
        await ask(
            *(broker, 8, 8),
            group_id="g",
            generation_id_or_member_epoch=-1,
            topics=[{"name": "t", "partitions": [partition]}],
        )
        found = await ask(broker, 3, 12, topics=[{"name": "t"}] * 3)
        assert [each.name for each in found.topics] == ["t"]
        found = await ask(broker, 15, 6, groups=["g", "h", "g"])
        assert [each.group_id for each in found.groups] == ["g", "h"]
        found = await ask(broker, 69, 1, group_ids=["g", "h", "g"])
        assert [each.group_id for each in found.groups] == ["g", "h"]
        asked = [
            {"name": "t", "partition_indexes": [0, 1, 0]},
            {"name": "t", "partition_indexes": [1]},
        ]
        (found,) = (await ask(broker, 61, 0, topics=asked)).topics
        assert [each.partition_index for each in found.partitions] == [0, 1]
        groups = [{"group_id": each, "topics": None} for each in "ghg"]
        found = await ask(broker, 9, 8, groups=groups)
        assert [(each.group_id, each.error_code, each.topics) for each in found.groups] == [
            ("g", 42, ()),
            ("h", 0, ()),
            ("g", 42, ()),
        ]

    with_broker(body)
