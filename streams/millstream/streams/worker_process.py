"""One worker of several, as `workers.py` starts it: without the app's sources and sinks.

It stops, having committed, on SIGTERM or Ctrl-C; and when whoever started it is gone, which it sees
by the end of its standard input.
"""

from __future__ import annotations

import gc

gc.set_threshold(200_000, 50, 50)  # as in millstream.cli.main

import asyncio  # noqa: E402 - after the threshold, for the imports' sake
import os  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import click  # noqa: E402

from .cli import app_argument, load, print_result, reported_errors, run_until_stopped  # noqa: E402
from .run import RunResult, run_app  # noqa: E402
from .workers import WORKER_LOG  # noqa: E402


@click.command()
@app_argument
@click.option("--log", "log_url", required=True, envvar=WORKER_LOG)
@click.option("--state-dir", type=click.Path(path_type=Path))
def worker(reference: str, log_url: str, state_dir: Path | None) -> None:
    """Work for the app APP until told to stop."""
    with reported_errors():
        app = load(reference, log_url)
        app.listen = None
        app.sources.clear()
        app.sinks.clear()
        app.state_dir = state_dir or app.state_dir
        gc.freeze()

        async def main(stop: asyncio.Event) -> RunResult:
            asyncio.get_running_loop().add_reader(sys.stdin, _look_for_the_end, stop)
            return await run_app(app, stop=stop)

        print_result(app, run_until_stopped(main), as_json=False)


def _look_for_the_end(stop: asyncio.Event) -> None:
    if not os.read(sys.stdin.fileno(), 1024):
        asyncio.get_running_loop().remove_reader(sys.stdin)
        stop.set()


if __name__ == "__main__":
    worker()
