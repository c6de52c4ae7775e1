"""Trying again: a bounded exponential back-off around one attempt of a task."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from millstream.log import RetriableError

from .config import ConnectorConfig
from .errors import FatalConnectError, RetriableConnectError
from .status import State, TaskRun

__all__ = ["DELAY_FIRST_MS", "run_with_retries"]

DELAY_FIRST_MS = 100
"""The first wait. Short: most of what is retriable (a locked database, a rebalance) passes soon."""

logger = logging.getLogger("millstream.connect")


async def run_with_retries(
    attempt: Callable[[], Awaitable[None]], config: ConnectorConfig, run: TaskRun
) -> None:
    """Run `attempt` until it returns or fails for good.

    A retriable failure is followed by a wait that doubles each time, up to
    `errors_retry_delay_max_ms`. An attempt that delivered something starts the back-off anew.

    Raises:
        FatalConnectError: failures went on for `errors_retry_timeout_ms`; the last one is its
        cause.
    """
    clock = asyncio.get_running_loop().time
    delay_ms = DELAY_FIRST_MS
    failing_since: float | None = None
    while True:
        delivered = run.records
        try:
            await attempt()
        except (RetriableConnectError, RetriableError) as error:
            if failing_since is None or run.records > delivered:
                failing_since = clock()
                delay_ms = DELAY_FIRST_MS
            failing_ms = (clock() - failing_since) * 1000
            if 0 <= config.errors_retry_timeout_ms <= failing_ms:
                raise _gave_up(config, run, failing_ms, error) from error
            delay_ms = min(delay_ms, config.errors_retry_delay_max_ms)
            await _wait(config, run, error, delay_ms)
            delay_ms *= 2
        else:
            return


def _gave_up(
    config: ConnectorConfig, run: TaskRun, failing_ms: float, error: Exception
) -> FatalConnectError:
    return FatalConnectError(
        f"connector {config.name!r} task {run.id} gave up after {run.retries} retries in "
        f"{failing_ms / 1000:.1f} s (errors_retry_timeout_ms={config.errors_retry_timeout_ms}): "
        f"{error}. What was delivered is committed; start it again when the cause is mended."
    )


async def _wait(config: ConnectorConfig, run: TaskRun, error: Exception, delay_ms: int) -> None:
    wanted_ms = getattr(error, "retry_after_ms", None) or 0
    wait_ms = max(delay_ms, wanted_ms)
    run.retries += 1
    run.state = State.RESTARTING
    run.trace = str(error)
    logger.warning(
        "connector %s task %d: %s; trying again in %.1f s",
        config.name,
        run.id,
        error,
        wait_ms / 1000,
    )
    await asyncio.sleep(wait_ms / 1000)
