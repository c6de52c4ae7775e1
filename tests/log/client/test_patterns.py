"""Topics by pattern, and those created later."""

from __future__ import annotations

import re

import pytest

from millstream.log import ConfigError, TopicPartition
from millstream.log.client.embedded_log import EmbeddedLog
from shared.logs import settled, with_log


def topics(consumer) -> list[str]:
    return sorted({each.topic for each in consumer.assignment()})


def test_a_pattern_must_match_the_whole_name() -> None:
    async def body(log: EmbeddedLog) -> None:
        for name in ("orders", "orders-eu", "my-orders"):
            await log.create_topic(name)
        consumer = log.consumer(group="g")
        await consumer.subscribe(pattern=re.compile("orders"))
        await consumer.poll(0)
        assert topics(consumer) == ["orders"]
        await consumer.subscribe(pattern=re.compile("orders.*"))
        await consumer.poll(0)
        assert topics(consumer) == ["orders", "orders-eu"]
        await consumer.subscribe(pattern=re.compile(".*"))
        await consumer.poll(0)
        assert topics(consumer) == ["my-orders", "orders", "orders-eu"], "none of the log's own"

    with_log(body)


def test_a_name_with_a_caret_is_a_prefix_pattern() -> None:
    async def body(log: EmbeddedLog) -> None:
        for name in ("orders", "orders-eu", "my-orders", "plain"):
            await log.create_topic(name)
        consumer = log.consumer("^orders", "plain", group="g")
        await consumer.poll(0)
        assert topics(consumer) == ["orders", "orders-eu", "plain"]
        with pytest.raises(ConfigError, match="pattern"):
            await consumer.subscribe(["^("])
        with pytest.raises(ConfigError, match="group"):
            log.consumer("^orders")

    with_log(body)


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_new_topics_are_read_and_deleted_ones_forgotten(strategy: str) -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("a-1", partitions=2)
        config = {"partition.assignment.strategy": strategy}
        members = [log.consumer("^a-", group="g", config=config) for _ in range(2)]

        async def turns() -> None:
            for _ in range(4):
                for each in members:
                    await each.poll(0)
                    await settled()

        await turns()
        generation = members[0].group_metadata().generation
        await log.create_topic("b-1")
        await turns()
        assert members[0].group_metadata().generation == generation, "not one of theirs"
        await log.create_topic("a-2", partitions=2)
        await turns()
        assert members[0].assignment() | members[1].assignment() == {
            TopicPartition(topic, number) for topic in ("a-1", "a-2") for number in (0, 1)
        }
        assert len(members[0].assignment()) == len(members[1].assignment()) == 2
        async with log.producer() as producer:
            await producer.send("a-3", b"made by writing to it")
        await turns()
        assert {"a-3"} <= {*topics(members[0]), *topics(members[1])}
        await log.delete_topic("a-2")
        await turns()
        assert {*topics(members[0]), *topics(members[1])} == {"a-1", "a-3"}

    with_log(body)


def test_a_pattern_that_matches_nothing_yet() -> None:
    async def body(log: EmbeddedLog) -> None:
        consumer = log.consumer("^later", group="g")
        assert await consumer.poll(0) == []
        async with log.producer() as producer:
            await producer.send("later", b"x")
        assert [each.value for each in await consumer.poll(0)] == [b"x"]

    with_log(body)


def test_a_pattern_that_is_refused_leaves_the_subscription_as_it_was() -> None:
    async def body(log: EmbeddedLog) -> None:
        await log.create_topic("t")
        consumer = log.consumer("t")
        await consumer.poll(0)
        with pytest.raises(ConfigError, match="group"):
            await consumer.subscribe(pattern=re.compile("t"))
        await log.alter_topic("t", partitions=2)
        await consumer.poll(0)
        assert len(consumer.assignment()) == 2

    with_log(body)
