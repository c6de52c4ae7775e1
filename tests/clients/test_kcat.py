"""kcat writes and reads a served log."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

pytestmark = pytest.mark.slow


class Kcat:
    """Runs it on one server."""

    def __init__(self, address: str) -> None:
        self._server = ("-b", address)

    def __call__(self, *arguments: str, text: str = "") -> str:
        ran = self.ended(*arguments, text=text)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def ended(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """How it ended, well or not."""
        command = ["kcat", *self._server, *arguments]
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """With pipes to all it reads and writes."""
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with subprocess.Popen(["kcat", *self._server, *arguments], text=True, **pipes) as process:
            try:
                yield process
            finally:
                process.kill()

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


def told(stream: IO[str] | None, pattern: str) -> re.Match[str]:
    """The next line that says so."""
    assert stream is not None
    for line in stream:
        if found := re.search(pattern, line):
            return found
    raise AssertionError(f"it ended before {pattern}")


def test_reading_from_the_end_and_from_a_time(kcat: Kcat) -> None:
    where = ("-t", "kcat-placed", "-p", "0")
    kcat("-P", *where, text="1\n2\n3\n")
    times = kcat.consume("kcat-placed", "-p", "0", "-o", "beginning", "-f", "%T\n")
    kcat("-P", *where, text="4\n5\n")
    later = int(times[-1]) + 1
    assert kcat.consume("kcat-placed", "-p", "0", "-o", f"s@{later}") == ["4", "5"]
    assert kcat.consume("kcat-placed", "-p", "0", "-o", "s@0", "-o", f"e@{later}") == [*"123"]
    with kcat.running("-C", *where, "-o", "end", "-c", "1") as reader:
        told(reader.stderr, r"Reached end of topic kcat-placed \[0\] at offset 5")
        kcat("-P", *where, text="6\n")
        assert told(reader.stdout, ".+")[0] == "6"


def test_compressed_batches_arrive_compressed(kcat: Kcat) -> None:
    """Old librdkafka, which Debian's kcat has, leaves it out where it thinks that the server does
    not know the codec; it says so with -d msg only."""
    command = ["-P", "-t", "kcat-squeezed", "-p", "0", "-z", "lz4", "-d", "msg"]
    ran = kcat.ended(*command, text="x" * 1000 + "\n")
    assert ran.returncode == 0
    assert "does not support compression" not in ran.stderr


def test_transactions(kcat: Kcat) -> None:
    topic = "kcat-committed"
    kcat("-P", "-t", topic, "-p", "0", "-X", "transactional.id=kcat", text="1\n2\n3\n")
    assert kcat.consume(topic, "-p", "0", "-o", "beginning") == ["1", "2", "3"]


def test_a_transaction_that_is_broken_off(kcat: Kcat) -> None:
    """At Ctrl-C it aborts; what it sent is there, and nobody reads it."""
    where = ("-t", "kcat-aborted", "-p", "0")
    uncommitted = ("-X", "isolation.level=read_uncommitted", "-o", "beginning")
    kcat("-L", "-t", "kcat-aborted")  # creates it
    with kcat.running("-P", *where, "-X", "transactional.id=kcat-aborted") as writer:
        assert writer.stdin is not None
        writer.stdin.write(f"{'aborted':31}\n" * 64)  # two of the blocks that it reads
        writer.stdin.flush()
        assert kcat("-C", *where, *uncommitted, "-c", "1").startswith("aborted")
        writer.send_signal(signal.SIGINT)  # which it sees when its input goes on
        writer.stdin.close()
        told(writer.stderr, "Aborting transaction")
        assert writer.wait(30) == 0
    kcat("-P", *where, text="kept\n")
    assert kcat.consume("kcat-aborted", "-p", "0", "-o", "beginning") == ["kept"]
    assert len(kcat.consume("kcat-aborted", "-p", "0", *uncommitted)) > 1


def test_a_producer_that_another_one_fences(kcat: Kcat) -> None:
    where = ("-t", "kcat-fenced", "-p", "0", "-X", "transactional.id=kcat-fenced")
    kcat("-L", "-t", "kcat-fenced")
    with kcat.running("-P", *where) as zombie:
        assert zombie.stdin is not None
        zombie.stdin.write(f"{'of a zombie':31}\n" * 64)
        zombie.stdin.flush()
        told(zombie.stderr, "Using transactional producer")
        uncommitted = ("-X", "isolation.level=read_uncommitted", "-o", "beginning", "-c", "1")
        kcat("-C", "-t", "kcat-fenced", "-p", "0", *uncommitted)
        kcat("-P", *where, text="of its successor\n")
        zombie.stdin.close()
        told(zombie.stderr, "commit_transaction.*fenced")
        assert zombie.wait(30) == 1
    found = kcat.consume("kcat-fenced", "-p", "0", "-o", "beginning")
    assert found == ["of its successor"]


def test_members_share_what_there_is(kcat: Kcat) -> None:
    """A second one takes its share, and gives it back when it goes."""
    kcat("-P", "-t", "kcat-shared", "-p", "0", text="1\n")
    member = ("-u", "-X", "auto.offset.reset=earliest", "-X", "heartbeat.interval.ms=200",
              "-G", "kcat-sharing", "kcat-shared")  # fmt: skip
    both = r"assigned: kcat-shared \[0\], kcat-shared \[1\]"
    with kcat.running(*member) as first:
        told(first.stderr, both)
        assert told(first.stdout, ".+")[0] == "1"
        with kcat.running(*member) as second:
            own = [told(each.stderr, r"assigned: kcat-shared \[(\d)\]$")[1]
                   for each in (first, second)]  # fmt: skip
            assert sorted(own) == ["0", "1"]
            second.send_signal(signal.SIGINT)
            told(first.stderr, both)
        first.send_signal(signal.SIGINT)  # killed, it would be missed by the server long after
        assert first.wait(30) == 0


def test_errors(kcat: Kcat) -> None:
    ran = kcat.ended("-P", "-t", "a/b", text="x\n")
    assert (ran.returncode, "Invalid topic" in ran.stderr) == (1, True), ran.stderr
    large = ("-X", "message.max.bytes=3000000")
    ran = kcat.ended("-P", "-t", "kcat-large", "-p", "0", *large, text="x" * 2_000_000 + "\n")
    assert "Message size too large" in ran.stderr
    ran = kcat.ended(
        *("-C", "-t", "kcat-large", "-p", "0", "-o", "9"), "-X", "topic.auto.offset.reset=error"
    )
    assert (ran.returncode, "out of range" in ran.stderr) == (1, True), ran.stderr


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
