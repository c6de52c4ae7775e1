"""The time seam: whoever needs the time is given a `Clock`, and tests give a fake one.

Wall time goes into timestamps. Monotonic time measures waits, so that a corrected wall clock
neither expires a session nor keeps a transaction open.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

__all__ = ["Clock", "SystemClock", "sleep_until"]


class Clock(Protocol):
    """Tells the time, and waits for it."""

    def wall_ms(self) -> int:
        """Milliseconds since the Unix epoch."""
        ...

    def monotonic_ms(self) -> int:
        """Milliseconds since some fixed moment; never goes backwards."""
        ...

    async def sleep_ms(self, duration_ms: int) -> None:
        """Wait until this much monotonic time has passed."""
        ...


class SystemClock:
    """The machine's clock."""

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    async def sleep_ms(self, duration_ms: int) -> None:
        await asyncio.sleep(duration_ms / 1000)


async def sleep_until(clock: Clock, moment_ms: int, woken: asyncio.Event) -> None:
    """Wait for a moment of the monotonic clock, or until the event is set."""
    loop = asyncio.get_running_loop()
    sleeping = loop.create_task(clock.sleep_ms(max(moment_ms - clock.monotonic_ms(), 0)))
    waking = loop.create_task(woken.wait())
    try:
        await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeping.cancel()
        waking.cancel()
        await asyncio.wait((sleeping, waking))
