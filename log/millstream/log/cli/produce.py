"""`millstream produce`: lines of standard input become records."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from .command import (
    fail,
    json_option,
    log_option,
    pairs,
    print_json,
    reported_errors,
    run_until_stopped,
)
from .when import parse_time

if TYPE_CHECKING:
    from .sending import Request, Sent

__all__ = ["produce"]


@click.command()
@click.argument("topic")
@click.option(
    "--format",
    "form",
    type=click.Choice(["lines", "json"]),
    default="lines",
    show_default=True,
    help="lines: each line is a value. json: each is an object with key, value, headers, "
    "timestamp, partition, as `millstream consume --format json` writes them.",
)
@click.option(
    "--key-separator",
    metavar="TEXT",
    help=r"Each line is KEY, this text and VALUE; \t is a tab. Default: no keys.",
)
@click.option("--header", "headers", metavar="NAME=VALUE", multiple=True, help="For every record.")
@click.option(
    "--parse-headers",
    is_flag=True,
    help="Each line begins with name:value,name:value and a tab.",
)
@click.option("--null-marker", metavar="TEXT", help="A key or value that is this text is null.")
@click.option("--partition", type=click.IntRange(0), help="Default: by key, as Kafka does.")
@click.option(
    "--timestamp", metavar="TIME", help="ISO 8601, @MILLISECONDS or 2h ago; default: now."
)
@click.option(
    "--compression",
    type=click.Choice(["none", "gzip", "snappy", "lz4", "zstd"]),
    default="none",
    show_default=True,
)
@click.option(
    "--transactional-id",
    metavar="ID",
    help="Write all lines in one transaction: all of them are there in the end, or none.",
)
@log_option
@json_option
def produce(
    topic: str,
    form: str,
    key_separator: str | None,
    headers: Sequence[str],
    parse_headers: bool,
    null_marker: str | None,
    partition: int | None,
    timestamp: str | None,
    compression: str,
    transactional_id: str | None,
    log_url: str,
    as_json: bool,
) -> None:
    r"""Write the lines of standard input to TOPIC, which is created if it is not there.

    Ends at the end of the input, or at Ctrl-C with what was read until then; says how many records
    were acknowledged. A line that is no record ends it with exit code 1: the lines before it are
    written, nothing of it and of the lines behind it is.

    \b
    echo hello | millstream produce greetings
    printf 'k1\tv1\nk2\tv2\n' | millstream produce orders --key-separator '\t'
    millstream consume orders --until-end --format json | millstream produce copy --format json
    """
    from .record_formats import argument_bytes
    from .record_lines import JsonLines, LineReader, PlainLines
    from .sending import Request, send_lines

    plain = {
        "--key-separator": key_separator is not None,
        "--parse-headers": parse_headers,
        "--null-marker": null_marker is not None,
    }
    reader: LineReader
    if form == "json":
        wrong = [option for option, given in plain.items() if given]
        if wrong:
            raise click.UsageError(f"{wrong[0]} is for --format lines.")
        reader = JsonLines()
    else:
        reader = PlainLines(
            key_separator=_separator(key_separator),
            has_headers=parse_headers,
            null_marker=None if null_marker is None else argument_bytes(null_marker),
        )
    request = Request(
        log_url,
        topic,
        reader,
        tuple((name, argument_bytes(value)) for name, value in _headers(headers)),
        partition,
        _timestamp(timestamp),
        compression,
        transactional_id,
    )
    started = time.monotonic()
    with reported_errors():
        sent = run_until_stopped(lambda stop: send_lines(request, stop))
    _report(request, sent, time.monotonic() - started, as_json)


def _separator(text: str | None) -> bytes | None:
    if text is None:
        return None
    if not text:
        raise click.UsageError("--key-separator is empty.")
    from .record_formats import unescaped

    return unescaped(text)


def _headers(texts: Sequence[str]) -> list[tuple[str, str]]:
    found = pairs("--header", texts)
    for name, _ in found:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise click.UsageError(f"--header {name!r}: the name of a header is UTF-8.") from None
    return found


def _timestamp(text: str | None) -> int | None:
    if text is None:
        return None
    timestamp = parse_time(text)
    if timestamp is None or timestamp < 0:
        raise click.UsageError(
            f"--timestamp {text!r}: write ISO 8601, @1714564800000 (milliseconds) or 2h ago; "
            "1970 or later."
        )
    return timestamp


def _report(request: Request, sent: Sent, seconds: float, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "topic": request.topic,
                "lines": sent.lines,
                "acknowledged": sent.acknowledged,
                "seconds": round(seconds, 3),
                "stopped": sent.stopped,
            }
        )
    else:
        rate = sent.acknowledged / seconds if seconds else 0.0
        click.echo(
            f"{request.topic}: {sent.acknowledged:,} records acknowledged in {seconds:.1f} s "
            f"({rate:,.0f} records/s)",
            err=True,
        )
    if sent.problem:
        fail(sent.problem)
    if sent.stopped and request.transactional_id is not None:
        fail("stopped before the end of the input: the transaction was aborted, nothing is written")
