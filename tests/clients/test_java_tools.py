"""Kafka's own command-line tools look after a served log."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from shared.kafka_jars import Java
from shared.served_log import until

pytestmark = pytest.mark.slow

TOOLS = "org.apache.kafka.tools"
TOPICS = f"{TOOLS}.TopicCommand"
CONFIGS = "kafka.admin.ConfigCommand"
GROUPS = f"{TOOLS}.consumer.group.ConsumerGroupCommand"
WRITE = f"{TOOLS}.ConsoleProducer"
READ = f"{TOOLS}.consumer.ConsoleConsumer"
TRANSACTIONS = f"{TOOLS}.TransactionsCommand"


class Tools:
    """Runs them on one server."""

    def __init__(self, java: Java, address: str) -> None:
        self.java = java
        self.server = ("--bootstrap-server", address)

    def __call__(self, tool: str, *arguments: str, text: str = "", ok: bool = True) -> str:
        """`transactions` wants its command last."""
        if tool == TRANSACTIONS:
            return self.java.run(tool, *self.server, *arguments, text=text, ok=ok)
        return self.java.run(tool, *arguments, *self.server, text=text, ok=ok)

    def rows(self, tool: str, *arguments: str) -> list[list[str]]:
        """What it prints, without the line of headings."""
        lines = self(tool, *arguments).strip().splitlines()
        return [line.split() for line in lines if line.strip()][1:]

    def write(self, topic: str, lines: str, *more: str) -> None:
        self(WRITE, "--topic", topic, *more, text=lines)

    def read(self, topic: str, count: int, *more: str) -> list[str]:
        limits = ("--max-messages", str(count), "--timeout-ms", "20000")
        return self(READ, "--topic", topic, *limits, *more).splitlines()


@pytest.fixture
def tools(java: Java, address: str) -> Tools:
    return Tools(java, address)


def test_topics(tools: Tools) -> None:
    create = ("--create", "--topic", "jtopic", "--partitions", "3")
    tools(TOPICS, *create, "--config", "retention.ms=600000", "--replication-factor", "1")
    assert "TopicExistsException" in tools(TOPICS, *create, ok=False)
    tools(TOPICS, *create, "--if-not-exists")
    assert "InvalidReplicationFactorException" in tools(
        TOPICS, "--create", "--topic", "jcopies", "--replication-factor", "3", ok=False
    )
    tools(TOPICS, "--alter", "--topic", "jtopic", "--partitions", "5")
    described = tools(TOPICS, "--describe", "--topic", "jtopic").splitlines()
    assert "PartitionCount: 5" in described[0]
    assert "Configs: retention.ms=600000" in described[0]
    assert [re.findall(r"(?:Partition|Leader|Isr): (\d)", line) for line in described[1:]] == [
        [str(partition), "0", "0"] for partition in range(5)
    ]
    assert "jtopic" in tools(TOPICS, "--list").splitlines()
    tools(TOPICS, "--delete", "--topic", "jtopic")
    assert "jtopic" not in tools(TOPICS, "--list").splitlines()
    assert "does not exist" in tools(TOPICS, "--describe", "--topic", "jtopic", ok=False)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_console_producer_and_consumer(tools: Tools, codec: str) -> None:
    topic = f"jconsole-{codec}"
    tools(TOPICS, "--create", "--topic", topic, "--partitions", "1")
    keyed = ("--reader-property", "parse.key=true", "--reader-property", "key.separator=:")
    tools.write(topic, "a:1\nb:2\nc:3\n", *keyed, "--compression-codec", codec)
    shown = [
        word
        for each in ("print.key=true", "print.offset=true", "print.partition=true")
        for word in ("--formatter-property", each)
    ]
    assert tools.read(topic, 3, "--from-beginning", *shown) == [
        f"Partition:0\tOffset:{offset}\t{key}\t{offset + 1}" for offset, key in enumerate("abc")
    ]
    assert tools.read(topic, 1, "--partition", "0", "--offset", "2") == ["3"]


def test_console_consumer_from_the_end(tools: Tools) -> None:
    tools(TOPICS, "--create", "--topic", "jended", "--partitions", "1")
    tools.write("jended", "1\n2\n3\n")
    command = tools.java.command(
        *(READ, "--topic", "jended", "--group", "jending", "--max-messages", "1"),
        *("--command-property", "auto.commit.interval.ms=100", *tools.server),
    )
    looking = Consumer({"bootstrap.servers": tools.server[1], "group.id": "jending"})
    where = [TopicPartition("jended", 0)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        try:
            until(lambda: looking.committed(where, 10)[0].offset == 3, within_s=60)
            tools.write("jended", "new\n")
            assert reader.communicate(timeout=60)[0] == "new\n"
        finally:
            reader.kill()
            looking.close()


def test_consumer_groups(tools: Tools) -> None:
    tools(TOPICS, "--create", "--topic", "jgrouped", "--partitions", "2")
    tools.write("jgrouped", "".join(f"{number}\n" for number in range(10)))
    group = ("--group", "jgroup")
    assert len(tools.read("jgrouped", 10, "--from-beginning", *group)) == 10
    assert ["jgroup", "Empty"] in tools.rows(GROUPS, "--list", "--state")

    described = tools.rows(GROUPS, "--describe", *group)
    assert [row[:3] for row in described] == [["jgroup", "jgrouped", str(each)] for each in (0, 1)]
    assert sum(int(row[3]) for row in described) == 10
    assert [row[5] for row in described] == ["0", "0"]

    reset = ("--reset-offsets", *group, "--topic", "jgrouped")
    moved = tools.rows(GROUPS, *reset, "--shift-by", "-1", "--execute")
    assert {int(row[2]): int(row[3]) for row in moved} == {
        int(row[2]): max(int(row[3]) - 1, 0) for row in described
    }
    tools(GROUPS, *reset, "--to-earliest", "--execute")
    assert [row[3] for row in tools.rows(GROUPS, "--describe", *group)] == ["0", "0"]
    assert len(tools.read("jgrouped", 10, *group)) == 10

    deleted = tools(GROUPS, "--delete-offsets", *group, "--topic", "jgrouped:0")
    assert "Successful" in deleted
    assert [row[2] for row in tools.rows(GROUPS, "--describe", *group)] == ["1"]
    tools(GROUPS, "--delete", *group)
    assert ["jgroup"] not in tools.rows(GROUPS, "--list")
    assert "GroupIdNotFoundException" in tools(GROUPS, "--delete", *group)


def test_configs(tools: Tools) -> None:
    tools(TOPICS, "--create", "--topic", "jconfig", "--partitions", "1")
    of_topic = ("--entity-type", "topics", "--entity-name", "jconfig")
    alter = ("--alter", "--add-config", "cleanup.policy=[compact,delete],segment.ms=3600000")
    tools(CONFIGS, *of_topic, *alter)
    tools(CONFIGS, *of_topic, "--alter", "--delete-config", "segment.ms")
    own = tools.rows(CONFIGS, *of_topic, "--describe")
    assert [row[0] for row in own] == ["cleanup.policy=compact,delete"]
    every = tools.rows(CONFIGS, *of_topic, "--describe", "--all")
    assert {"segment.ms=604800000", "retention.ms=604800000"} < {row[0] for row in every}
    wrong = tools(CONFIGS, *of_topic, "--alter", "--add-config", "retention.ms=soon", ok=False)
    assert "InvalidConfigurationException" in wrong
    of_broker = ("--entity-type", "brokers", "--entity-name", "0", "--describe", "--all")
    assert "num.partitions=2" in {row[0] for row in tools.rows(CONFIGS, *of_broker)}


def test_records_are_counted_and_deleted(tools: Tools, tmp_path: Path) -> None:
    tools(TOPICS, "--create", "--topic", "jemptied", "--partitions", "1")
    tools.write("jemptied", "1\n2\n3\n")
    until = tmp_path / "until.json"
    until.write_text(
        json.dumps({"partitions": [{"topic": "jemptied", "partition": 0, "offset": 2}]})
    )
    deleted = tools(f"{TOOLS}.DeleteRecordsCommand", "--offset-json-file", str(until))
    assert "low_watermark: 2" in deleted
    offsets = f"{TOOLS}.GetOffsetShell"
    assert tools(offsets, "--topic", "jemptied", "--time", "earliest").strip() == "jemptied:0:2"
    assert tools(offsets, "--topic", "jemptied").strip() == "jemptied:0:3"


def test_the_cluster(tools: Tools) -> None:
    versions = tools(f"{TOOLS}.BrokerApiVersionsCommand")
    assert "(id: 0 rack: null isFenced: false)" in versions
    assert "Produce(0): 0 to 13 [usable: 13]" in versions
    assert tools(f"{TOOLS}.ClusterTool", "cluster-id").startswith("Cluster ID: ")
    assert "unfenced" in tools(f"{TOOLS}.ClusterTool", "list-endpoints")
    assert '"error":null' in tools(f"{TOOLS}.LogDirsCommand", "--describe")
    reassigned = tools(f"{TOOLS}.reassign.ReassignPartitionsCommand", "--list")
    assert reassigned.strip() == "No partition reassignments found."
    election = ("--election-type", "PREFERRED", "--all-topic-partitions")
    tools(f"{TOOLS}.LeaderElectionCommand", *election)


def test_transactions(tools: Tools) -> None:
    tools(TOPICS, "--create", "--topic", "jinvoices", "--partitions", "1")
    tools.java.run(
        f"{TOOLS}.ProducerPerformance",
        *("--topic", "jinvoices", "--num-records", "10", "--record-size", "10"),
        *("--throughput", "-1", "--transactional-id", "jbilling", *tools.server),
    )
    listed = tools.rows(TRANSACTIONS, "list")
    assert ["jbilling", "CompleteCommit"] in [[row[0], row[-1]] for row in listed]
    described = tools.rows(TRANSACTIONS, "describe", "--transactional-id", "jbilling")
    assert described[0][:2] == ["0", "jbilling"]
    where = ("--topic", "jinvoices", "--partition", "0")
    assert tools.rows(TRANSACTIONS, "describe-producers", *where)[0][-1] == "None"
    assert tools.rows(TRANSACTIONS, "find-hanging", "--broker-id", "0") == []
