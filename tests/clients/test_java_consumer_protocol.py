"""The Java client with group.protocol=consumer (KIP-848), and Kafka's tools on such groups."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from clients.test_java_tools import GROUPS, READ, TOOLS, TOPICS, Tools
from shared.kafka_jars import Java
from shared.served_log import ServedLog, until

pytestmark = pytest.mark.slow

DUMP = f"{TOOLS}.DumpLogSegments"
PROTOCOL = ("--command-property", "group.protocol=consumer")


@pytest.fixture
def tools(java: Java, address: str) -> Tools:
    return Tools(java, address)


def test_the_console_consumer(tools: Tools) -> None:
    tools(TOPICS, "--create", "--topic", "jmodern", "--partitions", "2")
    tools.write("jmodern", "".join(f"{number}\n" for number in range(10)))
    group = ("--group", "jmodern")
    assert len(tools.read("jmodern", 10, "--from-beginning", *group, *PROTOCOL)) == 10
    assert ["jmodern", "Consumer", "Empty"] in tools.rows(GROUPS, "--list", "--type", "--state")
    assert ["jmodern", "Consumer"] in tools.rows(GROUPS, "--list", "--type", "consumer")
    assert ["jmodern", "Classic"] not in tools.rows(GROUPS, "--list", "--type", "classic")
    described = tools.rows(GROUPS, "--describe", *group)
    assert [row[1:6:2] for row in described] == [["jmodern", row[3], "0"] for row in described]

    tools.write("jmodern", "10\n11\n")
    rest = tools.read("jmodern", 2, *group, *PROTOCOL)
    assert sorted(rest) == ["10", "11"]
    reset = ("--reset-offsets", *group, "--topic", "jmodern", "--to-earliest", "--execute")
    tools(GROUPS, *reset)
    assert len(tools.read("jmodern", 12, *group)) == 12  # it is empty: any protocol may have it
    tools(GROUPS, "--delete", *group)
    assert ["jmodern"] not in tools.rows(GROUPS, "--list")


def test_a_group_with_members(tools: Tools) -> None:
    tools(TOPICS, "--create", "--topic", "jmembers", "--partitions", "2")
    tools.write("jmembers", "1\n2\n")
    arguments = ("--topic", "jmembers", "--group", "jmembers", "--from-beginning", *PROTOCOL)
    command = tools.java.command(READ, *arguments, *tools.server)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as consumer:
        try:
            assert consumer.stdout is not None
            assert {consumer.stdout.readline() for _ in range(2)} == {"1\n", "2\n"}
            group = ("--describe", "--group", "jmembers")
            (member,) = tools.rows(GROUPS, *group, "--members", "--verbose")
            assert member[2:] == [
                *("/127.0.0.1", "console-consumer", "2"),
                *("1", "jmembers:0,1", "1", "jmembers:0,1"),
            ]
            (state,) = tools.rows(GROUPS, *group, "--state", "--verbose")
            assert state[-5:] == ["uniform", "Stable", "1", "1", "1"]
            offsets = tools.rows(GROUPS, *group, "--offsets")
            assert [row[:3] for row in offsets] == [["jmembers", "jmembers", n] for n in "01"]
            assert "GroupNotEmptyException" in tools(GROUPS, "--delete", "--group", "jmembers")
        finally:
            consumer.terminate()
    until(lambda: ["jmembers", "Empty"] in tools.rows(GROUPS, "--list", "--state"))


def test_a_pattern_of_the_client_finds_nothing_yet(tools: Tools) -> None:
    """It joins with an empty list of topics, and waits in the group."""
    settings = ("--command-property", "metadata.max.age.ms=500", *PROTOCOL)
    arguments = ("--include", "jlater-.*", "--group", "jlater", "--from-beginning", *settings)
    command = tools.java.command(READ, *arguments, *tools.server)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as consumer:
        try:
            until(lambda: ["jlater", "Stable"] in tools.rows(GROUPS, "--list", "--state"))
            tools(TOPICS, "--create", "--topic", "jlater-1")
            tools.write("jlater-1", "1\n")
            assert consumer.stdout is not None
            assert consumer.stdout.readline() == "1\n"
        finally:
            consumer.terminate()


def test_kafka_reads_what_is_kept_of_a_group(java: Java, tmp_path: Path) -> None:
    with ServedLog(tmp_path / "log", {"offsets.topic.num.partitions": 1}) as served:
        tools = Tools(java, served.address)
        tools(TOPICS, "--create", "--topic", "jkept", "--partitions", "2")
        tools.write("jkept", "1\n")
        tools.read("jkept", 1, "--from-beginning", "--group", "jkept", *PROTOCOL)
        topic_id = re.findall(r"TopicId: (\S+)", tools(TOPICS, "--describe", "--topic", "jkept"))[0]
    file = tmp_path / "log" / "__consumer_offsets-0" / f"{0:020}.log"
    told = java.run(DUMP, "--files", str(file), "--offsets-decoder")
    pairs = re.findall(r"key: (\{.*?\}) payload: (\{.*\})", told)
    by_kind = {}
    for key, payload in pairs:
        by_kind.setdefault(json.loads(key)["type"], json.loads(payload).get("data"))
    assert {"3", "5", "6", "7", "8"} <= by_kind.keys()
    assert (by_kind["3"]["epoch"], by_kind["6"]["assignmentEpoch"]) == (1, 1)
    member = by_kind["5"]
    assert member["subscribedTopicNames"] == ["jkept"]
    assert member["clientId"] == "console-consumer"
    places = [{"topicId": topic_id, "partitions": [0, 1]}]
    assert by_kind["7"]["topicPartitions"] == places
    assert by_kind["8"]["assignedPartitions"] == places
    assert (by_kind["8"]["memberEpoch"], by_kind["8"]["state"]) == (1, 1)
