"""The programs by which Kafka tests itself, on a served log; and its reader on our files."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from shared.kafka_jars import Java
from shared.served_log import ServedLog

pytestmark = pytest.mark.slow

TOOLS = "org.apache.kafka.tools"
PARTITIONS = 2


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedLog]:
    """A server whose topics have PARTITIONS partitions, and whose files can be looked at."""
    with ServedLog(tmp_path_factory.mktemp("served") / "log") as log:
        yield log


def create(java: Java, served: ServedLog, topic: str, partitions: int = PARTITIONS) -> None:
    server = ("--bootstrap-server", served.address)
    named = ("--create", "--topic", topic, "--partitions", str(partitions))
    java.run(f"{TOOLS}.TopicCommand", *server, *named)


def events(output: str, name: str) -> list[dict[str, Any]]:
    """What a verifiable client told of one kind."""
    found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [each for each in found if each["name"] == name]


def produced(java: Java, served: ServedLog, topic: str, count: int, *more: str) -> str:
    """Integers from 0, by VerifiableProducer."""
    named = ("--topic", topic, "--max-messages", str(count), "--acks", "-1")
    return java.run(
        f"{TOOLS}.VerifiableProducer", "--bootstrap-server", served.address, *named, *more
    )


def committed(served: ServedLog, topic: str, partitions: int = PARTITIONS) -> list[list[int]]:
    """The integers of each partition that a read_committed consumer sees."""
    consumer = Consumer(
        {
            "bootstrap.servers": served.address,
            "group.id": "looking",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(topic, each, 0) for each in range(partitions)])
    found: list[list[int]] = [[] for _ in range(partitions)]
    ends = 0
    while ends < partitions:
        for each in consumer.consume(500, 1):
            if each.error() is None:
                found[each.partition()].append(int(each.value()))
            else:
                ends += 1
    consumer.close()
    return found


def test_what_is_acknowledged_is_consumed(java: Java, served: ServedLog) -> None:
    create(java, served, "verified")
    told = produced(java, served, "verified", 1000)
    acknowledged = events(told, "producer_send_success")
    assert events(told, "producer_send_error") == []
    assert sorted(int(each["value"]) for each in acknowledged) == list(range(1000))

    consumed = java.run(
        f"{TOOLS}.VerifiableConsumer",
        *("--bootstrap-server", served.address, "--topic", "verified", "--verbose"),
        *("--group-id", "verifying", "--max-messages", "1000", "--reset-policy", "earliest"),
    )
    records = events(consumed, "record_data")
    wrote = {(each["partition"], each["offset"]): each["value"] for each in acknowledged}
    assert {(each["partition"], each["offset"]): each["value"] for each in records} == wrote
    assert len(records) == 1000
    assert all(each["success"] for each in events(consumed, "offsets_committed"))
    assert len(events(consumed, "partitions_assigned")) == 1


def test_a_group_goes_on_when_a_member_dies(java: Java, served: ServedLog) -> None:
    """The one that is left is given all partitions and reads on from what was committed."""
    create(java, served, "shared")
    command = java.command(
        f"{TOOLS}.VerifiableConsumer",
        *("--bootstrap-server", served.address, "--topic", "shared", "--session-timeout", "6000"),
        *("--group-id", "sharing", "--reset-policy", "earliest", "--verbose"),
    )
    members = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for each in members:
            told_until(each, "partitions_assigned")
        produced(java, served, "shared", 100)
        members[0].kill()
        while len(told_until(members[1], "partitions_assigned")["partitions"]) < PARTITIONS:
            pass
        produced(java, served, "shared", 100, "--value-prefix", "1")
        values = set()
        while len(values) < 100:
            event = told_until(members[1], "record_data")
            if str(event["value"]).startswith("1."):
                values.add(event["value"])
        members[1].send_signal(signal.SIGTERM)
        told_until(members[1], "shutdown_complete")
    finally:
        for each in members:
            each.kill()
            each.communicate()


def told_until(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
    """The next event of this name."""
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["name"] == name:
            return event
    raise AssertionError(f"it ended before {name}")


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_producer_and_consumer_performance(java: Java, served: ServedLog, codec: str) -> None:
    topic = f"performance-{codec}"
    create(java, served, topic)
    count = ("--num-records", "20000")
    server = ("--bootstrap-server", served.address)
    sent = java.run(
        f"{TOOLS}.ProducerPerformance",
        *("--topic", topic, *count, "--record-size", "100", "--throughput", "-1", *server),
        *("--command-property", f"compression.type={codec}", "batch.size=10000"),
    )
    assert sent.startswith("20000 records sent")
    read = java.run(f"{TOOLS}.ConsumerPerformance", "--topic", topic, *count, *server)
    assert read.splitlines()[-1].split(", ")[4] == "20000"


def copier(java: Java, served: ServedLog, partition: int, *more: str) -> list[str]:
    return java.command(
        f"{TOOLS}.TransactionalMessageCopier",
        *("--broker-list", served.address, "--input-topic", "copied-in"),
        *("--input-partition", str(partition), "--output-topic", "copied-out"),
        *("--transaction-size", "10", "--transaction-timeout", "20000"),
        *("--consumer-group", "copying", "--transactional-id", f"copier-{partition}", *more),
    )


def test_transactional_copiers(java: Java, served: ServedLog) -> None:
    """Kafka's transaction test: what is copied equals what was there, some copies aborted on the
    way, one copier killed, and the server killed and started again."""
    create(java, served, "copied-in")
    create(java, served, "copied-out")
    producer = Producer({"bootstrap.servers": served.address})
    for number in range(4000):
        producer.produce("copied-in", str(number), partition=number % PARTITIONS)
    assert producer.flush(60) == 0
    limit = str(4000 // PARTITIONS)
    running = [
        subprocess.Popen(
            copier(java, served, each, "--max-messages", limit, "--enable-random-aborts"),
            stdout=subprocess.PIPE,
            text=True,
        )
        for each in range(PARTITIONS)
    ]
    stages: dict[int, dict[str, Any]] = {}
    try:
        copied_something(running[0])
        running[0].kill()
        running[0].communicate()
        running[0] = subprocess.Popen(
            copier(java, served, 0, "--max-messages", limit), stdout=subprocess.PIPE, text=True
        )
        copied_something(running[0])
        assert running[0].poll() is None
        served.kill()
        served.start()
        for each, process in enumerate(running):
            output, _ = process.communicate(timeout=120)
            stages[each] = json.loads(output.splitlines()[-1])
            assert process.returncode == 0
    finally:
        for process in running:
            process.kill()
            process.communicate()
    assert {each["stage"] for each in stages.values()} == {"ShutdownComplete"}
    found = committed(served, "copied-out")
    assert sorted(chain(*found)) == list(range(4000))


def copied_something(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{") and json.loads(line).get("totalProcessed", 0) > 0:
            return
    raise AssertionError("the copier ended at once")


def test_a_round_trip_is_soon(java: Java, served: ServedLog) -> None:
    create(java, served, "ping", 1)
    told = java.run(
        f"{TOOLS}.EndToEndLatency",
        *("--bootstrap-server", served.address, "--topic", "ping", "--num-records", "50"),
        *("--producer-acks", "all", "--record-size", "100"),
    )
    assert "Percentiles: 50th" in told


WRITER = """
import sys
from confluent_kafka import Consumer, Producer
server = {"bootstrap.servers": sys.argv[1]}
producer = Producer({**server, "transactional.id": "dumping"})
producer.init_transactions()
for end in (producer.commit_transaction, producer.abort_transaction):
    producer.begin_transaction()
    for number in range(100):
        producer.produce("dumped", b"v" * 200, key=b"k%d" % number)
    producer.flush()
    end()
