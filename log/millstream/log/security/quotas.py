"""How fast clients may go (KIP-13, KIP-124, KIP-219): rates, whom they are for, and what was used.

A quota is for a user, a client id, both, or the default of either; the closest that fits counts:

    user and client id       of this pair
    user                     all client ids of the user together
    client id                all users of the client id together

Who goes over it is answered, and told how long it will not be read from. What was used drains away
at the allowed rate; a second's worth may be used at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

__all__ = [
    "CONSUMER_BYTE_RATE",
    "DEFAULT",
    "PRODUCER_BYTE_RATE",
    "QUOTAS",
    "REQUEST_PERCENTAGE",
    "THROTTLE_S_MAX",
    "Entity",
    "Quotas",
    "QuotaTable",
]

PRODUCER_BYTE_RATE = "producer_byte_rate"
CONSUMER_BYTE_RATE = "consumer_byte_rate"
REQUEST_PERCENTAGE = "request_percentage"
QUOTAS = (PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE, REQUEST_PERCENTAGE)
"""Bytes a second of requests that write, of answers that read; percent of the time of the server's
thread."""

DEFAULT = ""
"""Stands for every user, or every client id, that has none of its own."""
THROTTLE_S_MAX = 10.0
"""A client is not kept waiting for longer at once; what is left counts the next time."""
_BURST_S = 1.0
_METERS_MAX = 10_000
_CLIENT_ID_KEPT_MAX = 255
"""Characters of a client id by which its meter is found; a client may call itself 32 KB."""


class Entity(NamedTuple):
    """Whom a quota is for. None: whoever it is; DEFAULT: who has none of its own."""

    user: str | None
    client_id: str | None


QuotaTable = Mapping[Entity, Mapping[str, float]]


class _Meter:
    """What was used and has not drained away, since when."""

    __slots__ = ("level", "since_s")

    def __init__(self, now_s: float) -> None:
        self.level = 0.0
        self.since_s = now_s

    def use(self, amount: float, rate: float, now_s: float) -> float:
        """How many seconds it takes until no more than a burst is left."""
        drained = rate * (now_s - self.since_s)
        self.level = max(self.level - drained, 0.0) + amount
        self.since_s = now_s
        return max(self.level / rate - _BURST_S, 0.0)


class Quotas:
    """The quotas that hold, and what clients used of them. `set_table` replaces the quotas."""

    def __init__(self, table: QuotaTable) -> None:
        self._meters: dict[tuple[str, Entity], _Meter] = {}
        self.set_table(table)

    def set_table(self, table: QuotaTable) -> None:
        """From now on these hold. What was used stays used."""
        self._table = table
        self._names = frozenset(name for values in table.values() for name in values)
        self.is_empty = not self._names

    def limits(self, name: str) -> bool:
        """Whether anybody has this quota."""
        return name in self._names

    def use(
        self, name: str, principal: str, client_id: str | None, amount: float, now_s: float
    ) -> float:
        """A client used so much; how long it is to wait, in seconds."""
        if name not in self._names:
            return 0.0
        found = self._found(name, principal.removeprefix("User:"), client_id or "")
        if found is None:
            return 0.0
        whose, rate = found
        if whose.client_id is not None:
            whose = whose._replace(client_id=whose.client_id[:_CLIENT_ID_KEPT_MAX])
        meter = self._meters.get((name, whose))
        if meter is None:
            if len(self._meters) >= _METERS_MAX:
                self._meters.clear()
            meter = self._meters[name, whose] = _Meter(now_s)
        return min(meter.use(amount, rate, now_s), THROTTLE_S_MAX)

    def _found(self, name: str, user: str, client_id: str) -> tuple[Entity, float] | None:
        """Whose meter runs, and the rate."""
        for entity, whose in _candidates(user, client_id):
            rate = self._table.get(entity, {}).get(name)
            if rate is not None:
                return whose, rate / 100 if name == REQUEST_PERCENTAGE else rate
        return None


def _candidates(user: str, client_id: str) -> Iterator[tuple[Entity, Entity]]:
    """Entities that fit, the closest first, each with those who share the meter. Kafka's order."""
    pair, users, clients = Entity(user, client_id), Entity(user, None), Entity(None, client_id)
    yield pair, pair
    yield Entity(user, DEFAULT), pair
    yield users, users
    yield Entity(DEFAULT, client_id), pair
    yield Entity(DEFAULT, DEFAULT), pair
    yield Entity(DEFAULT, None), users
    yield clients, clients
    yield Entity(None, DEFAULT), clients
