"""`millstream demo`: file source, stream app and database sink in one process, on real flights.

Everything lies under one directory: log, state, database. Killed and started again with the same
directory, it goes on where it was and ends with the same table.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from millstream.connectors.files import FileSource
from millstream.connectors.sql import SqlSink, read_table
from millstream.log import MillstreamError, open_log
from millstream.streams import App, RunResult, run_app
from millstream.streams.cli import reported_errors
from millstream.streams.progress_display import ProgressDisplay

from .app import app

FLIGHT_COLUMNS = {
    "year": int,
    "month": int,
    "day": int,
    "dep_time": int,
    "sched_dep_time": int,
    "dep_delay": int,
    "arr_time": int,
    "sched_arr_time": int,
    "arr_delay": int,
    "carrier": str,
    "flight": int,
    "tailnum": str,
    "origin": str,
    "dest": str,
    "air_time": int,
    "distance": int,
    "hour": int,
    "minute": int,
    "time_hour": str,
}
RESULT_COLUMNS = {
    "carrier": str,
    "name": str,
    "day": str,
    "flights": int,
    "cancelled": int,
    "late": int,
    "delay_minutes": int,
}
HERE = Path(__file__).parent.resolve()
WORST_DAYS = 10
TITLES = {
    "Carrier": 7,
    "Airline": None,
    "Day": 10,
    "Flights": 7,
    "Cancelled": 9,
    "Late": 4,
    "Minutes": 7,
}
"""Column titles and how narrow a column may become: only a name may be cut."""
NEXT = """
What to try next
  the table          {look}
  the app's shape    millstream topology millstream.examples.flights.app
  a kill             remove {directory}, start the demo again, kill it, start it once more
  another rule       copy app.py, change LATE_AFTER_MINUTES, and
                     millstream replay app.py --log {log} \\
                       --from beginning --as late30 --compare"""


class DemoError(MillstreamError):
    """The demo cannot go on in this directory."""


@dataclass(frozen=True)
class Paths:
    """Where the demo reads and writes."""

    directory: Path
    flights: Path
    airlines: Path
    database: str
    log: str


def with_connectors(app: App, paths: Paths) -> App:
    """The app of app.py with its two file sources and its database sink attached, and its state in
    the demo's directory wherever the log is."""
    app.state_dir = paths.directory / "log-state"
    app.source(
        FileSource(
            "flights-file",
            path=paths.flights,
            topic="flights",
            format="csv",
            columns=FLIGHT_COLUMNS,
            null="NA",
            key="carrier",
            timestamp="time_hour",
            partitions=4,
        )
    )
    app.source(
        FileSource(
            "airlines-file",
            path=paths.airlines,
            topic="airlines",
            format="csv",
            columns={"carrier": str, "name": str},
            key="carrier",
        )
    )
    app.sink(
        SqlSink(
            "carrier-daily-table",
            topic="carrier-daily",
            url=paths.database,
            table="carrier_daily",
            columns=RESULT_COLUMNS,
            pk=["carrier", "day"],
            mode="upsert",
            auto_create=True,
        )
    )
    return app


@click.command()
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("millstream-demo"),
    show_default=True,
    help="Where log, state and database lie.",
)
@click.option(
    "--flights",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Another month's file with the same columns, .gz or plain. Default: January 2013.",
)
@click.option("--database", metavar="URL", help="Default: sqlite:///DIR/demo.db")
@click.option("--log", metavar="URL", help="Default: file:DIR/log")
def demo(directory: Path, flights: Path | None, database: str | None, log: str | None) -> None:
    """The whole system on real flights, in one process.

    Reads a month of flights, joins each with its airline, folds them per carrier and day, and
    writes the days to a database, exactly once. Kill it at any moment and start it again.
    """
    with reported_errors():
        directory.mkdir(parents=True, exist_ok=True)
        paths = Paths(
            directory,
            (flights or HERE / "flights-2013-01.csv.gz").resolve(),
            HERE / "airlines.csv",
            database or f"sqlite:///{directory / 'demo.db'}",
            log or f"file:{directory / 'log'}",
        )
        stay_with_the_input(paths)
        asyncio.run(process(paths))


def stay_with_the_input(paths: Paths) -> None:
    """Refuse a directory that another file was read into: its days are closed, the result is mixed.

    Raises:
        DemoError: it was begun with another file.
    """
    note = paths.directory / "input.txt"
    if not note.exists():
        pending = note.with_suffix(".tmp")  # a kill here must not leave half a note
        pending.write_text(str(paths.flights))
        pending.replace(note)
    elif (begun := note.read_text()) != str(paths.flights):
        raise DemoError(
            f"{paths.directory} was begun with {begun}, not {paths.flights}: go on with the same "
            "file, or choose another directory with --dir"
        )


async def process(paths: Paths) -> None:
    """Run sources, app and sink to the end of the file; print what came of it."""
    async with open_log(paths.log) as log:
        with ProgressDisplay() as progress:
            result = await run_app(
                with_connectors(app, paths), log=log, until_end=True, progress=progress
            )
    show(paths, result)


def show(paths: Paths, result: RunResult) -> None:
    """The worst days, how fast it went, and what to try next."""
    rows = read_table(
        paths.database,
        "carrier_daily",
        order_by=["-delay_minutes", "carrier", "day"],
        limit=WORST_DAYS,
    )
    table = Table(
        title="The ten worst days, by minutes of delay",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    for title, width in TITLES.items():
        is_text = title in {"Carrier", "Airline", "Day"}
        table.add_column(
            title, justify="left" if is_text else "right", no_wrap=True, min_width=width
        )
    for found in rows:
        table.add_row(*(str(found[column] or 0) for column in RESULT_COLUMNS))
    console = Console()
    console.print(table)
    rate = (
        f"{result.stats.records:,} records in {result.seconds:.1f} s, from file to database: "
        f"{result.stats.records / result.seconds:,.0f} records/s"
    )
    console.print(
        rate if result.stats.records else "Nothing was left to do here: all of it was processed.",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        NEXT.format(directory=paths.directory, log=paths.log, look=how_to_look(paths.database)),
        highlight=False,
        soft_wrap=True,
    )


def how_to_look(database: str) -> str:
    """A command for the table; a URL may hold a password and is not shown."""
    if database.startswith("sqlite:///"):
        path = database.removeprefix("sqlite:///")
        return f"sqlite3 {path} 'SELECT * FROM carrier_daily LIMIT 5'"
    return "SELECT * FROM carrier_daily, in your database"