reader = Consumer({**server, "group.id": "reading", "auto.offset.reset": "earliest"})
reader.subscribe(["dumped"])
assert len(reader.consume(100, 60)) == 100
reader.commit(asynchronous=False)
reader.close()
"""


@pytest.fixture(scope="module")
def files(java: Java, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a log that clients wrote, with an aborted transaction and a group in it."""
    with ServedLog(tmp_path_factory.mktemp("served") / "log") as log:
        create(java, log, "dumped", 1)
        subprocess.run([sys.executable, "-c", WRITER, log.address], check=True, timeout=90)
    return log.folder


def dump(java: Java, paths: list[Path], *options: str) -> str:
    """What DumpLogSegments says of files; it finds faults in words, not by its exit code."""
    files = ",".join(str(each) for each in paths)
    told = java.run(f"{TOOLS}.DumpLogSegments", "--files", files, *options)
    assert not re.search(r"mismatch|non-consecutive|Found|not enough|corrupt|exception", told), told
    return told


def test_kafka_reads_our_files(java: Java, files: Path) -> None:
    folder = files / "dumped-0"
    records = dump(java, [folder / "00000000000000000000.log"], "--print-data-log")
    assert len(re.findall(r"(?m)^\| offset: \d+ .* valueSize: 200 sequence: \d+", records)) == 200
    assert re.findall(r"endTxnMarker: (\w+)", records) == ["COMMIT", "ABORT"]
    assert "isvalid: false" not in records
    assert "| offset: 201 " in records

    aborted = folder / "00000000000000000000.txnindex"
    snapshot = folder / "00000000000000000202.snapshot"
    transactions = dump(java, [aborted, snapshot])
    assert "firstOffset: 101 lastOffset: 201" in transactions
    assert "lastSequence: " in transactions

    indexes = [path for kind in ("index", "timeindex") for path in files.rglob(f"*.{kind}")]
    indexes = [each for each in indexes if each.stat().st_size > 0]
    dump(java, indexes)
    told = dump(java, indexes, "--index-sanity-check")
    assert told.count("passed sanity check") == len(indexes) > 0


def test_kafka_reads_our_own_topics(java: Java, files: Path) -> None:
    offsets = dump(java, list(files.glob("__consumer_offsets-*/*.log")), "--offsets-decoder")
    assert re.search(r'"group":"reading","topic":"dumped","partition":0', offsets)
    assert '"protocolType":"consumer"' in offsets
    logs = list(files.glob("__transaction_state-*/*.log"))
    transactions = dump(java, logs, "--transaction-log-decoder")
    assert '"transactionalId":"dumping"' in transactions
