"""Partitions whose leader is killed: who asks about them is answered, and rightly."""

from __future__ import annotations

import pytest

from millstream.log import Log, TopicPartition
from shared.kafka_log import on_log
from shared.kafka_nodes import KafkaNodes

pytestmark = pytest.mark.cluster


def test_the_end_is_what_it_is_whoever_leads(kafka_cluster: KafkaNodes) -> None:
    partitions = [TopicPartition("orders", number) for number in range(6)]

    async def ends(log: Log) -> None:
        await log.create_topic("orders", partitions=6)
        async with log.producer() as producer:
            for _, number in partitions:
                await producer.send("orders", b"value", partition=number)
        expected = dict.fromkeys(partitions, 1)
        assert await log.end_offsets(partitions) == expected
        kafka_cluster.kill(1)
        assert await log.end_offsets(partitions) == expected
        kafka_cluster.start(1)
        assert await log.end_offsets(partitions) == expected

    on_log(f"kafka://{kafka_cluster.address}", ends, within_s=120)
