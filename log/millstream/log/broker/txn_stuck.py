"""Transactions that are decided and that the disk did not let end.

Their readers wait for the markers, their producers for the end. A disk that was full may have room
a moment later, so the end is tried again: after TIMED_WORK_RETRY_MS, then after twice as long, at
last every STUCK_RETRY_MS_MAX. Where a partition failed, only opening the log again finds what is
true, and ends them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import NamedTuple

from millstream.log.clock import Clock
from millstream.log.errors import StorageError
from millstream.log.events import event
from millstream.log.limits import STUCK_RETRY_MS_MAX, TIMED_WORK_RETRY_MS

__all__ = ["StuckTransactions"]


class _Stuck(NamedTuple):
    error: BaseException
    delay_ms: int
    retry_ms: int | None
    """Monotonic; None when it is just being tried, or never again."""
    needs_reopening: bool


class StuckTransactions:
    """Which they are, what stopped them, and when to try again."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_id: dict[str, _Stuck] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def note(self, transactional_id: str, error: BaseException, *, needs_reopening: bool) -> None:
        """Its end failed, for the first time or again."""
        before = self._by_id.get(transactional_id)
        delay_ms = TIMED_WORK_RETRY_MS
        if before is not None:
            delay_ms = min(2 * before.delay_ms, STUCK_RETRY_MS_MAX)
        retry_ms = None if needs_reopening else self._clock.monotonic_ms() + delay_ms
        self._by_id[transactional_id] = _Stuck(error, delay_ms, retry_ms, needs_reopening)
        event(
            "transaction stuck",
            logging.ERROR,
            transactional_id=transactional_id,
            tried_again_in_ms=-1 if needs_reopening else delay_ms,
            error=error,
        )

    def ended(self, transactional_id: str) -> None:
        """A transaction of this id has ended, whether it was stuck or not."""
        if self._by_id.pop(transactional_id, None) is not None:
            event("stuck transaction ended", transactional_id=transactional_id)

    def retries(self) -> Iterator[int]:
        """Monotonic times at which one is to be tried again."""
        return (each.retry_ms for each in self._by_id.values() if each.retry_ms is not None)

    def take_due(self, now_ms: int) -> list[str]:
        """Those to try now. Each is told of by `note` or `ended` next."""
        due = [
            name
            for name, each in self._by_id.items()
            if each.retry_ms is not None and each.retry_ms <= now_ms
        ]
        for name in due:
            self._by_id[name] = self._by_id[name]._replace(retry_ms=None)
        return due

    def check(self, transactional_id: str) -> None:
        """Raises StorageError for one that is stuck."""
        stuck = self._by_id.get(transactional_id)
        if stuck is not None:
            what = "Opening the log again finishes it."
            if not stuck.needs_reopening:
                what = "It is tried again by itself; try later."
            raise StorageError(
                f"Transactional id {transactional_id!r}: its last transaction was decided, but "
                f"could not be finished: {stuck.error} {what}"
            ) from stuck.error
