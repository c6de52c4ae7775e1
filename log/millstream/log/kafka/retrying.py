"""Asking again while servers are away for a moment: restarting, or giving a partition another
leader. An error that stays for longer than this is raised."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, ParamSpec, TypeVar

from millstream.log.errors import LogError, RebalanceInProgressError

__all__ = ["asked_again", "patiently"]

logger = logging.getLogger("millstream.log")

P = ParamSpec("P")
T = TypeVar("T")

WITHIN_S: Final = 60.0
"""As Kafka's default.api.timeout.ms."""
PAUSE_S: Final = 0.2


def asked_again(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Of a call that may be made twice: make it again when what it raises is retriable."""

    @functools.wraps(method)
    async def call(*arguments: P.args, **named: P.kwargs) -> T:
        end = time.monotonic() + WITHIN_S
        while True:
            try:
                return await method(*arguments, **named)
            except LogError as error:
                if not _may_be_tried_again(error, end):
                    raise
                await asyncio.sleep(PAUSE_S)

    return call


def patiently(work: Callable[[], T], within_s: float = WITHIN_S) -> T:
    """The same in a thread."""
    end = time.monotonic() + within_s
    while True:
        try:
            return work()
        except LogError as error:
            if not _may_be_tried_again(error, end):
                raise
            time.sleep(PAUSE_S)


def _may_be_tried_again(error: LogError, end: float) -> bool:
    if isinstance(error, RebalanceInProgressError):
        return False  # it ends by polling
    if not error.retriable or time.monotonic() >= end:
        return False
    logger.info("Trying again: %s", error)
    return True
