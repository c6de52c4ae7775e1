"""Work that must not be left half done because whoever waits for it is cancelled; and work without
end, for which nobody waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["ended", "in_background", "stopped", "to_the_end"]

logger = logging.getLogger("millstream.log")

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


def in_background(work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
    """Begin work that goes on until it is cancelled. Should a defect end it, the log says so at
    once, and not only when its owner looks at the task."""

    def told(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.critical(
                "The log's %s has ended by a defect, and goes on when the log is opened again. "
                "Close it, and report this: %r",
                name,
                error,
                exc_info=error,
            )

    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(told)
    return task


async def stopped(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks of one's own and wait for their end, whatever that is."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    if running:
        await ended(asyncio.gather(*running, return_exceptions=True))
