"""Where a consumer begins to read that is told by seeks, before it reads for the first time."""

from __future__ import annotations

import time
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException

from millstream.log import Log, TopicPartition
from millstream.log.kafka import reader
from shared.kafka_log import on_log, records

PARTITIONS = 4


async def fill(log: Log, topic: str) -> list[TopicPartition]:
    await log.create_topic(topic, partitions=PARTITIONS)
    async with log.producer() as producer:
        for partition in range(PARTITIONS):
            await producer.send_batch(topic, [b"%d" % n for n in range(20)], partition=partition)
    return [TopicPartition(topic, partition) for partition in range(PARTITIONS)]


def test_librdkafka_is_told_where_to_begin_and_nothing_else(
    url: str, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told to seek while it looks for the beginning, it sometimes begins there all the same."""
    told: list[tuple[str, int, int]] = []

    class Told(confluent_kafka.Consumer):
        def assign(self, places: Any) -> None:
            told.extend(("assign", at.partition, at.offset) for at in places)
            super().assign(places)

        def incremental_assign(self, places: Any) -> None:
            told.extend(("add", at.partition, at.offset) for at in places)
            super().incremental_assign(places)

        def incremental_unassign(self, places: Any) -> None:
            told.extend(("remove", at.partition, 0) for at in places)
            super().incremental_unassign(places)

        def seek(self, place: Any) -> None:
            told.append(("seek", place.partition, place.offset))
            super().seek(place)

    monkeypatch.setattr(reader, "LibrdkafkaConsumer", Told)

    async def body(log: Log) -> None:
        first, second, third, fourth = await fill(log, topic)
        async with log.consumer() as consumer:
            await consumer.assign([first, second, third])
            for partition in (first, second, third):
                await consumer.seek(partition, 15)
            assert consumer.position() == {first: 15, second: 15, third: 15}
            await consumer.seek(second, 18)
            found = await records(consumer, 12)
            assert sorted(told) == [("assign", 0, 15), ("assign", 1, 18), ("assign", 2, 15)]
            assert min(record.offset for record in found) == 15
            told.clear()

            await consumer.assign([second, fourth])  # what is kept keeps its place
            await consumer.assign([second, third, fourth])  # what was given up begins anew
            await consumer.seek(fourth, 19)
            await consumer.seek(third, 17)
            assert consumer.position() == {second: 20, third: 17, fourth: 19}
            found = await records(consumer, 4)
            assert sorted((each.partition, each.offset) for each in found) == [
                *((2, offset) for offset in (17, 18, 19)),
                (3, 19),
            ]
            changes = [("add", 2, 17), ("add", 3, 19), ("remove", 0, 0), ("remove", 2, 0)]
            assert sorted(told) == changes

    on_log(url, body)


def test_nothing_before_it_is_read(kafka_url: str, topic: str) -> None:
    async def body(log: Log) -> None:
        partitions = await fill(log, topic)
        for _ in range(15):
            async with log.consumer() as consumer:
                await consumer.assign(partitions)
                for partition in partitions:
                    await consumer.seek(partition, 19)
                found = await records(consumer, PARTITIONS)
                assert [record.offset for record in found] == [19] * PARTITIONS

    on_log(kafka_url, body)


@pytest.mark.parametrize("why", ["_STATE", "_PREV_IN_PROGRESS"])
def test_seeks_while_others_look_for_where_to_begin(
    url: str, topic: str, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """With an assignor that gives up everything, all are told anew where to begin: at what was not
    read yet, though librdkafka has forgotten that when it is told once more."""

    class Busy(confluent_kafka.Consumer):
        def assign(self, places: Any) -> None:
            super().assign(places)
            while any(at.offset >= 0 for at in self.position(places)):
                time.sleep(0.001)  # asked again

        def seek(self, _place: Any) -> None:
            raise KafkaException(KafkaError(getattr(KafkaError, why)))

    monkeypatch.setattr(reader, "LibrdkafkaConsumer", Busy)

    async def body(log: Log) -> None:
        _, second, third, _ = await fill(log, topic)
        config = {"partition.assignment.strategy": "range", "enable.auto.commit": "false"}
        async with log.consumer(topic, group=topic, config=config) as consumer:
            await records(consumer, 20 * PARTITIONS)
            await consumer.seek(second, 19)
            await consumer.seek(third, 18)
            found = await records(consumer, 3)
            found += await consumer.poll(300)
            assert sorted((each.partition, each.offset) for each in found) == [
                (1, 19),
                (2, 18),
                (2, 19),
            ]

    on_log(url, body)
