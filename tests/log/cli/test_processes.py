"""Commands as processes: signals, pipes that break, a log that is in use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pytest

from shared.commands import run

MILLSTREAM = str(Path(sys.executable).parent / "millstream")
WAIT_S = 60


@pytest.fixture
def log(tmp_path: Path) -> str:
    folder = str(tmp_path / "log")
    run(folder, "produce", "t", stdin=b"".join(b"%d\n" % n for n in range(100_000)))
    return folder


@pytest.fixture
def small(tmp_path: Path) -> str:
    folder = str(tmp_path / "log")
    run(folder, "produce", "t", stdin=b"1\n2\n")
    return folder


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(log: str) -> Iterator[Start]:
    """Starts commands on the log; they are gone when the test ends."""
    with ExitStack() as stack:

        def begin(*arguments: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [MILLSTREAM, *arguments, "--log", f"file:{log}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONWARNINGS": "error"},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


@pytest.fixture
def reading(start: Start) -> subprocess.Popen[bytes]:
    """A consumer that has printed something and waits for more."""
    process = start("consume", "t", "--group", "g", "--from", "beginning")
    assert process.stdout is not None
    assert process.stdout.readline() == b"0\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_consume_ends_cleanly_by_a_signal(
    log: str, reading: subprocess.Popen[bytes], number: int
) -> None:
    assert reading.stdout is not None
    assert reading.stderr is not None
    reading.send_signal(number)
    printed = 1 + reading.stdout.read().count(b"\n")
    assert (reading.wait(WAIT_S), reading.stderr.read()) == (0, b"")
    rest = run(log, "consume", "t", "--group", "g", "--until-end").lines
    assert int(rest[0]) <= printed if rest else printed == 100_000
    assert (Path(log) / ".kafka_cleanshutdown").exists()


def test_consume_ends_cleanly_when_its_reader_leaves(log: str, start: Start) -> None:
    process = start("consume", "t")
    assert process.stdout is not None
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.stderr is not None
    assert (process.wait(WAIT_S), process.stderr.read()) == (0, b"")
    assert (Path(log) / ".kafka_cleanshutdown").exists()


def test_a_log_in_use_is_named_with_its_owner(log: str, reading: subprocess.Popen[bytes]) -> None:
    for arguments in (["topics", "list"], ["log", "verify", log], ["log", "dump", log]):
        ran = run(log, *arguments, code=1)
        assert f"is in use by process {reading.pid}" in ran.err
    assert "is in use" in run(log, "log", "dump", f"{log}/t-0", code=1).err
    inside = ended([MILLSTREAM, "log", "dump", "."], f"{log}/t-0", stdout=subprocess.PIPE)
    assert b"is in use" in inside.stderr


def test_what_is_typed_is_written_at_once_and_ctrl_c_ends_it(log: str, start: Start) -> None:
    process = start("produce", "typed", "--json")
    out, err = interrupted(process, log, b"one\ntwo\nthr", b"two")
    assert (process.returncode, err) == (0, b"")
    assert b'"acknowledged":2' in out
    assert b'"stopped":true' in out
    assert run(log, "consume", "typed", "--until-end").lines == ["one", "two"]


def test_a_transaction_that_is_interrupted_is_aborted(log: str, start: Start) -> None:
    process = start("produce", "typed", "--transactional-id", "x")
    _, err = interrupted(process, log, b"one\n", b"one")
    assert process.returncode == 1
    assert b"the transaction was aborted, nothing is written" in err
    assert run(log, "consume", "typed", "--until-end").lines == []


def test_a_dump_into_a_pipe_that_breaks(log: str) -> None:
    command = [MILLSTREAM, "log", "dump", f"{log}/t-0", "--records"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(WAIT_S) == 1


@pytest.mark.parametrize(
    "arguments",
    [["topics", "list"], ["consume", "t"], ["log", "verify", "."]],
)
def test_a_result_that_cannot_be_written(small: str, arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = ended([MILLSTREAM, *arguments], small, stdout=full)
    assert ran.returncode == 1
    assert ran.stderr.startswith(b"error: [Errno 28]")
    assert b"Check" in ran.stderr
    assert b"Traceback" not in ran.stderr


def test_standard_input_and_output_that_are_closed(small: str) -> None:
    for command, code, why in (
        ("produce t <&-", 1, "Standard input is closed"),
        ("consume t --until-end >&-", 1, "Standard output is closed"),
        ("topics delete t <&-", 2, "say so with --yes"),
        ("topics describe >&-", 0, ""),
    ):
        ran = ended(["sh", "-c", f"{MILLSTREAM} {command}"], small, stdout=None)
        assert ran.returncode == code, ran.stderr
        assert ran.stderr == b"" if not why else why.encode() in ran.stderr
        assert b"Traceback" not in ran.stderr


def test_names_that_are_no_text_are_shown(small: str) -> None:
    (Path(small) / "\udcff").touch()
    ran = ended([MILLSTREAM, "log", "verify", "."], small, stdout=subprocess.PIPE)
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert rb"notice: ./\udcff: no file of a log." in ran.stdout
    for command in (["verify", "."], ["dump", "./\udcff"], ["dump", "."]):
        ran = ended([MILLSTREAM, "log", *command, "--json"], small, stdout=subprocess.PIPE)
        assert (ran.returncode, ran.stderr) == (0, b"")


def ended(
    command: list[str], log: str, *, stdout: IO[bytes] | int | None
) -> subprocess.CompletedProcess[bytes]:
    """What became of a command in the log's folder."""
    return subprocess.run(
        command,
        cwd=log,
        env={**os.environ, "MILLSTREAM_LOG": "file:.", "PYTHONWARNINGS": "error"},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=WAIT_S,
        check=False,
    )


def interrupted(
    process: subprocess.Popen[bytes], log: str, typed: bytes, written: bytes
) -> tuple[bytes, bytes]:
    """What a producer prints that gets this input, has written this of it, and then Ctrl-C."""
    assert process.stdin is not None
    process.stdin.write(typed)
    process.stdin.flush()
    path = Path(log) / "typed-0" / f"{0:020d}.log"
    wait_until(lambda: path.exists() and written in path.read_bytes())
    process.send_signal(signal.SIGINT)
    process.wait(WAIT_S)
    return process.communicate(timeout=WAIT_S)


def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again: another process is at work."""
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
