"""The command `millstream`: the packages' own commands under one name.

A command's module is imported when that command is used: `millstream run` must not wait for the
database library of `millstream connect`.
"""

from __future__ import annotations

import gc

# Imports and records make hundreds of thousands of objects and hardly a cycle: looking for cycles
# as often as Python does by default would cost a tenth of the start.
gc.set_threshold(200_000, 50, 50)

import importlib  # noqa: E402
import io  # noqa: E402
import sys  # noqa: E402

import click  # noqa: E402

COMMANDS = {
    "demo": ("millstream.examples.flights.demo:demo", "The whole system on real flights."),
    "run": ("millstream.streams.cli:run", "Run a stream app."),
    "topology": ("millstream.streams.cli:topology", "Show what an app is made of."),
    "replay": ("millstream.streams.cli:replay", "Run an app over history, beside the original."),
    "reset": ("millstream.streams.cli:reset", "Make an app start again from the beginning."),
    "connect": ("millstream.connect.cli:connect", "Run connectors from TOML files."),
    "topics": ("millstream.log.cli.topics:topics", "List, create, describe, alter, delete topics."),
    "produce": ("millstream.log.cli.produce:produce", "Write lines of standard input to a topic."),
    "consume": ("millstream.log.cli.consume:consume", "Print the records of topics."),
    "groups": ("millstream.log.cli.groups:groups", "List, describe, reset, delete groups."),
    "transactions": (
        "millstream.log.cli.transactions:transactions",
        "List, describe and terminate transactions.",
    ),
    "serve": ("millstream.log.cli.serve:serve", "Serve a log to Kafka clients on the network."),
    "users": ("millstream.log.cli.users:users", "List, add, delete users of a served log."),
    "log": ("millstream.log.cli.log_files:log", "Look into the files of a closed log, check them."),
}
"""Name -> (where it is, what it does). The text stands here so that `--help` imports nothing."""


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module_name, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module_name), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="millstream")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    envvar="MILLSTREAM_LOG_FORMAT",
    help="Write a line for every event to standard error, in this form. Default: warnings only, or "
    "$MILLSTREAM_LOG_FORMAT.",
)
def millstream(log_format: str | None) -> None:
    """Stream processing in Python on its own Kafka-format log: no server, exactly once.

    Begin with `millstream demo`.
    """
    if log_format is not None:
        from millstream.log.log_format import write_log_lines

        write_log_lines(log_format)


def main() -> None:
    """The console script. Exit codes: 0 done, 1 failed, 2 wrong usage."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As standard error does it: the name of a file need not be text.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.exit(millstream())
    except OSError as error:  # commands report their own: here the result could not be written
        click.echo(f"error: {error}. Check where the output goes.", err=True)
        sys.exit(1)
