"""Work that must not be left half done because whoever waits for it is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["ended", "stopped", "to_the_end"]

T = TypeVar("T")


async def to_the_end(
    work: Coroutine[None, None, T], *, on_cancel: Callable[[], None] | None = None
) -> T:
    """Wait for `work` however often the waiting is cancelled, and be cancelled then.

    `on_cancel` may ask the work to end soon.
    """
    return await ended(asyncio.get_running_loop().create_task(work), on_cancel=on_cancel)


async def ended(work: asyncio.Future[T], *, on_cancel: Callable[[], None] | None = None) -> T:
    """The same for work that has begun."""
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            cancelled = error
            if on_cancel is not None:
                on_cancel()
    if cancelled is not None:
        raise cancelled from (None if work.cancelled() else work.exception())
    return work.result()


async def stopped(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks of one's own and wait for their end, whatever that is."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    if running:
        await ended(asyncio.gather(*running, return_exceptions=True))
