"""Forgets transactional ids that nobody used for long (transactional.id.expiration.ms).

An id is idle when it has no transaction. Its tombstone is appended and the id is gone; should a
crash lose the tombstone, the id is there again and as old as before, so it goes the next time. An
id that a producer of this process holds is in use, however long it does nothing: forgetting it
would fence that producer without need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

from millstream.log.clock import Clock
from millstream.log.config import BrokerConfig
from millstream.log.events import event
from millstream.log.limits import IDS_FORGOTTEN_AT_ONCE

from .txn_log import TransactionLog

__all__ = ["IdExpiry"]


class IdExpiry:
    """Which ids are held, and when to look next for those to forget."""

    def __init__(self, log: TransactionLog, config: BrokerConfig, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._expiration_ms = config.transactional_id_expiration_ms
        self._interval_ms = config.transaction_remove_expired_transaction_cleanup_interval_ms
        self._held: Counter[str] = Counter()
        self.next_look_ms = clock.monotonic_ms()
        self.expired = 0

    def hold(self, transactional_id: str) -> None:
        """A producer of this process uses the id. As often as `hold`, call `release`."""
        self._held[transactional_id] += 1

    def release(self, transactional_id: str) -> None:
        """The producer is closed."""
        self._held[transactional_id] -= 1
        if self._held[transactional_id] <= 0:
            del self._held[transactional_id]

    def let_time_pass(self, now_ms: int, *, busy: Container[str]) -> None:
        """Look for idle ids when it is time to; those in `busy` are not idle.

        Raises:
            StorageError: a tombstone could not be written; its ids are kept.
        """
        if now_ms < self.next_look_ms:
            return
        self.next_look_ms = now_ms + self._interval_ms
        before_ms = self._clock.wall_ms() - self._expiration_ms
        idle = [
            each.transactional_id
            for each in self._log.table.idle_since(before_ms)
            if each.transactional_id not in busy and each.transactional_id not in self._held
        ]
        if len(idle) > IDS_FORGOTTEN_AT_ONCE:
            del idle[IDS_FORGOTTEN_AT_ONCE:]
            self.next_look_ms = now_ms
        self._log.forget(idle)
        self.expired += len(idle)
        if idle:
            event("transactional ids expired", count=len(idle), first=min(idle), last=max(idle))
