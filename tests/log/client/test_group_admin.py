"""Groups from outside: list, describe, delete offsets."""

from __future__ import annotations

import pytest

from millstream.log import (
    ConfigError,
    GroupDescription,
    GroupListing,
    GroupSubscribedToTopicError,
    OffsetAndMetadata,
    TopicPartition,
    UnknownGroupError,
)
from millstream.log.client.embedded_log import EmbeddedLog
from millstream.log.errors import (
    GroupMaxSizeReachedError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
)
from shared.logs import settled, with_log

T0, U0 = TopicPartition("t", 0), TopicPartition("u", 0)


def test_list_and_describe() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=2)
        assert await log.groups() == []
        with pytest.raises(UnknownGroupError, match="nope"):
            await log.describe_group("nope")
        await log.alter_group_offsets("only-offsets", {T0: 0})
        a = log.consumer("t", group="g", config={"client.id": "me"})
        await a.poll(0)
        assert await log.groups() == [
            GroupListing("g", "Stable", "consumer"),
            GroupListing("only-offsets", "Empty", ""),
        ]
        found = await log.describe_group("g")
        member = found.members[0]
        assert found == GroupDescription(
            "g", "Stable", "consumer", "range", 1, member.member_id, (member,)
        )
        assert member.member_id == a.group_metadata().member_id
        assert member.member_id.startswith("me-")
        assert member.client_id == "me"
        assert member.group_instance_id is None
        assert member.assignment == (T0, TopicPartition("t", 1))
        assert await log.describe_group("only-offsets") == GroupDescription(
            "only-offsets", "Empty", "", "", 0, "", ()
        )
        b = log.consumer("t", group="g")
        assert await b.poll(0) == []
        found = await log.describe_group("g")
        assert (found.state, found.protocol) == ("PreparingRebalance", "")
        for each in (a, b):
            await each.close()
        found = await log.describe_group("g")
        assert (found.state, found.members, found.leader) == ("Empty", (), "")
        assert log._broker.groups.stats().by_state == {"Empty": 1}
        assert log._broker.groups.stats().rebalances >= 1
        await log.delete_group("g")
        assert [each.group for each in await log.groups()] == ["only-offsets"]

    with_log(body)


def test_delete_offsets() -> None:
    async def body(log: EmbeddedLog) -> None:
        for name in ("t", "u"):
            await log.create_topic(name)
        with pytest.raises(UnknownGroupError):
            await log.delete_group_offsets("g", [T0])
        await log.alter_group_offsets("g", {T0: 0, U0: 0})
        consumer = log.consumer("t", group="g")
        await consumer.poll(0)
        with pytest.raises(GroupSubscribedToTopicError, match="topic t") as raised:
            await log.delete_group_offsets("g", [U0, T0])
        assert raised.value.kafka_code == 86
        assert set(await log.group_offsets("g")) == {T0, U0}, "all or nothing"
        await log.delete_group_offsets("g", [U0])
        await consumer.close()
        assert await log.group_offsets("g") == {T0: OffsetAndMetadata(0)}
        await log.delete_group_offsets("g", [T0, U0])
        assert await log.group_offsets("g") == {}

    with_log(body)


def test_a_tombstone_beats_an_open_transaction_that_began_before_it() -> None:
    """In memory as after opening the log again: by the order of the records."""

    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        async with log.producer(transactional_id="x") as producer:
            await producer.begin_transaction()
            await producer.send_offsets({T0: 1}, group="g")
            await log.delete_group("g")
            await producer.commit_transaction()
        assert await log.group_offsets("g") == {}

    with_log(body)


def test_errors_have_kafkas_codes() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        first = log.consumer("t", group="g", config={"partition.assignment.strategy": "range"})
        await first.poll(0)
        cases = [
            ({"session.timeout.ms": 5}, InvalidSessionTimeoutError, 26),
            (
                {"partition.assignment.strategy": "roundrobin"},
                InconsistentGroupProtocolError,
                23,
            ),
        ]
        for config, kind, code in cases:
            with pytest.raises(kind) as raised:
                await log.consumer("t", group="g", config=config).poll(0)
            assert raised.value.kafka_code == code
            assert isinstance(raised.value, ConfigError)

    with_log(body)


def test_a_group_has_a_most() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t", partitions=2)
        a, b, c = (log.consumer("t", group="g") for _ in range(3))
        for _ in range(3):
            for each in (a, b):
                await each.poll(0)
                await settled()
        with pytest.raises(GroupMaxSizeReachedError, match=r"group\.max\.size=2") as raised:
            await c.poll(0)
        assert raised.value.kafka_code == 81
        await b.close()
        for _ in range(3):
            for each in (a, c):
                await each.poll(0)
                await settled()
        assert len(c.assignment()) == 1

    with_log(body, config={"group.max.size": 2})
