"""The Java client with group.protocol=consumer (KIP-848), and Kafka's tools on such groups."""

from __future__ import annotations

import subprocess

import pytest

from clients.test_java_tools import GROUPS, READ, TOPICS, Tools
from shared.kafka_jars import Java
from shared.served_log import until

pytestmark = pytest.mark.slow

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
