"""Admin requests that name very much, and topics that change while one is answered."""

from __future__ import annotations

from types import SimpleNamespace

from log.server.test_admin_handlers import with_broker
from millstream.log.broker.broker import Broker
from millstream.log.server.dispatch import apis
from millstream.log.server.handler import Context, Identity, Peer

ALTER_USERS = 51
UNKNOWN_ID, TOO_MANY = 100, 44


def context(broker: Broker, key: int, version: int) -> Context:
    return Context(broker, Identity("cluster", "localhost", 9092), Peer("test"), "t", key, version)


class Named:
    """The deletion of a user, that counts how often it was looked at."""

    mechanism = 1
    looks = 0

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        Named.looks += 1
        return self._name


def test_many_users_of_one_request_are_looked_at_a_few_times_each() -> None:
    async def body(broker: Broker) -> None:
        Named.looks = 0
        entries = tuple(Named(f"user{number}") for number in range(300))
        request = SimpleNamespace(deletions=entries, upsertions=())
        answer = await apis()[ALTER_USERS].handle(request, context(broker, ALTER_USERS, 0))
        assert answer is not None
        assert [each["error_code"] for each in answer["results"]] == [91] * 300
        assert Named.looks < 300 * 20

    with_broker(body)
