"""The commands of streams: run, topology, replay, reset.

Exit codes: 0 done, 1 failed, 2 wrong usage. Progress and trouble go to stderr, the answer to
stdout; `--json` makes the answer JSON, one value a line. Everything is imported when a command
needs it."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from millstream.log.cli.command import fail, json_option, print_json, run_until_stopped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .app import App
    from .progress import Progress
    from .reset import ResetPlan
    from .run import RunResult

__all__ = [
    "app_argument",
    "load",
    "print_result",
    "replay",
    "reported_errors",
    "reset",
    "run",
    "run_until_stopped",
    "topology",
]

app_argument = click.argument("reference", metavar="APP")
log_option = click.option(
    "--log",
    "log_url",
    metavar="URL",
    envvar="MILLSTREAM_LOG",
    help="The log to run on, such as file:./data. Default: $MILLSTREAM_LOG, else what the app "
    "says, else file:./millstream-data.",
)


@click.command()
@app_argument
@log_option
@click.option("--until-end", is_flag=True, help="Process what is there, close the windows, exit.")
@click.option(
    "--workers", metavar="N", type=click.IntRange(1), help="Processes that share the work."
)
@click.option(
    "--state-dir",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Where stores lie. Default: what the app says, else beside the log.",
)
@click.option("--listen", metavar="HOST:PORT", help="Let Kafka clients reach the log there.")
@click.option("--metrics", metavar="HOST:PORT", help="Serve metrics for Prometheus there.")
@json_option
def run(
    reference: str,
    log_url: str | None,
    until_end: bool,
    workers: int | None,
    state_dir: Path | None,
    listen: str | None,
    metrics: str | None,
    as_json: bool,
) -> None:
    """Run the stream app APP: path/app.py or package.module, with :name if it is not called app."""
    with reported_errors():
        if workers and (until_end or as_json):
            raise click.UsageError("--until-end and --json are for one process: no --workers.")
        app = load(reference, log_url)
        app.listen = listen or app.listen
        app.state_dir = state_dir or app.state_dir
        if not until_end:
            shown = app.log_url.partition("?")[0]  # options may hold passwords
            click.echo(f"{app.id} runs on {shown}; stop it with Ctrl-C", err=True)
        if workers:
            run_until_stopped(lambda stop: _run_workers(app, reference, workers, metrics, stop))
            return
        from .progress_display import ProgressDisplay

        gc.freeze()  # what is loaded stays; no look for cycles need go through it
        with ProgressDisplay() as progress:
            result = run_until_stopped(
                lambda stop: _run_app(
                    app, metrics, until_end=until_end, progress=progress, stop=stop
                )
            )
        print_result(app, result, as_json)
        if until_end and not result.reached_end:
            fail("stopped before the end; what was processed is committed: start again to go on")


@click.command()
@app_argument
@click.option("--format", "form", type=click.Choice(["text", "mermaid", "kafka"]), default="text")
def topology(reference: str, form: str) -> None:
    """Show the sub-topologies, steps, stores and topics of APP."""
    with reported_errors():
        from .describe import describe

        click.echo(describe(load(reference, None).topology(), form))


@click.command()
@app_argument
@log_option
@click.option(
    "--from", "start", metavar="WHEN", required=True, help="beginning, an ISO time, or 2d ago."
)
@click.option("--to", "end", metavar="WHEN", help="Where to stop; default: what is there now.")
@click.option("--as", "replay_id", metavar="ID", required=True, help="The replay's application id.")
@click.option("--compare", is_flag=True, help="Show what differs from what the app has written.")
@json_option
def replay(
    reference: str,
    log_url: str | None,
    start: str,
    end: str | None,
    replay_id: str,
    compare: bool,
    as_json: bool,
) -> None:
    """Run APP, or a new version of it, over history, into shadow topics ID.TOPIC."""
    with reported_errors():
        app = load(reference, log_url)
        from .replay import When
        from .replay_command import replay_command

        now_ms = time.time_ns() // 1_000_000
        first = When.parse(start, now_ms)
        last = None if end is None else When.parse(end, now_ms)
        gc.freeze()  # what is loaded stays; no look for cycles need go through it
        reached_end = run_until_stopped(
            lambda stop: replay_command(
                app, replay_id, first, last, compare=compare, as_json=as_json, stop=stop
            )
        )
        if not reached_end:
            fail("stopped before the end; a replay starts over")


@click.command()
@app_argument
@log_option
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")
@json_option
def reset(reference: str, log_url: str | None, dry_run: bool, as_json: bool) -> None:
    """Make APP start again from the beginning: positions, internal topics and local state.

    The topics it writes are not touched. The app must not be running.
    """
    with reported_errors():
        app = load(reference, log_url)
        plan = run_until_stopped(lambda _stop: _reset(app, dry_run))
        if as_json:
            print_json(
                {
                    "group": plan.group,
                    "offsets": {str(tp): offset for tp, offset in plan.offsets.items()},
                    "topics": plan.topics,
                    "state": None if plan.state is None else str(plan.state),
                    "dry_run": dry_run,
                }
            )
        else:
            _print_plan(plan, dry_run)


@contextmanager
def reported_errors() -> Iterator[None]:
    """Turn the errors Millstream raises on purpose into a message and exit code 1."""
    from millstream.log.errors import MillstreamError

    from .errors import ProcessingError
    from .loading import AppNotFoundError

    try:
        yield
    except AppNotFoundError as error:
        fail(str(error), exit_code=2)
    except MillstreamError as error:
        if isinstance(error, ProcessingError) and error.__cause__ is not None:
            click.echo(_user_traceback(error.__cause__), err=True, nl=False)
        fail(str(error))
    except BrokenPipeError:
        sys.exit(1)  # whoever read our output has left, and would not see a message either
    except OSError as error:
        fail(f"{error}. Check the directory and the permissions")


def load(reference: str, log_url: str | None) -> App:
    from .loading import load_app

    app = load_app(reference)
    if log_url:
        app.log = log_url
    return app


async def _run_app(
    app: App, metrics: str | None, *, until_end: bool, progress: Progress, stop: asyncio.Event
) -> RunResult:
    from .run import run_app

    if metrics is None:
        return await run_app(app, until_end=until_end, progress=progress, stop=stop)
    from millstream.log.server.metrics_http import serve_metrics

    from .app_log import open_app_log
    from .metrics import AppMetrics

    numbers = AppMetrics(app.id)
    async with open_app_log(app) as log:
        async with serve_metrics([log.metrics, numbers.text], metrics) as address:
            click.echo(f"metrics: http://{address}/metrics", err=True)
            return await run_app(
                app, log=log, until_end=until_end, progress=progress, stop=stop, metrics=numbers
            )


async def _run_workers(
    app: App, reference: str, count: int, metrics: str | None, stop: asyncio.Event
) -> None:
    from contextlib import AsyncExitStack

    from .app_log import open_app_log
    from .workers import run_workers

    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(open_app_log(app))
        if metrics is not None:
            from millstream.log.server.metrics_http import serve_metrics

            address = await stack.enter_async_context(serve_metrics([log.metrics], metrics))
            click.echo(f"metrics of the log: http://{address}/metrics", err=True)
        await run_workers(app, log, reference, count, stop)


async def _reset(app: App, dry_run: bool) -> ResetPlan:
    from millstream.log import open_log

    from .reset import plan_reset, reset_app
    from .run_context import RunContext

    async with open_log(app.log_url) as log:
        context = RunContext.of(app, log)
        return await (plan_reset(context) if dry_run else reset_app(context))


def _user_traceback(error: BaseException) -> str:
    """The traceback without the frames of the framework and of generated code."""
    import traceback

    import millstream.log

    ours = (str(Path(__file__).parent), str(Path(millstream.log.__file__).parent), "<")
    shown = traceback.TracebackException.from_exception(error)
    shown.stack = traceback.StackSummary.from_list(
        [frame for frame in shown.stack if not frame.filename.startswith(ours)]
    )
    return "".join(shown.format())


def print_result(app: App, result: RunResult, as_json: bool) -> None:
    stats = result.stats
    if as_json:
        print_json({"app": app.id, "seconds": result.seconds, **stats._asdict()})
        return
    rate = stats.records / result.seconds if result.seconds else 0.0
    click.echo(
        f"{app.id}: {stats.records:,} records in, {stats.outputs:,} out, in {result.seconds:.1f} s "
        f"({rate:,.0f} records/s)"
    )
    troubles = {
        "late": stats.late,
        "dropped (no key or value)": stats.dropped,
        "skipped": stats.skipped,
        "dead letters": stats.dead_letters,
    }
    for name, count in troubles.items():
        if count:
            click.echo(f"  {name}: {count:,}")


def _print_plan(plan: ResetPlan, dry_run: bool) -> None:
    if plan.is_empty:
        click.echo(f"{plan.group}: nothing to reset")
        return
    click.echo(f"{plan.group}: would do" if dry_run else f"{plan.group}: done")
    for partition, offset in plan.offsets.items():
        click.echo(f"  {partition}: back to the beginning from offset {offset}")
    for topic in plan.topics:
        click.echo(f"  delete topic {topic}")
    if plan.state is not None:
        click.echo(f"  delete {plan.state}")
