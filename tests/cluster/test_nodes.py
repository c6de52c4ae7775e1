"""The cluster the other tests here run on is one: it survives each of its nodes."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from shared.kafka_jars import Java
from shared.kafka_nodes import KafkaNodes

pytestmark = pytest.mark.cluster


def produce(nodes: KafkaNodes, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": nodes.address, "acks": "all"})
    failed = []
    producer.produce(topic, value, on_delivery=lambda error, _: error and failed.append(error))
    assert (producer.flush(60), failed) == (0, [])


def read(nodes: KafkaNodes, topic: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": nodes.address, "group.id": "reader"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    records = consumer.consume(count, 60)
    consumer.close()
    return [each.value() for each in records]


def test_one_node(java: Java, kafka_node: KafkaNodes) -> None:
    server = ("--bootstrap-server", kafka_node.address)
    tool = "org.apache.kafka.tools.TopicCommand"
    java.run(tool, *server, "--create", "--topic", "one", "--partitions", "1")
    produce(kafka_node, "one", b"value")
    assert read(kafka_node, "one", 1) == [b"value"]


def test_three_nodes_of_which_each_is_killed(java: Java, kafka_cluster: KafkaNodes) -> None:
    server = ("--bootstrap-server", kafka_cluster.address)
    tool = "org.apache.kafka.tools.TopicCommand"
    java.run(tool, *server, "--create", "--topic", "three", "--partitions", "1")
    for node in kafka_cluster.ids:
        kafka_cluster.kill(node)
        produce(kafka_cluster, "three", b"without %d" % node)
        kafka_cluster.start(node)
    assert read(kafka_cluster, "three", 3) == [b"without 1", b"without 2", b"without 3"]
