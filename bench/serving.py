"""`millstream serve` beside Apache Kafka of one node: throughput and latency, as clients see them.

    python bench/serving.py [--rounds 3] [--records 300000]

Records of 1 KB in batches of 100 KB, into and out of topics of one partition. Kafka's own programs
and confluent-kafka measure both servers in turn, in rounds, so that both have the same machine. A
ratio is taken within its round. CPU is that of the server's process.
Apache Kafka comes from Maven Central (`tests/shared/kafka_jars.py`); it needs a JDK 17 and Maven.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from shared.kafka_jars import Java, java_or_skip
from shared.kafka_nodes import KafkaNodes
from shared.serve_command import serving

RECORD_BYTES = 1000
BATCH_BYTES = 100_000
LINGER_MS = 5
PACED_RECORDS_S = 1000
PACED_S = 10
TOOLS = "org.apache.kafka.tools"
SERVERS = ("kafka", "millstream os", "millstream fsync")


class Setting(NamedTuple):
    """What a measurement is told."""

    java: Java
    address: str
    topic: str
    records: int


@contextmanager
def server(name: str, java: Java) -> Iterator[tuple[str, int]]:
    """A server with an empty folder; its address and process id."""
    with tempfile.TemporaryDirectory() as folder:
        if name == "kafka":
            nodes = KafkaNodes(java, Path(folder), heap_mb=1024, quick=False)
            with nodes:
                yield nodes.address, nodes.pid(1)
        else:
            durability = name.split()[1]
            with serving(Path(folder) / "log", "--durability", durability) as served:
                yield served.address, served.process.pid


def java_run(setting: Setting, tool: str, *arguments: str) -> str:
    command = setting.java.command(
        f"{TOOLS}.{tool}",
        *("--bootstrap-server", setting.address, "--topic", setting.topic, *arguments),
        heap_mb=512,
        quick=False,
    )
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
    return ran.stdout


def java_produce(setting: Setting, *more: str) -> dict[str, float]:
    said = java_run(
        setting,
        "ProducerPerformance",
        *("--num-records", str(setting.records), "--record-size", str(RECORD_BYTES)),
        *("--throughput", "-1", *more, "--command-property", "acks=all"),
        *(f"batch.size={BATCH_BYTES}", f"linger.ms={LINGER_MS}"),
    )
    found = re.search(r"\(([\d.]+) MB/sec\)", said.splitlines()[-1])
    assert found, said
    return {"MB/s": float(found[1])}


def java_paced(setting: Setting) -> dict[str, float]:
    """From send to acknowledgement, at a rate below what the server can do."""
    said = java_run(
        setting,
        "ProducerPerformance",
        *("--num-records", str(PACED_RECORDS_S * PACED_S), "--record-size", str(RECORD_BYTES)),
        *("--throughput", str(PACED_RECORDS_S), "--warmup-records", str(2 * PACED_RECORDS_S)),
        *("--command-property", "acks=all", f"batch.size={BATCH_BYTES}", "linger.ms=0"),
    )
    found = re.search(r"(\d+) ms 50th, .*? (\d+) ms 99th", said.splitlines()[-1])
    assert found, said
    return {"p50 ms": float(found[1]), "p99 ms": float(found[2])}


def java_consume(setting: Setting) -> dict[str, float]:
    said = java_run(setting, "ConsumerPerformance", "--num-records", str(setting.records))
    return {"MB/s": float(said.splitlines()[-1].split(", ")[8])}


def java_round_trip(setting: Setting) -> dict[str, float]:
    """One record at a time, from send to receipt."""
    said = java_run(
        setting,
        "EndToEndLatency",
        *("--num-records", "3000", "--producer-acks", "all", "--record-size", str(RECORD_BYTES)),
    )
    found = re.search(r"50th = (\d+), 99th = (\d+)", said)
    assert found, said
    return {"p50 ms": float(found[1]), "p99 ms": float(found[2])}


def confluent_produce(setting: Setting) -> dict[str, float]:
    producer = Producer(
        {
            "bootstrap.servers": setting.address,
            "batch.size": BATCH_BYTES,
            "linger.ms": LINGER_MS,
            "queue.buffering.max.kbytes": 65_536,
        }
    )
    value = b"v" * RECORD_BYTES
    started = time.perf_counter()
    for _ in range(setting.records):
        while True:
            try:
                producer.produce(setting.topic, value)
                break
            except BufferError:
                producer.poll(0.01)
    assert producer.flush(120) == 0
    taken = time.perf_counter() - started
    return {"MB/s": setting.records * RECORD_BYTES / taken / 1e6}


def confluent_consume(setting: Setting) -> dict[str, float]:
    consumer = Consumer({"bootstrap.servers": setting.address, "group.id": "measuring"})
    consumer.assign([TopicPartition(setting.topic, 0, 0)])
    records = len(consumer.consume(1, 30))
    started = time.perf_counter()
    while records < setting.records:
        records += len(consumer.consume(10_000, 1))
    taken = time.perf_counter() - started
    consumer.close()
    return {"MB/s": setting.records * RECORD_BYTES / taken / 1e6}


def confluent_paced(setting: Setting) -> dict[str, float]:
    """From send to receipt, by another thread, at a rate below what the server can do."""
    common = {"bootstrap.servers": setting.address}
    consumer = Consumer({**common, "group.id": "measuring", "fetch.wait.max.ms": 100})
    consumer.assign([TopicPartition(setting.topic, 0, 0)])
    producer = Producer({**common, "linger.ms": 0})
    count = PACED_RECORDS_S * PACED_S
    latencies: list[float] = []

    def receive() -> None:
        while len(latencies) < count:
            record = consumer.poll(1)
            if record is not None and record.error() is None:
                latencies.append(time.perf_counter() - float(record.value()))

    receiver = threading.Thread(target=receive)
    receiver.start()
    started = time.perf_counter()
    for number in range(count):
        early = started + number / PACED_RECORDS_S - time.perf_counter()
        if early > 0:
            time.sleep(early)
        producer.produce(setting.topic, f"{time.perf_counter():.9f}".ljust(RECORD_BYTES))
        producer.poll(0)
    assert producer.flush(30) == 0
    receiver.join()
    consumer.close()
    warm = sorted(latencies[2 * PACED_RECORDS_S :])
    return {
        "p50 ms": warm[len(warm) // 2] * 1000,
        "p99 ms": warm[len(warm) * 99 // 100] * 1000,
    }


MEASUREMENTS: tuple[tuple[str, str, Callable[[Setting], dict[str, float]]], ...] = (
    ("ProducerPerformance", "java", java_produce),
    ("ConsumerPerformance", "java", java_consume),
    ("confluent-kafka produce", "confluent", confluent_produce),
    ("confluent-kafka consume", "confluent", confluent_consume),
    ("ProducerPerformance, 1000 records/s, acknowledged", "java-paced", java_paced),
    ("EndToEndLatency", "ping", java_round_trip),
    ("confluent-kafka, 1000 records/s, end to end", "paced", confluent_paced),
)
"""What it is called, its topic, how it is done; in this order, because reading follows writing."""

Figures = dict[tuple[str, str], list[float]]


def cpu_s(pid: int) -> float:
    """What a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(name: str, java: Java, records: int, figures: Figures) -> None:
    """One round on one server."""
    with server(name, java) as (address, pid):
        admin = AdminClient({"bootstrap.servers": address})
        topics = {topic for _, topic, _ in MEASUREMENTS} | {"warm"}
        for each in admin.create_topics([NewTopic(topic, 1, 1) for topic in topics]).values():
            each.result(30)
        warm = Setting(java, address, "warm", records // 3)
        confluent_produce(warm)
        confluent_consume(warm)
        for what, topic, how in MEASUREMENTS:
            before = cpu_s(pid)
            told = how(Setting(java, address, topic, records))
            told["server CPU s"] = cpu_s(pid) - before
            for unit, figure in told.items():
                figures.setdefault((what, unit), []).append(figure)
                print(f"{name}: {what}: {figure:.2f} {unit}", file=sys.stderr, flush=True)


def ratios(ours: list[float], theirs: list[float]) -> str:
    """Ours to theirs, within each round."""
    pairs = sorted(a / b if b else float("nan") for a, b in zip(ours, theirs, strict=True))
    return f"**{statistics.median(pairs):.2f}** [{pairs[0]:.2f}..{pairs[-1]:.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=300_000)
    parser.add_argument("--json", action="store_true", help="print every figure")
    options = parser.parse_args()
    java = java_or_skip()
    found: dict[str, Figures] = {name: {} for name in SERVERS}
    for number in range(options.rounds):
        for name in SERVERS if number % 2 == 0 else reversed(SERVERS):
            measure(name, java, options.records, found[name])
    if options.json:
        print(json.dumps({name: list(each.items()) for name, each in found.items()}))
    print(f"| | unit | {' | '.join(SERVERS)} | ratio, os | ratio, fsync |")
    print("|---" * 7 + "|")
    for key, theirs in found["kafka"].items():
        medians = [f"{statistics.median(found[name][key]):,.2f}" for name in SERVERS]
        of = [ratios(found[name][key], theirs) for name in SERVERS[1:]]
        print(f"| {key[0]} | {key[1]} | {' | '.join([*medians, *of])} |")


if __name__ == "__main__":
    main()
