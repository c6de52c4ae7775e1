"""kcat writes and reads a served log."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

pytestmark = pytest.mark.slow


class Kcat:
    """Runs it on one server."""

    def __init__(self, address: str) -> None:
        self._server = ("-b", address)

    def __call__(self, *arguments: str, text: str = "") -> str:
        command = ["kcat", *self._server, *arguments]
        ran = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def consume(self, topic: str, *arguments: str) -> list[str]:
        """What there is up to the end."""
        return self("-C", "-t", topic, "-e", "-q", *arguments).splitlines()


@pytest.fixture
def kcat(address: str) -> Kcat:
    if shutil.which("kcat") is None:
        pytest.skip("kcat is not installed")
    return Kcat(address)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_produce_and_consume(kcat: Kcat, codec: str) -> None:
    topic = f"kcat-{codec}"
    lines = "".join(f"key{number}:value {number}\n" for number in range(50))
    batched = ("-X", "linger.ms=200", "-H", "codec=" + codec)
    kcat("-P", "-t", topic, "-K", ":", "-z", codec, "-p", "1", *batched, text=lines)
    shown = kcat.consume(topic, "-p", "1", "-o", "beginning", "-f", "%p %o %k %s %h\n")
    assert shown == [f"1 {number} key{number} value {number} codec={codec}" for number in range(50)]
    assert kcat.consume(topic, "-p", "1", "-o", "-2", "-f", "%o\n") == ["48", "49"]
    assert kcat.consume(topic, "-p", "1", "-o", "10", "-c", "1", "-f", "%s\n") == ["value 10"]


def test_compressed_batches_arrive_compressed(kcat: Kcat) -> None:
    """Old librdkafka, which Debian's kcat has, leaves it out where it thinks that the server does
    not know the codec; it says so with -d msg only."""
    command = ["-P", "-t", "kcat-squeezed", "-p", "0", "-z", "lz4", "-d", "msg"]
    ran = subprocess.run(
        ["kcat", *kcat._server, *command],
        input="x" * 1000 + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0
    assert "does not support compression" not in ran.stderr


def test_transactions(kcat: Kcat) -> None:
    topic = "kcat-committed"
    kcat("-P", "-t", topic, "-p", "0", "-X", "transactional.id=kcat", text="1\n2\n3\n")
    assert kcat.consume(topic, "-p", "0", "-o", "beginning") == ["1", "2", "3"]


def test_groups_go_on_where_they_were(kcat: Kcat) -> None:
    topic = "kcat-grouped"
    read = ("-q", "-e", "-X", "auto.offset.reset=earliest", "-G", "kcat-group", topic)
    kcat("-P", "-t", topic, text="1\n2\n")
    assert sorted(kcat(*read).splitlines()) == ["1", "2"]
    kcat("-P", "-t", topic, text="3\n")
    assert kcat(*read).splitlines() == ["3"]


def test_metadata_and_offsets(kcat: Kcat) -> None:
    kcat("-P", "-t", "kcat-listed", "-p", "1", text="1\n2\n")
    found = json.loads(kcat("-L", "-J", "-t", "kcat-listed"))
    topic = found["topics"][0]
    assert (topic["topic"], len(topic["partitions"])) == ("kcat-listed", 2)
    assert [each["leader"] for each in topic["partitions"]] == [0, 0]
    # kcat: -1 is the end, -2 the beginning
    assert "kcat-listed [1] offset 2" in kcat("-Q", "-t", "kcat-listed:1:-1")
    assert "kcat-listed [1] offset 0" in kcat("-Q", "-t", "kcat-listed:1:-2")
