"""`millstream transactions`: who is in a transaction, and a way to end one that hangs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from .command import LogGroup, json_option, log_option, print_json, run
from .when import parse_span

if TYPE_CHECKING:
    from millstream.log.interface import Log
    from millstream.log.record import HangingTransaction, TransactionDescription, TransactionListing

__all__ = ["transactions"]


@click.group(cls=LogGroup)
def transactions() -> None:
    """List and describe transactional ids, find transactions that hang, and end them.

    When a log is opened, what its last process left open is aborted.
    """


@transactions.command("list")
@click.option("--state", "states", metavar="STATE", multiple=True, help="Only these. Repeatable.")
@click.option("--longer-than", metavar="SPAN", help="Only those open for longer, such as 15m.")
@log_option
@json_option
def list_transactions(
    states: Sequence[str], longer_than: str | None, log_url: str, as_json: bool
) -> None:
    """Every transactional id: its producer id and state.

    States are Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort.
    """
    from .tables import print_table

    open_ms = -1 if longer_than is None else parse_span("--longer-than", longer_than)

    async def work(log: Log) -> list[TransactionListing]:
        return await log.transactions(states=states, open_longer_than_ms=open_ms)

    found = run(log_url, work)
    if as_json:
        for each in found:
            print_json(each._asdict())
    else:
        print_table(["transactional id", "producer id", "state"], found)


@transactions.command()
@click.argument("transactional_id", metavar="ID")
@log_option
@json_option
def describe(transactional_id: str, log_url: str, as_json: bool) -> None:
    """What is known of one transactional id."""
    from .tables import span_text, time_text

    async def work(log: Log) -> TransactionDescription:
        return await log.describe_transaction(transactional_id)

    found = run(log_url, work)
    if as_json:
        print_json(found._asdict() | {"partitions": list(map(str, found.partitions))})
        return
    click.echo(f"{found.transactional_id}: {found.state}")
    click.echo(f"  producer id  {found.producer_id}, epoch {found.producer_epoch}")
    click.echo(f"  time-out     {span_text(found.timeout_ms)}")
    if found.start_ms is not None:
        open_ms = time.time_ns() // 1_000_000 - found.start_ms
        click.echo(f"  open since   {time_text(found.start_ms)} ({span_text(open_ms)})")
        click.echo(f"  partitions   {', '.join(map(str, found.partitions)) or 'none yet'}")


@transactions.command()
@click.argument("transactional_id", metavar="ID")
@log_option
@json_option
def terminate(transactional_id: str, log_url: str, as_json: bool) -> None:
    """Abort the open transaction of ID, and fence its producer, dead or alive."""

    async def work(log: Log) -> bool:
        return await log.terminate_transaction(transactional_id)

    terminated = run(log_url, work)
    if as_json:
        print_json({"transactional_id": transactional_id, "terminated": terminated})
    else:
        click.echo(f"{transactional_id}: {'aborted' if terminated else 'no transaction was open'}")


@transactions.command("find-hanging")
@click.option("--longer-than", metavar="SPAN", default="15m", show_default=True, help="Open for.")
@log_option
@json_option
def find_hanging(longer_than: str, log_url: str, as_json: bool) -> None:
    """Transactions that have been open for long: they hold back every read_committed reader."""
    from .tables import print_table, span_text

    open_ms = parse_span("--longer-than", longer_than)

    async def work(log: Log) -> list[HangingTransaction]:
        return await log.hanging_transactions(open_longer_than_ms=open_ms)

    found = run(log_url, work)
    if as_json:
        for each in found:
            print_json(each._asdict() | {"topic_partition": str(each.topic_partition)})
        return
    print_table(
        ["partition", "producer id", "epoch", "transactional id", "first offset", "open for"],
        [
            (
                str(each.topic_partition),
                each.producer_id,
                each.producer_epoch,
                each.transactional_id,
                each.start_offset,
                span_text(each.open_ms),
            )
            for each in found
        ],
    )
