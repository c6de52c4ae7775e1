"""What commands share: options, errors, exit codes, signals.

Exit codes: 0 done, 1 failed, 2 wrong usage. Results go to stdout, everything else to stderr;
`--json` makes the result JSON, one value a line.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from millstream.log.errors import ConfigError, MillstreamError

if TYPE_CHECKING:
    from millstream.log.interface import Log
    from millstream.log.storage.files import Files

__all__ = [
    "LogGroup",
    "check_is_there",
    "fail",
    "holds_log",
    "json_option",
    "log_option",
    "pairs",
    "print_json",
    "reported_errors",
    "run",
    "run_until_stopped",
]

T = TypeVar("T")

DEFAULT_LOG = "file:./millstream-data"

log_option = click.option(
    "--log",
    "log_url",
    metavar="URL",
    envvar="MILLSTREAM_LOG",
    default=DEFAULT_LOG,
    help=f"The log. Default: $MILLSTREAM_LOG, else {DEFAULT_LOG}.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


class LogGroup(click.Group):
    """A group of commands that are listed in the order they were added."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def run(url: str, work: Callable[[Log], Awaitable[T]], *, must_exist: bool = True) -> T:
    """Open the log, do the work, close it; report what Millstream raises, with exit code 1."""

    async def main() -> T:
        from millstream.log import open_log

        async with open_log(url) as log:
            return await work(log)

    with reported_errors():
        if must_exist:
            check_is_there(url)
        return asyncio.run(main())


def run_until_stopped(main: Callable[[asyncio.Event], Coroutine[Any, Any, T]]) -> T:
    """Run `main`; SIGINT or SIGTERM asks it to stop, a second one ends the process."""

    async def with_signals() -> T:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def ask(number: int) -> None:
            loop.remove_signal_handler(number)
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, ask, number)
        return await main(stop)

    return asyncio.run(with_signals())


def check_is_there(url: str) -> None:
    """Raises ConfigError for a directory that holds no log: to look for something in a log that is
    not there must not make one."""
    from millstream.log.open import folder_of
    from millstream.log.storage.files import RealFiles

    folder = folder_of(url)
    if folder is None:
        return  # memory: has nothing in it, and what is no URL open_log says
    if not holds_log(RealFiles(), folder):
        raise ConfigError(
            f"There is no log in {folder}. Say where it is with --log file:DIR or $MILLSTREAM_LOG; "
            "`millstream topics create` makes one."
        )


def holds_log(files: Files, folder: str) -> bool:
    """Whether one of the files lies there that every log has."""
    from millstream.log.storage.layout import META_PROPERTIES, TOPICS_FILE

    return any(files.exists(f"{folder}/{name}") for name in (META_PROPERTIES, TOPICS_FILE))


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn what goes wrong into one line and exit code 1."""
    try:
        yield
    except MillstreamError as error:
        fail(str(error))
    except BrokenPipeError:
        raise  # click ends quietly: whoever read our output has left
    except OSError as error:
        fail(f"{error}. Check the path and the permissions.")


def fail(message: str, exit_code: int = 1) -> NoReturn:
    """Say what went wrong, and end."""
    click.echo(f"error: {message}", err=True)
    sys.exit(exit_code)


def pairs(option: str, texts: Sequence[str]) -> list[tuple[str, str]]:
    """`NAME=VALUE` arguments of an option; a usage error when one is something else."""
    found = []
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{option} {text!r}: write NAME=VALUE.")
        found.append((name.strip(), value))
    return found


def print_json(value: Any) -> None:
    """One line of JSON on stdout."""
    import orjson

    try:
        text = orjson.dumps(value, default=str).decode()
    except orjson.JSONEncodeError:  # the name of a file need not be text
        import json

        text = json.dumps(value, default=str, separators=(",", ":"))
    click.echo(text)
