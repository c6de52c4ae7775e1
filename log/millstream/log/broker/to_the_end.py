"""Work that must not be left half done because whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["stopped", "to_the_end"]

T = TypeVar("T")


async def to_the_end(
    work: Coroutine[None, None, T], *, on_cancel: Callable[[], None] | None = None
) -> T:
    """Wait for `work` however often the waiting is cancelled, and be cancelled then.

    `on_cancel` may ask the work to end soon.
    """
    task = asyncio.get_running_loop().create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
            if on_cancel is not None:
                on_cancel()
    if cancelled is not None:
        raise cancelled from (None if task.cancelled() else task.exception())
    return task.result()


async def stopped(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks of one's own and wait for their end, whatever that is."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    if running:
        await to_the_end(_ended(running))


async def _ended(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
