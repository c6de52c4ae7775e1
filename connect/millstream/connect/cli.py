"""`millstream connect CONFIG...`: a worker of its own, for connectors that are not part of an
app.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING

import click

from millstream.log import MillstreamError

if TYPE_CHECKING:
    from millstream.log import Log

    from .api import Connector
    from .config import ConnectorConfig
    from .status import ConnectorStatus
    from .worker import Worker

__all__ = ["connect"]

_PROGRESS_INTERVAL_S = 1.0


@click.command()
@click.argument("config", nargs=-1, required=True, type=click.Path())
@click.option(
    "--log",
    "log_url",
    envvar="MILLSTREAM_LOG",
    default="file:./millstream-data",
    show_default=True,
    help="The log, as URL.",
)
@click.option(
    "--until-end",
    is_flag=True,
    help="Read the sources to their end, deliver what there is, and exit.",
)
@click.option("--metrics", metavar="HOST:PORT", help="Serve metrics for Prometheus there.")
@click.option("--json", "as_json", is_flag=True, help="Print the final status as JSON.")
def connect(
    config: Sequence[str], log_url: str, until_end: bool, metrics: str | None, as_json: bool
) -> None:
    """Run the connectors that the TOML (or JSON) files CONFIG describe.

    \b
    A file names one or several connectors:
        [[connector]]
        name = "flights-file"
        connector = "files"            # or sql, or package.module:Class, or path/file.py:function
        path = "flights.csv.gz"
        topic = "flights"
        format = "csv"

    Ends with 0 when done (also by SIGTERM), 1 when a connector failed, 2 when settings are wrong.
    """
    from .config_files import connectors_in
    from .errors import ConnectConfigError

    try:
        connectors = connectors_in(config)
    except ConnectConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    try:
        asyncio.run(
            _run(connectors, log_url, until_end=until_end, metrics=metrics, as_json=as_json)
        )
    except MillstreamError as error:
        click.echo(f"failed: {error}", err=True)
        sys.exit(1)


async def _run(
    connectors: Sequence[Connector[ConnectorConfig]],
    log_url: str,
    *,
    until_end: bool,
    metrics: str | None,
    as_json: bool,
) -> None:
    from millstream.log import open_log

    from .worker import Worker

    started = time.monotonic()
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(open_log(log_url))
        worker = Worker(log, connectors, until_end=until_end)
        if metrics is not None:
            address = await stack.enter_async_context(_served(log, worker, metrics))
            click.echo(f"metrics: http://{address}/metrics", err=True)
        job = asyncio.create_task(worker.run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, job.cancel)
        progress = asyncio.create_task(_show_progress(worker, started))
        try:
            await job
        except asyncio.CancelledError:
            click.echo("stopped; a restart goes on where this ended", err=True)
        finally:
            progress.cancel()
            await asyncio.gather(progress, return_exceptions=True)
            _show_end(worker.status(), time.monotonic() - started, as_json=as_json)


def _served(log: Log, worker: Worker, address: str) -> AbstractAsyncContextManager[str]:
    from millstream.log.server.metrics_http import serve_metrics

    from .metrics import connect_metrics

    return serve_metrics([log.metrics, lambda: connect_metrics(worker.status())], address)


async def _show_progress(worker: Worker, started: float) -> None:
    """A line for each connector whose counts have changed, about once a second."""
    shown: dict[str, int] = {}
    while True:
        await asyncio.sleep(_PROGRESS_INTERVAL_S)
        for status in worker.status():
            if status.records != shown.get(status.name, 0):
                shown[status.name] = status.records
                click.echo(_line(status, time.monotonic() - started), err=True)


def _line(status: ConnectorStatus, seconds: float) -> str:
    count = status.dead_letters
    letters = f", {count:,} dead letter{'s' if count > 1 else ''}" if count else ""
    rate = status.records / seconds if seconds > 0 else 0.0
    return (
        f"{status.name}: {status.state.lower()}, {status.records:,} records "
        f"({rate:,.0f}/s){letters}"
    )


def _show_end(statuses: Sequence[ConnectorStatus], seconds: float, *, as_json: bool) -> None:
    if not as_json:
        for status in statuses:
            click.echo(_line(status, seconds))
        return
    import orjson

    answer = {
        "seconds": round(seconds, 3),
        "connectors": [status.as_dict() for status in statuses],
    }
    click.echo(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
