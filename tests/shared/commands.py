"""Runs the installed command's code in this process, as a user types it."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
from click.testing import CliRunner

from millstream.cli.main import millstream

__all__ = ["Ran", "run"]


class Ran(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def lines(self) -> list[str]:
        return self.out.decode().splitlines()

    @property
    def json(self) -> list[Any]:
        return [orjson.loads(line) for line in self.out.splitlines()]


def run(log: str, *arguments: str, stdin: bytes = b"", code: int = 0) -> Ran:
    """Run `millstream ARGUMENTS` on the log in this folder, or of this URL, and expect this exit
    code."""
    result = CliRunner(env={"MILLSTREAM_LOG": log if "://" in log else f"file:{log}"}).invoke(
        millstream, list(arguments), input=stdin
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    ran = Ran(result.exit_code, result.stdout_bytes, result.stderr)
    assert ran.code == code, f"{arguments} ended with {ran.code}:\n{ran.out!r}\n{ran.err}"
    return ran
