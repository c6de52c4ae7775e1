"""`millstream consume`: records to standard output."""

from __future__ import annotations

from collections.abc import Sequence

import click

from .command import check_is_there, log_option, reported_errors, run_until_stopped
from .when import parse_start

__all__ = ["consume"]


@click.command()
@click.argument("topics", metavar="TOPIC...", nargs=-1, required=True)
@click.option(
    "--from",
    "start",
    metavar="WHERE",
    help="beginning, end, an offset, or a time: ISO 8601, @MILLISECONDS or 2h ago. Default: the "
    "beginning; with --group where the group stands.",
)
@click.option(
    "--partition",
    "partitions",
    type=click.IntRange(0),
    multiple=True,
    help="Only this. Repeatable.",
)
@click.option("--until-end", is_flag=True, help="Exit when everything there is was printed.")
@click.option("--count", type=click.IntRange(1), help="Exit after so many records.")
@click.option("--group", help="Go on where this group stands, and commit what was printed.")
@click.option(
    "--isolation",
    type=click.Choice(["read_committed", "read_uncommitted"]),
    default="read_committed",
    show_default=True,
)
@click.option(
    "--format",
    "form",
    default="value",
    show_default=True,
    metavar="FORMAT",
    help="value, key-value, json, or a template as kcat's -f: %t topic, %p partition, %o offset, "
    r"%k key, %s value, %T timestamp, %h headers, %K %S sizes, %% a percent sign, \n \t.",
)
@click.option(
    "--key-separator",
    metavar="TEXT",
    default=r"\t",
    show_default=True,
    help="Between key and value in key-value.",
)
@click.option(
    "--null-marker",
    metavar="TEXT",
    default="null",
    show_default=True,
    help="What stands for null, except in json.",
)
@click.option("--base64", is_flag=True, help="With json: keys and values always as base64.")
@log_option
def consume(
    topics: Sequence[str],
    start: str | None,
    partitions: Sequence[int],
    until_end: bool,
    count: int | None,
    group: str | None,
    isolation: str,
    form: str,
    key_separator: str,
    null_marker: str,
    base64: bool,
    log_url: str,
) -> None:
    r"""Print the records of TOPIC, one a line, and wait for more until Ctrl-C.

    Records of one partition come in order; those of several as they are read.

    \b
    millstream consume orders --until-end
    millstream consume orders --from '2h ago' --format json
    millstream consume orders --format '%t-%p@%o %k=%s\n' --count 10
    """
    from .printing import Request, print_records
    from .record_formats import FormatError, formatter

    where = None if start is None else parse_start(start)
    if group == "":  # Kafka's coordinator refuses it, too
        raise click.UsageError("--group is empty: name a group, or leave it out.")
    if group is not None and partitions:
        raise click.UsageError("--partition cannot go with --group: the group shares partitions.")
    if group is not None and where is not None and where.kind in {"offset", "time"}:
        raise click.UsageError(
            f"--from {start} cannot go with --group. Move the group first: "
            f"millstream groups reset {group} --to {start} --topic {topics[0]} --execute"
        )
    try:
        form_of = formatter(
            form, key_separator=key_separator, null_marker=null_marker, always_base64=base64
        )
    except FormatError as error:
        raise click.UsageError(f"--format {form!r}: {error}") from None
    request = Request(
        log_url,
        tuple(dict.fromkeys(topics)),
        tuple(dict.fromkeys(partitions)),
        where,
        group,
        "read_uncommitted" if isolation == "read_uncommitted" else "read_committed",
        until_end,
        count,
        form_of,
    )
    with reported_errors():
        check_is_there(log_url)
        run_until_stopped(lambda stop: print_records(request, stop))
