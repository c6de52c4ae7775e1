"""Admin requests that name very much, and topics that change while one is answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from log.server.test_access import TOPIC, Access, T, access
from log.server.test_admin_handlers import DESCRIBE, with_broker
from millstream.log.broker.broker import Broker
from millstream.log.security.acl import Operation
from millstream.log.server.dispatch import apis
from millstream.log.server.guards import cluster
from millstream.log.server.handler import Context, Fields, Identity, Peer

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


def test_many_settings_that_are_refused_are_put_together_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    joined: list[int] = []
    real = cluster.joined

    def noted(answer: Fields, field: str, more: Any) -> Fields:
        found = real(answer, field, more)
        joined.append(len(found[field]))
        return found

    monkeypatch.setattr(cluster, "joined", noted)

    async def test(it: Access) -> None:
        it.allow((Operation.DESCRIBE_CONFIGS, TOPIC, "mine"))
        names = ["mine", *(f"t{number}" for number in range(50))]
        asked = [
            {"resource_type": 2, "resource_name": name, "configuration_keys": None}
            for name in names
        ]
        answer = await it.ask(DESCRIBE, 4, resources=asked)
        found = {each.resource_name: each.error_code for each in answer.results}
        assert found == dict.fromkeys(names, T) | {"mine": 0}
        assert joined == [len(names)]

    access(test)
