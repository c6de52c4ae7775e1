"""Async steps: many at once, up to a bound, their results in the order of the records."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from .fuse.environment import PendingCall

__all__ = ["Failed", "run_calls"]


class Failed:
    """The result of a call that raised."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


async def run_calls(rows: list[PendingCall], *, many: bool, concurrency: int) -> list[Any]:
    """Make every call, up to `concurrency` at once.

    Returns:
        For each row what it gave: the result, the list of all results of an async generator, or a
        `Failed`.
    """
    results: list[Any] = [None] * len(rows)
    waiting = iter(enumerate(rows))
    async with asyncio.TaskGroup() as group:
        for _ in range(min(concurrency, len(rows))):
            group.create_task(_work(waiting, results, many))
    return results


async def _work(waiting: Iterator[tuple[int, PendingCall]], results: list[Any], many: bool) -> None:
    for i, row in waiting:
        try:
            if many:
                results[i] = [each async for each in row[0]()]
            else:
                results[i] = await row[0]()
        except Exception as error:  # noqa: BLE001 - user code; the step's policy decides
            results[i] = Failed(error)
