"""Records what real clients send: `python tests/clients/record_requests.py`, after a new client.

confluent-kafka and kafka-python, driven through what they can do, talk to a server through a proxy
that writes down their requests: the first two of each API, version and length, in
recorded_requests.txt, one base64 line each. The fuzzer starts from them.
"""

from __future__ import annotations

import socket
import struct
import sys
import tempfile
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource as PythonResource
from kafka.admin import ConfigResourceType

from shared.serve_command import serving

RECORDED = Path(__file__).with_name("recorded_requests.txt")


class Recorder:
    """Passes bytes on, and keeps the frames that clients send."""

    def __init__(self, port: int) -> None:
        self.frames: dict[tuple[int, int, int], bytes] = {}
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", port + 1))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            server = socket.create_connection(("127.0.0.1", self._upstream))
            for source, sink, keep in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pass, args=(source, sink, keep), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, keep: bool) -> None:
        pending = b""
        with suppress(OSError):  # one of the two is gone
            while data := source.recv(1 << 16):
                sink.sendall(data)
                pending = pending + data if keep else b""
                while len(pending) >= 4 and len(pending) - 4 >= (size := _length(pending)):
                    frame, pending = pending[4 : 4 + size], pending[4 + size :]
                    key, version = struct.unpack_from(">hh", frame)
                    self.frames.setdefault((key, version, len(frame)), frame)
            sink.close()

    def kept(self) -> Iterator[bytes]:
        """Two of each API and version."""
        counts: dict[tuple[int, int], int] = {}
        for (key, version, _), frame in sorted(self.frames.items()):
            counts[key, version] = counts.get((key, version), 0) + 1
            if counts[key, version] <= 2:
                yield frame


def _length(data: bytes) -> int:
    return int(struct.unpack_from(">i", data)[0])


def confluent(address: str) -> None:
    """What librdkafka sends."""
    settings = {"bootstrap.servers": address}
    admin = AdminClient(settings)
    admin.create_topics([NewTopic("c", 2, 1)])["c"].result(10)
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        producer = Producer(settings | {"compression.type": codec})
        for number in range(5):
            producer.produce("c", b"value" * 20, key=b"%d" % number, headers={"h": b"1"})
        producer.flush(10)
    transactional = Producer(settings | {"transactional.id": "c-tx"})
    transactional.init_transactions(10)
    consumer = Consumer(
        settings | {"group.id": "c-group", "auto.offset.reset": "earliest", "enable.auto.commit": 0}
    )
    consumer.subscribe(["c"])
    consumer.consume(5, 10)
    consumer.commit(asynchronous=False)
    consumer.committed([TopicPartition("c", 0)], 10)
    consumer.offsets_for_times([TopicPartition("c", 0, 1)], 10)
    transactional.begin_transaction()
    transactional.produce("c", b"in a transaction")
    positions = consumer.position(consumer.assignment())
    transactional.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), 10)
    transactional.commit_transaction(10)
    consumer.close()
    admin.create_partitions([NewPartitions("c", 3)])["c"].result(10)
    for each in admin.describe_configs([ConfigResource(2, "c")]).values():
        each.result(10)
    for each in admin.delete_records([TopicPartition("c", 0, 1)]).values():
        each.result(10)
    admin.list_consumer_groups().result(10)
    for each in admin.describe_consumer_groups(["c-group"]).values():
        each.result(10)
    admin.list_topics(timeout=10)
    admin.delete_consumer_groups(["c-group"])["c-group"].result(10)
    admin.delete_topics(["c"])["c"].result(10)


def python(address: str) -> None:
    """What kafka-python sends."""
    admin = KafkaAdminClient(bootstrap_servers=address)
    admin.create_topics({"k": {"num_partitions": 2, "configs": {"retention.ms": "100000"}}})
    producer = KafkaProducer(bootstrap_servers=address, transactional_id="k-tx")
    producer.init_transactions()
    producer.begin_transaction()
    for number in range(5):
        producer.send("k", b"value", key=b"%d" % number)
    producer.commit_transaction()
    producer.close()
    consumer = KafkaConsumer(
        "k", bootstrap_servers=address, group_id="k-group", auto_offset_reset="earliest"
    )
    for _ in range(10):
        if consumer.poll(1000):
            break
    consumer.commit()
    consumer.close()
    resource = PythonResource(ConfigResourceType.TOPIC, "k", {"segment.ms": "100000"})
    admin.alter_configs([resource])
    admin.describe_configs([PythonResource(ConfigResourceType.TOPIC, "k")])
    admin.create_partitions({"k": 3})
    admin.describe_log_dirs(["k"])
    admin.describe_topic_partitions(["k"])
    admin.describe_cluster()
    admin.list_groups()
    admin.describe_groups(["k-group"])
    admin.elect_leaders(0, {"k": [0]}, raise_errors=False)
    admin.list_partition_reassignments()
    admin.list_transactions()
    admin.delete_groups(["k-group"])
    admin.delete_topics(["k"])
    admin.close()


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free, tempfile.TemporaryDirectory() as folder:
        port = free.getsockname()[1]
        free.close()
        told = ("--advertised-listener", f"127.0.0.1:{port + 1}", "--listen", f"127.0.0.1:{port}")
        with serving(Path(folder) / "log", *told, "--config", "group.initial.rebalance.delay.ms=0"):
            recorder = Recorder(port)
            confluent(f"127.0.0.1:{port + 1}")
            python(f"127.0.0.1:{port + 1}")
            frames = list(recorder.kept())
    RECORDED.write_text("".join(b64encode(frame).decode() + "\n" for frame in frames))
    print(f"{len(frames)} requests, {RECORDED.stat().st_size} bytes")


if __name__ == "__main__":
    main()
