"""Groups and transactions of kafka-python and aiokafka on a served log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import TopicPartition as KafkaPartition
from kafka.errors import InvalidProducerEpochError, ProducerFencedError

from shared.served_log import ServedLog, until

RECORDS = 20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedLog]:
    with ServedLog(tmp_path_factory.mktemp("python") / "log") as served:
        yield served


def filled(served: ServedLog, topic: str) -> None:
    """RECORDS numbered records in two partitions; the topic is made as it is first written to."""
    admin = KafkaAdminClient(bootstrap_servers=served.address)
    admin.create_topics({topic: {"num_partitions": 2, "replication_factor": 1}})
    admin.close()
    producer = KafkaProducer(bootstrap_servers=served.address)
    for number in range(RECORDS):
        producer.send(topic, b"%d" % number, partition=number % 2)
    producer.close()


def consumer(served: ServedLog, group: str) -> KafkaConsumer:
    made = KafkaConsumer(
        bootstrap_servers=served.address,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        isolation_level="read_committed",
        heartbeat_interval_ms=200,
        session_timeout_ms=6000,
    )
    made.partitions_for_topic(group)  # 3.0.12 may hang when it learns of its topic in a join
    made.subscribe([group])
    return made


def read(made: KafkaConsumer, count: int) -> list[int]:
    found: list[int] = []

    def enough() -> bool:
        for records in made.poll(timeout_ms=200).values():
            found.extend(int(each.value) for each in records)
        return len(found) >= count

    until(enough)
    return sorted(found)


def test_kafka_python_groups(served: ServedLog) -> None:
    filled(served, "kp")
    first = consumer(served, "kp")
    assert read(first, RECORDS) == list(range(RECORDS))
    first.commit()
    second = consumer(served, "kp")

    def shared() -> bool:
        first.poll(timeout_ms=100)
        second.poll(timeout_ms=100)
        return [len(first.assignment()), len(second.assignment())] == [1, 1]

    until(shared)
    first.close()
    until(lambda: not second.poll(timeout_ms=100) and len(second.assignment()) == 2)
    committed = [second.committed(KafkaPartition("kp", each)) for each in range(2)]
    assert committed == [RECORDS // 2] * 2
    second.close()


def test_kafka_python_transactions(served: ServedLog) -> None:
    filled(served, "kpt")
    settings = {"bootstrap_servers": served.address, "transactional_id": "kpt"}
    producer = KafkaProducer(**settings)
    producer.init_transactions()
    for number in range(RECORDS, RECORDS + 4):
        producer.begin_transaction()
        producer.send("kpt", b"%d" % number, partition=0)
        if number % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    reader = consumer(served, "kpt")
    assert read(reader, RECORDS + 2) == [*range(RECORDS), RECORDS, RECORDS + 2]
    reader.close()
    producer.close()


def test_kafka_python_fencing(served: ServedLog) -> None:
    filled(served, "kpf")
    settings = {"bootstrap_servers": served.address, "transactional_id": "kpf"}
    first, second = KafkaProducer(**settings), KafkaProducer(**settings)
    first.init_transactions()
    first.begin_transaction()
    first.send("kpf", b"97", partition=0).get(15)
    second.init_transactions()
    with pytest.raises((ProducerFencedError, InvalidProducerEpochError)):
        first.commit_transaction()
    second.begin_transaction()
    second.send("kpf", b"98", partition=0)
    second.commit_transaction()
    reader = consumer(served, "kpf")
    assert read(reader, RECORDS + 1) == [*range(RECORDS), 98]
    for each in (reader, first, second):
        each.close()


def test_aiokafka_groups_and_transactions(served: ServedLog) -> None:
    aiokafka = pytest.importorskip("aiokafka", reason="aiokafka is not installed")
    filled(served, "aio")

    async def main() -> list[int]:
        producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=served.address, transactional_id="aio"
        )
        reader = aiokafka.AIOKafkaConsumer(
            "aio",
            bootstrap_servers=served.address,
            group_id="aio",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            isolation_level="read_committed",
        )
        await producer.start()
        await reader.start()
        found: list[int] = []
        try:
            while len(found) < RECORDS:
                records = await asyncio.wait_for(reader.getmany(timeout_ms=500), 20)
                found += [int(each.value) for batch in records.values() for each in batch]
            async with producer.transaction():
                await producer.send_and_wait("aio", b"99", partition=0)
                position = {each: await reader.position(each) for each in reader.assignment()}
                await producer.send_offsets_to_transaction(position, "aio")
            committed = [await reader.committed(each) for each in sorted(position)]
            assert committed == [RECORDS // 2] * 2
            found.append(int((await asyncio.wait_for(reader.getone(), 20)).value))
        finally:
            await reader.stop()
            await producer.stop()
        return sorted(found)

    assert asyncio.run(main()) == [*range(RECORDS), 99]
