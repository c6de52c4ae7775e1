"""`millstream log`: look into the files of a closed log, without opening it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from .command import LogGroup, fail, holds_log, json_option, print_json, reported_errors

if TYPE_CHECKING:
    from millstream.log.storage.files import Files
    from millstream.log.storage.verify_batches import OnBytes

__all__ = ["log"]

PROGRESS_INTERVAL_S = 5.0


@click.group(cls=LogGroup)
def log() -> None:
    """Look into the files of a log that no process has open. Nothing is ever written.

    \b
    millstream log verify ./millstream-data
    millstream log dump ./millstream-data/orders-0
    """


@log.command()
@click.argument("folder", metavar="DIR")
@click.option("--records", is_flag=True, help="Also decode every record: slower.")
@json_option
def verify(folder: str, records: bool, as_json: bool) -> None:
    """Check every byte of the log in DIR: checksums, offsets, sequences, indexes, snapshots,
    checkpoints, names.

    Prints a line for each finding: the file, where in it, what, and what to do. An "error" is
    damage; a "notice" is none: what a stop left behind and the next opening mends.

    Ends with 0 when there is no error, 1 when there is one, 2 when DIR holds no log.
    """
    from millstream.log.storage.files import ReadOnlyFiles
    from millstream.log.storage.verify import log_size_bytes, verify_log

    files = ReadOnlyFiles()
    folder = folder.rstrip("/") or folder[:1]
    with reported_errors():
        if not files.exists(folder) or not files.is_dir(folder):
            fail(f"There is no directory {folder!r}. Give the one that --log file:DIR names.", 2)
        if not holds_log(files, folder):
            fail(
                f"{folder} holds no log: neither meta.properties nor topics.json is in it. Give "
                "the directory that --log file:DIR names.",
                2,
            )
    counts = {"error": 0, "notice": 0}
    started = time.monotonic()
    with reported_errors(), _locked(files, folder):
        size_bytes = log_size_bytes(files, folder)
        with _progress(size_bytes) as on_bytes:
            for finding in verify_log(files, folder, records=records, on_bytes=on_bytes):
                counts[finding.severity] += 1
                if as_json:
                    print_json(finding._asdict())
                else:
                    click.echo(str(finding))
    seconds = time.monotonic() - started
    _print_summary(counts, size_bytes, seconds, as_json)
    if counts["error"]:
        sys.exit(1)


@log.command()
@click.argument("path", metavar="DIR|FILE")
@click.option("--records", is_flag=True, help="Also keys and values.")
@click.option("--decode", is_flag=True, help="Also what the records of the log's own topics say.")
@json_option
def dump(path: str, records: bool, decode: bool, as_json: bool) -> None:
    """Show what a file of a log holds: batches of a segment, indexes, snapshots, checkpoints.

    With DIR, a partition's folder or a log, every file in it. Ends with 1 where something is
    damaged; `millstream log verify` says more about it.

    \b
    millstream log dump ./millstream-data/orders-0 --records
    millstream log dump ./millstream-data/__consumer_offsets-0 --decode
    """
    from millstream.log.storage.files import ReadOnlyFiles, parent

    from .dumping import Dumping, files_in
    from .entries_text import entry_text

    files = ReadOnlyFiles()
    path = path.rstrip("/") or path[:1]
    with reported_errors():
        if not files.exists(path):
            fail(f"There is no {path!r}. Give a file of a log, or a directory with such files.", 2)
        folder = path if files.is_dir(path) else parent(path)
        if folder.rpartition("/")[2] in {".", ".."}:  # its name says which partition it is
            path = str(click.Path(resolve_path=True)(path))
            folder = path if files.is_dir(path) else parent(path)
    with reported_errors(), _locked_above(files, folder):
        dumping = Dumping(files, records=records or decode, decode=decode)
        damaged = False
        for file in files_in(files, path):
            if not as_json:
                click.echo(f"{file}:")
            for entry in dumping.entries(file):
                damaged = damaged or "problem" in entry
                if as_json:
                    print_json({"file": file, **entry})
                else:
                    click.echo(f"  {entry_text(entry)}")
    if damaged:
        sys.exit(1)


@contextmanager
def _locked(files: Files, folder: str) -> Iterator[None]:
    """Keep owners out; refused while a process has the log open."""
    from millstream.log.storage.layout import LOCK

    lock = files.lock(f"{folder}/{LOCK}")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _locked_above(files: Files, folder: str) -> Iterator[None]:
    """A partition's folder is locked by the log it lies in."""
    from millstream.log.storage.files import parent

    with _locked(files, folder), _locked(files, parent(folder)):
        yield


@contextmanager
def _progress(size_bytes: int) -> Iterator[OnBytes]:
    """A bar on a terminal, a line every few seconds elsewhere, on stderr."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TransferSpeedColumn,
        )

        with Progress(
            TextColumn("verify"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=Console(stderr=True),
            transient=True,
        ) as bars:
            bar = bars.add_task("verify", total=size_bytes)
            yield lambda count: bars.update(bar, advance=count)
        return
    from .tables import size_text

    done, shown_s = 0, time.monotonic()

    def on_bytes(count: int) -> None:
        nonlocal done, shown_s
        done += count
        if time.monotonic() - shown_s >= PROGRESS_INTERVAL_S:
            shown_s = time.monotonic()
            click.echo(f"verify: {size_text(done)} of {size_text(size_bytes)}", err=True)

    yield on_bytes


def _print_summary(counts: dict[str, int], size_bytes: int, seconds: float, as_json: bool) -> None:
    from .tables import size_text

    if as_json:
        summary: dict[str, Any] = {
            "errors": counts["error"],
            "notices": counts["notice"],
            "size_bytes": size_bytes,
            "seconds": round(seconds, 3),
        }
        print_json(summary)
        return
    verdict = "sound" if not counts["error"] else _many(counts["error"], "error")
    rate = size_text(round(size_bytes / seconds)) if seconds else "-"
    click.echo(
        f"{verdict}, {_many(counts['notice'], 'notice')}: {size_text(size_bytes)} of records in "
        f"{seconds:.1f} s ({rate}/s)"
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
