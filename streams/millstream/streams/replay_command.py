"""What `millstream replay` does, and how it shows what differs."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

import click
import orjson

from millstream.log import open_log

from .app import App
from .compare import Difference, TopicComparison, compare_replay
from .progress_display import ProgressDisplay
from .replay import Replay, When, prepare_replay
from .run import RunResult

__all__ = ["replay_command"]

ROWS_MAX: Final = 50
"""Differences shown of each topic; `--json` has them all."""


async def replay_command(
    app: App,
    replay_id: str,
    start: When,
    end: When | None,
    *,
    compare: bool,
    as_json: bool,
    stop: asyncio.Event,
) -> bool:
    """Replay, then compare if asked; False when it was stopped before the end."""
    async with open_log(app.log_url) as log:
        with ProgressDisplay() as progress:
            replay = await prepare_replay(
                app, log, replay_id=replay_id, start=start, end=end, progress=progress
            )
            result = await replay.run(stop)
        if result.reached_end:
            comparisons = await compare_replay(replay) if compare else []
            (_print_json if as_json else _print_text)(replay, result, comparisons)
        return result.reached_end


def _print_json(replay: Replay, result: RunResult, comparisons: list[TopicComparison]) -> None:
    """One line for the run, then one for each topic and for each difference."""
    _line(
        {
            "replay": replay.context.app_id,
            "seconds": result.seconds,
            "shadows": replay.shadows,
            **result.stats._asdict(),
        }
    )
    for comparison in comparisons:
        summary = asdict(comparison)
        differences = summary.pop("differences")
        _line(summary | {"different": len(differences)})
        for difference in differences:
            _line({"topic": comparison.topic, **difference})


def _print_text(replay: Replay, result: RunResult, comparisons: list[TopicComparison]) -> None:
    shadows = ", ".join(replay.shadows.values()) or "nothing"
    click.echo(
        f"{replay.context.app_id}: {result.stats.records:,} records in, {result.stats.outputs:,} "
        f"out to {shadows}, in {result.seconds:.1f} s"
    )
    for comparison in comparisons:
        count = len(comparison.differences)
        what = "keys" if comparison.is_table else "records"
        click.echo(
            f"\n{comparison.topic} and {comparison.shadow}: {comparison.same:,} {what} are the "
            f"same, {count:,} differ"
        )
        if count:
            _print_table(comparison.differences[:ROWS_MAX])
        if count > ROWS_MAX:
            click.echo(f"... and {count - ROWS_MAX:,} more; --json prints all")


def _print_table(differences: list[Difference]) -> None:
    from rich.console import Console
    from rich.table import Table

    windowed = any(difference.window_start is not None for difference in differences)
    table = Table()
    for column in ["key", *(["window"] if windowed else []), "old", "new"]:
        table.add_column(column)
    for difference in differences:
        window = [_time(difference.window_start)] if windowed else []
        old, new = _only_what_differs(difference.old, difference.new)
        table.add_row(str(difference.key), *window, old, new)
    Console().print(table)


def _only_what_differs(old: Any, new: Any) -> tuple[str, str]:
    """Both values; of two objects with fields, only the fields they disagree on."""
    if isinstance(old, dict) and isinstance(new, dict):
        names = [name for name in old | new if old.get(name) != new.get(name)]
        return _fields(old, names), _fields(new, names)
    return _text(old), _text(new)


def _fields(value: dict[Any, Any], names: list[Any]) -> str:
    return ", ".join(f"{name}={value[name]}" for name in names if name in value)


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


def _time(time_ms: int | None) -> str:
    if time_ms is None:
        return ""
    moment = datetime.fromtimestamp(time_ms / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S").removesuffix(" 00:00:00")


def _line(value: Any) -> None:
    click.echo(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode())
