"""A client that copies `in` to `out`, exactly once: python copying.py ADDRESS ID. Killed, it is
started again; where it is fenced or disturbed it begins anew by itself.
"""

from __future__ import annotations

import sys

from confluent_kafka import Consumer, KafkaException, Producer

GROUP = "copiers"


def copy(address: str, name: str) -> None:
    """Until something fails for good."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": GROUP,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "session.timeout.ms": 2000,
            "heartbeat.interval.ms": 200,
            "max.poll.interval.ms": 10000,
        }
    )
    settings = {
        "bootstrap.servers": address,
        "transactional.id": name,
        "transaction.timeout.ms": 5000,
        "linger.ms": 1,
        # Else librdkafka forgets all servers when none can be reached, and waits for ever for the
        # group's coordinator among them (its issue 5456).
        "metadata.recovery.strategy": "none",
    }
    producer = Producer(settings)
    producer.init_transactions(10)
    consumer.subscribe(["in"])
    try:
        while True:
            records = [each for each in consumer.consume(7, 0.2) if each.error() is None]
            if records:
                _transaction(consumer, producer, records)
    finally:
        consumer.close()


def _transaction(consumer: Consumer, producer: Producer, records: list[object]) -> None:
    producer.begin_transaction()
    for each in records:
        producer.produce("out", each.value(), partition=each.partition())
    position = consumer.position(consumer.assignment())
    producer.send_offsets_to_transaction(
        [each for each in position if each.offset >= 0], consumer.consumer_group_metadata(), 10
    )
    producer.commit_transaction(20)


def main(address: str, name: str) -> None:
    while True:
        try:
            copy(address, name)
        except KafkaException as error:
            print(f"{name}: {error}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
