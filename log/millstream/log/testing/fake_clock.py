"""A clock that stands still until a test moves it."""

from __future__ import annotations

import asyncio

__all__ = ["FakeClock"]


class FakeClock:
    """`advance` moves wall and monotonic time alike and wakes those whose sleep is over."""

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self._wall_ms = wall_ms
        self._monotonic_ms = 0
        self._sleepers: list[tuple[int, asyncio.Future[None]]] = []

    def wall_ms(self) -> int:
        return self._wall_ms

    def monotonic_ms(self) -> int:
        return self._monotonic_ms

    async def sleep_ms(self, duration_ms: int) -> None:
        if duration_ms <= 0:
            return
        woken = asyncio.get_running_loop().create_future()
        sleeper = (self._monotonic_ms + duration_ms, woken)
        self._sleepers.append(sleeper)
        try:
            await woken
        finally:
            if sleeper in self._sleepers:
                self._sleepers.remove(sleeper)

    def advance(self, duration_ms: int) -> None:
        """Let `duration_ms` pass at once."""
        self._wall_ms += duration_ms
        self._monotonic_ms += duration_ms
        due = [sleeper for sleeper in self._sleepers if sleeper[0] <= self._monotonic_ms]
        for sleeper in due:
            self._sleepers.remove(sleeper)
            if not sleeper[1].done():
                sleeper[1].set_result(None)
